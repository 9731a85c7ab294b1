"""`raftmq cluster ...`: what an operator looks at and changes in a running cluster.

Each asks one node over HTTP, any of them; that node answers when the change is in force there.
Exit codes: 0 done, 1 refused or not done in time, 2 nobody answers, or a wrong call.
"""

from __future__ import annotations

import sys

import click
import msgspec

from broker.cli.http_view import fetch
from broker.cli.tables import table
from broker.status import ClusterStatus, decode_cluster

DEFAULT_URL = "http://127.0.0.1:7652"
ANSWER_S = 15.0
"""Longer than a node takes to say that it could not."""

url_option = click.option(
    "--url",
    default=DEFAULT_URL,
    envvar="RAFTMQ_HTTP_URL",
    show_default=True,
    show_envvar=True,
    help="HTTP address of a node; several, separated by commas: the first that answers.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="As JSON.")


@click.group("cluster")
def cluster() -> None:
    """Look at the cluster, and change it."""


@cluster.command("limits")
@click.option(
    "--set", "changes", multiple=True, metavar="NAME=NUMBER", help="A new value; may be repeated."
)
@url_option
@json_option
def limits(changes: tuple[str, ...], url: str, as_json: bool) -> None:
    """Show the limits on what queues and sessions hold, or change some of them."""
    wanted = dict(map(_change, changes))
    body = msgspec.json.encode(wanted) if wanted else None
    in_force = msgspec.json.decode(ask(url, "/cluster/limits", body), type=dict[str, int])
    if as_json:
        click.echo(msgspec.json.encode(in_force))
    else:
        click.echo(table(("LIMIT", "VALUE"), list(in_force.items())))


@cluster.command("members")
@url_option
@json_option
def members(url: str, as_json: bool) -> None:
    """Show the nodes of the cluster and what each of them keeps."""
    answer = ask(url, "/cluster/members")
    click.echo(answer if as_json else describe(decode_cluster(answer)))


@cluster.command("add")
@click.argument("name")
@click.argument("address", metavar="HOST:PEERPORT")
@url_option
def add(name: str, address: str, url: str) -> None:
    """Let a new node join. It gets a copy of shard 0, and no vote until it is promoted.

    NAME was never used in this cluster. HOST:PEERPORT is where the other nodes reach it.
    """
    _change_nodes(url, "add", {"node": name, "address": address})


@cluster.command("promote")
@click.argument("name")
@url_option
def promote(name: str, url: str) -> None:
    """Make a node that joined a member: it votes, and its share of the shards moves to it."""
    _change_nodes(url, "promote", {"node": name})


@cluster.command("remove")
@click.argument("name")
@url_option
def remove(name: str, url: str) -> None:
    """Take a node out, for ever: others get what it has, then it stops by itself."""
    _change_nodes(url, "remove", {"node": name})


def _change_nodes(url: str, kind: str, wish: dict[str, str]) -> None:
    answer = ask(url, f"/cluster/{kind}", msgspec.json.encode(wish))
    click.echo(msgspec.json.decode(answer, type=dict[str, str])["done"])


def describe(seen: ClusterStatus) -> str:
    """The list of nodes for a terminal."""
    if not seen.version:
        state = "the cluster is not founded yet: a majority of its nodes must run"
    elif seen.settled:
        state = f"version {seen.version} of the list, settled"
    else:
        shards = ", ".join(map(str, seen.moving)) or "none as far as this node has heard"
        state = f"version {seen.version} of the list, not settled; on their way are shards {shards}"
    rows = [
        (
            node.node,
            node.address,
            node.state,
            node.connected,
            "yes" if node.known else "never",
            _shards(node.votes),
            _shards(node.learns),
        )
        for node in seen.nodes
    ]
    heads = ("NODE", "PEER ADDRESS", "STATE", "CONNECTED", "SEEN", "VOTES ON", "LEARNS")
    return f"{state}\n\n{table(heads, rows)}"


def _shards(numbers: list[int]) -> str:
    """Few as they are, many as ranges: 0-3,7."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and parts[-1][-1] == number - 1:
            parts[-1] = [parts[-1][0], number]
        else:
            parts.append([number])
    return ",".join("-".join(map(str, part)) for part in parts) or "-"


def ask(url: str, path: str, body: bytes | None = None) -> bytes:
    """The answer of the first node there; with a body it is a POST. Ends the command otherwise."""
    places = [part for part in url.split(",") if part]
    for place in places:
        try:
            code, answer = fetch(place, path, ANSWER_S, body)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--url") from error
        except OSError:
            continue
        if code == 200:
            return answer
        raise click.ClickException(_error(answer, code))
    click.echo(f"raftmq: no node answers at {', '.join(places)}", err=True)
    sys.exit(2)


def _change(text: str) -> tuple[str, int]:
    name, _, value = text.partition("=")
    if not name or not value.isdecimal():
        raise click.BadParameter(f"{text!r} is not of the form name=number", param_hint="--set")
    return name, int(value)


def _error(answer: bytes, code: int) -> str:
    try:
        return msgspec.json.decode(answer, type=dict[str, str])["error"]
    except (msgspec.DecodeError, KeyError):
        return f"the node answered with HTTP status {code}"
