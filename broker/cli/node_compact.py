"""`raftmq node compact`: makes a stopped node's file as small as what it holds.

Exit codes: 0 done, 1 the directory is damaged or the disk refuses, 2 it cannot be used now. But
for 0 nothing was changed.
"""

from __future__ import annotations

from pathlib import Path

import click

from broker.errors import ConfigError
from raftlog.store_errors import StoreError, StoreLocked, StoreTooNew, StoreUnusable


@click.command("compact")
@click.option(
    "--data-dir",
    envvar="RAFTMQ_DATA_DIR",
    show_envvar=True,
    default="raftmq-data",
    show_default=True,
    help="Where the node keeps its log.",
)
def compact(data_dir: str) -> None:
    """Give back the disk space that a stopped node's file does not need any more.

    Needs room for a copy beside it. A running node uses such space again by itself.
    """
    # Late: the other commands start without loading the store.
    from raftlog.lmdb_compaction import compact_directory

    try:
        sizes = compact_directory(Path(data_dir))
    except (StoreLocked, StoreUnusable, StoreTooNew) as error:
        raise ConfigError(str(error)) from error
    except StoreError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{data_dir}: {sizes.before} bytes before, {sizes.after} now")
