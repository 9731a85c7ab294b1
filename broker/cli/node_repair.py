"""`raftmq node repair`: heals a stopped node's directory with copies from the other nodes.

    verify -> what is damaged -> a copy from each of the others in turn
           -> taken only when what is left of this directory proves it (raftlog/lmdb_repair.py)
           -> verify again

Exit codes: 0 nothing is damaged (any more), 1 something still is, 2 a setting is wrong or the
directory cannot be used now. Nothing is ever dropped.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from broker.cli.directory import directory_errors
from broker.cli.node_verify import as_text, shown, verified
from broker.cli.settings import make_config, node_options
from broker.config import Config
from broker.errors import ConfigError
from broker.peer_protocol import EntryPart
from raftlog.messages import Entry, EntryKind
from raftlog.store_errors import Place, RepairRefused

if TYPE_CHECKING:
    from raftlog.lmdb_repair import Repair

REPLACE = (
    "What is left cannot be proved by this directory. Keep it for inspection, take this node out "
    "of the cluster (raftmq cluster remove) and add one under a new name, with an empty directory "
    "(raftmq cluster add). The other nodes go on meanwhile."
)
PAGE = 100
"""Records asked for at a time."""


class Lenders(Protocol):
    """The other nodes."""

    @property
    def nodes(self) -> list[str]:
        """Their names."""

    def ask(
        self, node: str, group: int, incarnation: int, *, entries: list[int], bodies: list[int]
    ) -> EntryPart | None:
        """Copies of what a node has; None when it does not answer."""


@click.command("repair")
@node_options
def repair(**settings: Any) -> None:
    """Heal a stopped node's directory with copies from the other nodes.

    Takes the options of `raftmq node`, and listens on the node's own peer port meanwhile.
    """
    config = make_config(settings)
    with directory_errors():
        code = repair_node(config, click.echo)
    sys.exit(code)


def repair_node(config: Config, say: Callable[[str], None]) -> int:
    """The command's exit code; `say` gets one line for each thing that happened."""
    # Late: neither LMDB nor ZeroMQ is needed by the other commands.
    from broker.cli.repair_link import RepairLink
    from raftlog.lmdb_repair import open_repair
    from raftlog.lmdb_verify import verify_directory

    path = Path(config.data_dir)
    report = verify_directory(path)
    say(as_text(shown(path, report)).splitlines()[0])
    if not report.damages:
        return 0
    with open_repair(path) as opened:
        owner = opened.identity
        if owner.node != config.node_id:
            raise ConfigError(
                f"{path} belongs to node {owner.node!r}, and --node-id is {config.node_id!r}: "
                "set the right one, or another --data-dir"
            )
        cluster = bytes.fromhex(owner.cluster)
        with RepairLink(config, cluster=cluster, disk=opened.disk_id) as link:
            heal(opened, link, [damage.place for damage in report.damages], say)
    found = verified(path)
    say(as_text(found) if not found.damages else f"{as_text(found)}\n{REPLACE}")
    return 1 if found.damages else 0


def heal(
    opened: Repair, lenders: Lenders, places: Iterable[Place], say: Callable[[str], None]
) -> None:
    """Heal what can be healed, and say of each place what became of it."""
    healing = Healing(opened, lenders, say)
    entries: dict[int, list[int]] = {}
    places = list(places)
    lost = {place.group for place in places if place.database == "state"}
    for place in places:
        if place.group in lost and place.database != "state":
            say(f"{place}: not healed: nothing proves it, for the group's state is damaged too")
            continue
        if place.group is not None and place.number is not None:
            if place.database == "log":
                entries.setdefault(place.group, []).append(place.number)
                continue
            if place.database == "messages":
                healing.body(place.group, place.number)
                continue
        say(f"{place}: no copy of another node can prove it")
    for group, indices in entries.items():
        for run in runs(sorted(indices)):
            healing.run(group, run)


def runs(indices: list[int]) -> Iterator[list[int]]:
    """Neighbours together: between two damaged entries nothing proves either."""
    run: list[int] = []
    for index in indices:
        if run and index != run[-1] + 1:
            yield run
            run = []
        run.append(index)
    if run:
        yield run


class Healing:
    """One repair."""

    def __init__(self, opened: Repair, lenders: Lenders, say: Callable[[str], None]) -> None:
        self._opened, self._lenders, self._say = opened, lenders, say
        self._away: set[str] = set()

    def run(self, group: int, indices: list[int]) -> None:
        """Entries that follow one another."""
        what = (
            f"entry {indices[0]}" if len(indices) == 1 else f"entries {indices[0]} to {indices[-1]}"
        )
        copies: dict[int, Entry] = {}
        why = "no other node has a whole copy"
        for node in self._lenders.nodes:
            self._fetch(node, group, indices, copies)
            if len(copies) < len(indices):
                continue
            try:
                self._opened.repair_entries(group, [copies[index] for index in indices])
            except RepairRefused as error:
                why = str(error)
                copies.clear()  # another node may have another history
                continue
            self._say(f"{what} of group {group}: healed with the copy of node {node}")
            return
        self._say(f"{what} of group {group}: not healed: {why}{self._who_was_away()}")

    def body(self, group: int, id: int) -> None:
        """A message's body."""
        why = "no other node has it"
        for node in self._lenders.nodes:
            part = self._ask(node, group, [], [id])
            for _, data in part.bodies if part is not None else []:
                try:
                    self._opened.repair_body(group, id, data)
                except RepairRefused as error:
                    why = str(error)
                    continue
                self._say(f"body {id} of group {group}: healed with the copy of node {node}")
                return
        self._say(f"body {id} of group {group}: not healed: {why}{self._who_was_away()}")

    def _fetch(self, node: str, group: int, indices: list[int], copies: dict[int, Entry]) -> None:
        """What a node has of the entries that are not copied yet."""
        wanted = [index for index in indices if index not in copies]
        while wanted:
            part = self._ask(node, group, wanted[:PAGE], [])
            if part is None or not part.entries:
                return
            for index, term, kind, data in part.entries:
                copies[index] = Entry(index, term, EntryKind(kind), data)
            last = part.entries[-1][0]
            wanted = [index for index in wanted if index > last]

    def _ask(
        self, node: str, group: int, entries: list[int], bodies: list[int]
    ) -> EntryPart | None:
        if node in self._away:
            return None
        incarnation = self._opened.incarnation(group)
        part = self._lenders.ask(node, group, incarnation, entries=entries, bodies=bodies)
        if part is None:
            self._away.add(node)
            self._say(f"node {node} does not answer")
        return part

    def _who_was_away(self) -> str:
        if not self._away:
            return ""
        return f" (not asked: {', '.join(sorted(self._away))}; run this again when they are there)"
