"""`raftmq node verify`: reads all of a stopped node's directory, and names what is damaged.

Exit codes: 0 nothing is, 1 something is, 2 the directory cannot be read now.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from broker.cli.directory import data_dir_option, directory_errors
from raftlog.store_errors import StoreCorrupt

if TYPE_CHECKING:
    from raftlog.lmdb_verify import Report

WHAT_NOW = (
    "Entries, bodies and chunks can be healed from the other nodes: raftmq node repair. Do not "
    "start this node before, and never with an empty directory under its name."
)


class DamageShown(msgspec.Struct, frozen=True):
    """A damaged record as JSON has it; without `database`, the file as a whole."""

    wrong: str
    database: str = ""
    group: int | None = None
    number: int | None = None  #: entry's index, message id, or number of a chunk
    checkpoint: int | None = None  #: the index of a chunk's checkpoint
    name: str | None = None  #: of a record of the node


class ReportShown(msgspec.Struct, frozen=True):
    """What was found, as JSON has it."""

    data_dir: str
    cluster: str | None
    node: str | None
    groups: list[int]
    records: int
    damages: list[DamageShown]
    text: list[str]  #: of each of the damages, for people


@click.command("verify")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def verify(data_dir: str, as_json: bool) -> None:
    """Name every damaged record of a node that is stopped; changes nothing."""
    with directory_errors():
        found = verified(Path(data_dir))
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        click.echo(as_text(found))
    sys.exit(1 if found.damages else 0)


def verified(path: Path) -> ReportShown:
    """What there is to say of a directory. Raise a `StoreError` when it cannot be read now."""
    # Late: LMDB is not needed by the other commands.
    from raftlog.lmdb_verify import verify_directory

    try:
        report = verify_directory(path)
    except StoreCorrupt as error:
        text = str(error)
        return ReportShown(str(path), None, None, [], 0, [DamageShown(text)], [text])
    return shown(path, report)


def shown(path: Path, report: Report) -> ReportShown:
    """What a look at a directory has found, as JSON has it."""
    owner = report.identity
    return ReportShown(
        str(path),
        owner.cluster if owner is not None else None,
        owner.node if owner is not None else None,
        report.groups,
        report.records,
        [DamageShown(wrong, *place) for place, wrong in report.damages],
        list(map(str, report.damages)),
    )


def as_text(found: ReportShown) -> str:
    """One line for each damage, and what to do."""
    count = len(found.damages)
    of = f"{found.data_dir} (node {found.node or 'unknown'})"
    if not count:
        return f"{of}: {found.records} records, none of them damaged"
    lines = [f"{of}: {found.records} records, {count} damaged"]
    return "\n".join([*lines, *(f"  {line}" for line in found.text), WHAT_NOW])
