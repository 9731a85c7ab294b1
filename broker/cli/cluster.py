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
