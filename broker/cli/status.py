"""`raftmq status`: what the first node that answers knows of the cluster.

Exit codes: 0 the node serves clients, 1 it answers and does not serve, 2 nobody answers.
"""

from __future__ import annotations

import sys

import click

from broker.cli.http_view import first_status
from broker.cli.tables import table
from broker.status import NodeStatus, ShardStatus, encode_status

DEFAULT_URLS = ("http://127.0.0.1:7652", "http://127.0.0.1:7850")
"""Where `raftmq node` and the first node of `raftmq dev` serve HTTP unless told otherwise."""


@click.command("status")
@click.option(
    "--url",
    "urls",
    multiple=True,
    envvar="RAFTMQ_HTTP_URL",
    help=f"HTTP address of a node, several times for several. [default: {', '.join(DEFAULT_URLS)}]",
)
@click.option("--json", "as_json", is_flag=True, help="All of it as one JSON object.")
def status(urls: tuple[str, ...], as_json: bool) -> None:
    """Show how a node and its shards are."""
    asked = [part for url in urls or DEFAULT_URLS for part in url.split(",") if part]
    try:
        seen = first_status(asked)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--url") from error
    if seen is None:
        click.echo(f"raftmq: no node answers at {', '.join(asked)}", err=True)
        sys.exit(2)
    click.echo(encode_status(seen) if as_json else describe(seen))
    sys.exit(0 if seen.ready else 1)


def describe(seen: NodeStatus) -> str:
    """The text for a terminal."""
    state = "ready" if seen.ready else f"not ready: {seen.reason}"
    sessions = f"{sum(s.connected for s in seen.sessions)} of {len(seen.sessions)} connected"
    parts = [
        f"node {seen.node} of cluster {seen.cluster!r}, version {seen.version}: {state}",
        f"sessions: {sessions}   queues: {len(seen.queues)}",
        table(
            ("PEER", "CONNECTED", "HEARD MS AGO", "CLIENT ADDRESS"),
            [(p.node, p.connected, p.last_heard_ms, p.client_address) for p in seen.peers],
        ),
        table(
            ("SHARD", "ROLE", "LEADER", "TERM", "COMMIT", "APPLIED", "LAST"),
            [
                (s.shard, _role(s), s.leader or None, s.term, s.commit, s.applied, s.last)
                for s in seen.shards
            ],
        ),
    ]
    return "\n\n".join(parts)


def _role(shard: ShardStatus) -> str:
    return f"{shard.role} < {shard.receiving}" if shard.receiving else shard.role
