"""Golden scripts: commands in, text out, comments for why.

    # what this shows
    command word key=value      one or more commands
    ----
    what they printed           up to the next blank line

`REWRITE=1 pytest ...` writes what came out into the file: then read the difference as
carefully as code.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

DIVIDER = "----"


@dataclass(slots=True)
class Command:
    """One line: `word` positional... key=value..."""

    name: str
    words: list[str]
    options: dict[str, str]
    place: str  #: file and line, for what goes wrong

    @classmethod
    def parse(cls, line: str, place: str) -> Command:
        name, *rest = line.split()
        options = dict(word.split("=", 1) for word in rest if "=" in word)
        return cls(name, [word for word in rest if "=" not in word], options, place)


@dataclass(slots=True)
class Block:
    """Comments and commands as they stand in the file, and the output they should have."""

    lines: list[str] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    expected: list[str] = field(default_factory=list)


def parse(path: Path) -> list[Block]:
    """The blocks of a script: a blank line ends each; one may be comments alone."""
    blocks, block, in_output = [], Block(), False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip():
            if block.lines:
                blocks.append(block)
            block, in_output = Block(), False
        elif in_output:
            block.expected.append(line)
        elif line.strip() == DIVIDER:
            in_output = True
        else:
            block.lines.append(line)
            if not line.lstrip().startswith("#"):
                block.commands.append(Command.parse(line, f"{path.name}:{number}"))
    if block.lines:
        blocks.append(block)
    return blocks


def run(path: Path, execute: Callable[[Command], str]) -> None:
    """Run a script; raise `AssertionError` with both texts where they differ."""
    text = []
    for block in parse(path):
        actual = [line for command in block.commands for line in _run_one(execute, command)]
        text.extend(block.lines)
        if block.commands:
            text.extend([DIVIDER, *actual])
            if not os.environ.get("REWRITE"):
                place = block.commands[0].place
                assert actual == block.expected, _difference(place, actual, block.expected)
        text.append("")
    if os.environ.get("REWRITE"):
        path.write_text("\n".join(text).rstrip("\n") + "\n")


def _run_one(execute: Callable[[Command], str], command: Command) -> list[str]:
    try:
        return [line.rstrip() for line in execute(command).splitlines() if line.strip()]
    except Exception as error:
        raise AssertionError(f"{command.place}: {command.name}: {error!r}") from error


def _difference(place: str, actual: list[str], expected: list[str]) -> str:
    return "\n".join([f"{place}: printed", *actual, "where the script has", *expected])
