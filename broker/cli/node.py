"""`raftmq node`: one node of a cluster, in this process, until SIGTERM or SIGINT.

    raftmq node --node-id ...                 runs it
    raftmq node compact | verify | repair     work on the directory of a node that is stopped

Every field of `Config` is an option and an environment variable: `tick_ms` is `--tick-ms` and
`RAFTMQ_TICK_MS`. Exit codes: 0 told to stop, 1 the disk failed or a bug was found, 2 a setting
is wrong or the data directory is not this node's (nothing was changed then).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from typing import Any

import click

from broker.cli.local_cluster import port_is_free
from broker.cli.node_compact import compact
from broker.cli.node_verify import verify
from broker.config import Config, parse_cluster_nodes
from broker.errors import ConfigError, StateDiffered
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
NOT_OURS = (StoreUnusable, StoreLocked, StoreOfOtherCluster, StoreOfOtherNode, StoreTooNew)

_HELP = {
    "node_id": "This node's name, one of --cluster-nodes.",
    "cluster_nodes": "All nodes: n1:host:peer-port,n2:host:peer-port,...",
    "cluster_name": "Keeps nodes of different clusters apart.",
    "data_dir": "Where this node keeps its log.",
    "host": "Where clients are served.",
    "peer_host": "Where the other nodes are listened to.",
    "http_host": "Where /health, /ready, /status and /metrics are served.",
    "advertise_host": "What clients are told to connect to, if it is not --host.",
    "shards": "Raft groups of the cluster; cannot be changed later.",
}


def node_options(command: Callable[..., None]) -> Callable[..., None]:
    """An option for each field of `Config`."""
    for field in reversed(fields(Config)):
        command = _option(field)(command)
    return command


def _option(field: Field[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    assert field.default is not MISSING
    is_number = field.type == "int"
    default = field.default if is_number or field.type == "str" else None
    return click.option(
        "--" + field.name.replace("_", "-"),
        envvar=f"RAFTMQ_{field.name.upper()}",
        show_envvar=True,
        type=int if is_number else str,
        default=default,
        show_default=bool(default),
        help=_HELP.get(field.name),
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


def make_config(settings: dict[str, Any]) -> Config:
    """Raise `ConfigError` when a setting is wrong. None stands for the default."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "cluster_nodes" in given:
        given["cluster_nodes"] = parse_cluster_nodes(given["cluster_nodes"])
    return Config(**given)


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
