"""The directory of a stopped node, as commands are given it, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import click

from broker.errors import ConfigError
from raftlog.store_errors import StoreError, StoreLocked, StoreTooNew, StoreUnusable

data_dir_option = click.option(
    "--data-dir",
    envvar="RAFTMQ_DATA_DIR",
    show_envvar=True,
    default="raftmq-data",
    show_default=True,
    help="Where the node keeps its log.",
)


@contextmanager
def directory_errors() -> Iterator[None]:
    """Ends the command with code 2 when the directory cannot be used now, else with 1."""
    try:
        yield
    except (StoreLocked, StoreUnusable, StoreTooNew) as error:
        raise ConfigError(str(error)) from error
    except StoreError as error:
        raise click.ClickException(str(error)) from error
