"""docs/protocol.md has every operation, answer, record, command, message and code, as it is.

A row of its tables begins `| number | `Name` | fields |`, where the fields are those of the
struct in their order, each with its type and, if it may be left out, its default. A row that
is missing, stale or different fails, and the failure shows the row that the code asks for.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from broker import peer_protocol, protocol
from broker.errors import Code
from broker.machines import commands
from raftlog import messages

PAGE = Path(__file__).resolve().parents[2] / "docs" / "protocol.md"
TABLES: dict[str, Any] = {
    "Operations": protocol.AnyOperation,
    "Answers": protocol.AnyAnswer,
    "Records": peer_protocol.AnyRecord,
    "Raft messages": messages.Message,
    "Commands": commands.AnyCommand,
}
TYPES = {
    "dict[str, Any] | None": "map?",
    "Arguments | None": "map?",
    "dict[str, str]": "{str: str}",
    "dict[str, int]": "{str: int}",
    "dict[str, bytes]": "{str: bytes}",
    "tuple[int, ...]": "[int]",
    "Ids": "[int]",
    "Pairs": "[[int, int]]",
    "tuple[tuple[int, int], ...]": "[[int, int]]",
    "tuple[Entry, ...]": "[Entry]",
    "list[str]": "[str]",
    "list[bytes]": "[bytes]",
    "list[tuple[int, bytes]]": "[[int, bytes]]",
    "list[tuple[int, list[int]]]": "[[int, [int]]]",
    "list[tuple[int, int]]": "[[int, int]]",
    "list[tuple[int, int, int, list[int], list[int]]]": "[[int, int, int, [int], [int]]]",
    "tuple[tuple[str, str, int], ...]": "[[str, str, int]]",
    "list[int]": "[int]",
    "list[tuple[int, int, int, bytes]]": "[[int, int, int, bytes]]",
    "Any": "any",
}
"""How the page writes the annotations that it does not take over as they are."""

_SECTION = re.compile(r"^#+ (.+)$")
_ROW = re.compile(r"^\| (\d+) \| `(\w+)` \| (.*)$")


def _rows() -> dict[str, dict[str, tuple[int, str]]]:
    """Section -> name -> (number, the rest of the row)."""
    rows: dict[str, dict[str, tuple[int, str]]] = {}
    section = ""
    for line in PAGE.read_text().splitlines():
        if heading := _SECTION.match(line):
            section = heading[1]
        elif row := _ROW.match(line):
            rows.setdefault(section, {})[row[2]] = (int(row[1]), row[3])
    return rows


def _fields(struct: type[msgspec.Struct]) -> str:
    """The fields as the page writes them."""
    parts = []
    for field in msgspec.structs.fields(struct):
        annotation = struct.__annotations__[field.name]
        part = f"{field.name} {TYPES.get(annotation, annotation)}"
        if field.default is not msgspec.NODEFAULT:
            default = "nil" if field.default is None else str(field.default).lower()
            part += f" = {default}"
        parts.append(part)
    return f"`{', '.join(parts)}`" if parts else "-"


@pytest.mark.parametrize("section", TABLES)
def test_the_page_has_every_struct_as_it_is(section: str) -> None:
    rows = _rows()[section]
    for struct in get_args(TABLES[section]):
        tag = struct.__struct_config__.tag
        wanted = f"| {tag} | `{struct.__name__}` | {_fields(struct)} |"
        number, rest = rows.pop(struct.__name__, (0, ""))
        assert (number, rest[: rest.find(" |") + 2]) == (tag, f"{_fields(struct)} |"), wanted
    assert not rows, "the code has none of these"


def test_the_page_has_every_error_code() -> None:
    rows = {name: number for name, (number, _) in _rows()["Error codes"].items()}
    assert rows == {code.name: code.value for code in Code}


def test_the_page_has_every_outcome_of_a_settlement() -> None:
    rows = {name: number for name, (number, _) in _rows()["Outcomes"].items()}
    assert rows == {outcome.name: outcome.value for outcome in commands.Outcome}
