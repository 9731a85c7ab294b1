"""`raftmq node`: one node of a cluster, in this process, until SIGTERM or SIGINT.

    raftmq node --node-id ...                 runs it
    raftmq node compact | verify | repair     work on the directory of a node that is stopped

Exit codes: 0 told to stop, 1 the disk failed or a bug was found, 2 a setting
is wrong or the data directory is not this node's (nothing was changed then).
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import click

from broker.cli.local_cluster import port_is_free
from broker.cli.node_compact import compact
from broker.cli.node_repair import repair
from broker.cli.node_verify import verify
from broker.cli.settings import make_config, node_options
from broker.config import Config
from broker.errors import ConfigError, FormatTooNew, StateDiffered
from raftlog.store_errors import (
    StoreError,
    StoreLocked,
    StoreOfOtherCluster,
    StoreOfOtherNode,
    StoreTooNew,
    StoreUnusable,
)

LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
NOT_OURS = (
    StoreUnusable,
    StoreLocked,
    StoreOfOtherCluster,
    StoreOfOtherNode,
    StoreTooNew,
    FormatTooNew,
)


@click.group("node", invoke_without_command=True)
@node_options
@click.option(
    "--log-level",
    envvar="RAFTMQ_LOG_LEVEL",
    show_envvar=True,
    type=click.Choice(LOG_LEVELS, case_sensitive=False),
    default="info",
    show_default=True,
)
def node(log_level: str, **settings: Any) -> None:
    """Run one node of a cluster, or work on the directory of one that is stopped."""
    if click.get_current_context().invoked_subcommand is not None:
        return
    config = make_config(settings)
    logging.basicConfig(level=log_level.upper(), format=LOG_FORMAT)
    sys.exit(run(config))


def run(config: Config) -> int:
    """Run the node; its exit code. Raise `ConfigError` before anything is touched."""
    # Late: the other commands start without loading the node.
    from broker.node import run_node

    # The HTTP side opens last; its port must be known to be free before data are opened.
    _check_port(config.http_host, config.http_port, "http-port")
    try:
        return run_node(config)
    except NOT_OURS as error:
        raise ConfigError(str(error)) from error
    except (StoreError, StateDiffered) as error:
        click.echo(f"raftmq: {error}", err=True)
        return 1


def _check_port(host: str, port: int, option: str) -> None:
    try:
        free = port_is_free(host, port)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {host}:{port} ({error.strerror}): choose another address"
        ) from error
    if not free:
        raise ConfigError(
            f"cannot listen on {host}:{port} (in use): choose another --{option}, "
            f"or end the process that uses it"
        )


node.add_command(compact)
node.add_command(verify)
node.add_command(repair)
