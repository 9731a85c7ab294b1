"""`raftmq queue ...`: the queues of the cluster, as the leaders of their shards see them."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from broker.cli.tables import table
from broker.errors import ConfigError, RaftMQError
from broker.status import QueueStatus

DEFAULT_URL = "raftmq://127.0.0.1:7650//"


@click.group("queue")
def queue() -> None:
    """Look at queues."""


@queue.command("list")
@click.option(
    "--url",
    default=DEFAULT_URL,
    envvar="RAFTMQ_URL",
    show_default=True,
    show_envvar=True,
    help="The cluster; any node of it will do.",
)
@click.option("--json", "as_json", is_flag=True, help="An array with an object for each queue.")
def list_queues(url: str, as_json: bool) -> None:
    """List all queues with their depths, whichever node is asked."""
    try:
        seen = queues_of(url)
    except ConfigError:
        raise
    except RaftMQError as error:
        raise click.ClickException(str(error)) from error
    if as_json:
        click.echo(msgspec.json.encode(seen))
        return
    click.echo(
        table(
            ("VHOST", "NAME", "READY", "CHECKED OUT", "CONSUMERS", "SHARD", "KIND"),
            [
                (q.vhost, q.name, q.ready, q.checked_out, q.consumers, q.shard, _kind(q))
                for q in seen
            ],
        )
    )


def queues_of(url: str) -> list[QueueStatus]:
    """The queues of the cluster at this URL, by vhost and name; `RaftMQError` when it fails."""
    # Late: the other commands start without loading the client and its sockets.
    from broker.client import Client

    client = Client(url)
    try:
        told: Any = client.inspect("queues")
    finally:
        client.close()
    seen = msgspec.convert(told, list[QueueStatus])
    return sorted(seen, key=lambda q: (q.vhost, q.name))


def _kind(seen: QueueStatus) -> str:
    words = {
        "durable": seen.durable,
        "exclusive": seen.exclusive,
        "auto-delete": seen.auto_delete,
    }
    return ", ".join(word for word, is_so in words.items() if is_so) or "transient"
