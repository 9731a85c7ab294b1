"""The settings of a node as options and environment variables of a command.

Every field of `Config` is one of each: `tick_ms` is `--tick-ms` and `RAFTMQ_TICK_MS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any

import click

from broker.config import Config, parse_cluster_nodes

_HELP = {
    "node_id": "This node's name, one of --cluster-nodes.",
    "cluster_nodes": "All nodes: n1:host:peer-port,n2:host:peer-port,...",
    "cluster_name": "Keeps nodes of different clusters apart.",
    "join": "Peer addresses of nodes to ask, host:port,...; for a new node's first start.",
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


def make_config(settings: dict[str, Any]) -> Config:
    """Raise `ConfigError` when a setting is wrong. None stands for the default."""
    given = {name: value for name, value in settings.items() if value is not None}
    if "cluster_nodes" in given:
        given["cluster_nodes"] = parse_cluster_nodes(given["cluster_nodes"])
    return Config(**_completed(given))


def _completed(given: dict[str, Any]) -> dict[str, Any]:
    """What a node that has joined was told then, and is not told again at every start."""
    # Late: the other commands start without loading the node.
    from broker.joining import stored_owner

    defaults = Config()
    owner = stored_owner(Path(given.get("data_dir", defaults.data_dir)))
    node_id = given.get("node_id", defaults.node_id)
    if owner is None or owner.charter is None or owner.node != node_id:
        return given
    given = {**given, "join": ""}
    if all(peer.id != owner.node for peer in given.get("cluster_nodes", ())):
        charter = owner.charter
        given["cluster_nodes"] = charter.peers()
        given["cluster_name"] = charter.name
        given["shards"], given["replication_factor"] = charter.shards, charter.replication_factor
    return given
