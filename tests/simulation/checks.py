"""What must hold at every step of a simulated cluster, and at its end.

after every turn    of the node that took it, and of what has changed there:
                    one leader per term · nothing goes back · one history of commits
                    · the books of the shards (book.py)
at any confirm      what is confirmed is in the history
now and then        a node's machine is the fold of the history, to the hash of its state;
                    checkpoints, bodies (checkpoints.py)
at the end          confirmed = delivered · nothing is left · nobody holds anything
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.groups import new_machine
from broker.shard import Shard
from raftlog.errors import Compacted
from raftlog.messages import HardState
from raftlog.ready import Role
from tests.simulation.book import Book
from tests.simulation.checkpoints import CheckpointChecker
from tests.simulation.client import History
from tests.simulation.node import SimNode
from tests.simulation.violation import Violation

HASH_EVERY = 32
"""Entries between two looks at the whole state of a node's machine."""


@dataclass(slots=True)
class _Seen:
    """What a node's replica of a shard was like when last looked at."""

    life: object
    applied: int
    commit: int
    term: int = 0
    leads: bool = False
    hashed: int = -HASH_EVERY


@dataclass
class Checker:
    """Looks at a node when it has done something; remembers what may never change."""

    nodes: dict[str, SimNode]
    history: History
    books: dict[int, Book] = field(default_factory=dict)
    leaders: dict[tuple[int, int], str] = field(default_factory=dict)
    durable: dict[tuple[str, int], HardState] = field(default_factory=dict)
    hashes: int = 0  #: states that were compared
    _seen: dict[tuple[str, int], _Seen] = field(default_factory=dict)
    _lives: set[tuple[str, int, bytes]] = field(default_factory=set)  #: node, group and disk
    _groups: dict[tuple[str, int], object] = field(default_factory=dict)  #: as they stand on disk

    def __post_init__(self) -> None:
        self.checkpoints = CheckpointChecker(self.nodes)
        self.history.books = self.books

    def turned(self, node: SimNode, shards: list[Shard]) -> None:
        """A node has started, or taken a turn that changed these shards."""
        name, storages = node.name, node.disk.storages
        for shard in shards:
            number = shard.number
            key = (name, number)
            hard = storages[number].initial_state()[0]
            if self._groups.get(key) is not storages[number]:
                self._groups[key] = storages[number]
                self._made_anew((name, number, node.disk.disk_id), key, hard)
            if self.durable.get(key) is not hard:
                self._wrote(key, hard)
            seen = self._seen.get(key)
            if seen is None or seen.life is not shard or shard.applied < seen.applied:
                seen = self._seen[key] = self._started(number, shard)
            raft = shard.raft
            if shard.applied > seen.applied:
                self._applied(node, shard, seen)
            leads = raft.role is Role.LEADER
            if leads and (not seen.leads or raft.term != seen.term):
                self._leads(number, raft.term, name)
            if raft.commit < seen.commit or raft.term < seen.term:
                text = f"shard {number} on {name}: commit {raft.commit}, term {raft.term}"
                raise Violation("nothing goes back", f"{text} after {seen.commit}, {seen.term}")
            seen.commit, seen.term, seen.leads = raft.commit, raft.term, leads

    def step(self) -> None:
        """What is looked at now and then."""
        for node in self.nodes.values():
            if node.engine is not None:
                self.checkpoints.step(node)
        if self.history.faults:
            raise Violation(*self.history.faults[0])

    # --- one replica ----------------------------------------------------------------------

    def _wrote(self, key: tuple[str, int], hard: HardState) -> None:
        old = self.durable.get(key)
        self.durable[key] = hard
        if old is None:
            return
        revoted = hard.term == old.term and old.vote not in (0, hard.vote)
        if hard.term < old.term or hard.commit < old.commit or revoted:
            raise Violation("nothing goes back", f"{old} became {hard} on {key}")

    def _made_anew(
        self, life: tuple[str, int, bytes], key: tuple[str, int], hard: HardState
    ) -> None:
        """A group that was dropped has come back, or is on another disk: its own history."""
        old = self.durable.pop(key, None)
        if old is not None and life in self._lives and hard.term <= old.term:
            text = f"{key} was dropped in term {old.term}, and is back in {hard.term}"
            raise Violation("a replica made anew is of a later term", text)
        self._lives.add(life)

    def _started(self, number: int, shard: Shard) -> _Seen:
        """It restored a checkpoint: its machine is compared at the next occasion."""
        if number not in self.books:
            node = next(iter(self.nodes.values()))
            self.books[number] = Book(number, new_machine(node.config, number))
        return _Seen(shard, min(shard.applied, self.books[number].index), 0)

    def _applied(self, node: SimNode, shard: Shard, seen: _Seen) -> None:
        number, book, storage = shard.number, self.books[shard.number], shard.storage
        for index in range(seen.applied + 1, shard.applied + 1):
            try:
                entry = storage.entry(index)
            except Compacted:
                if index > book.index:
                    raise
                continue  # part of a snapshot, and known from others
            self.checkpoints.committed(number, entry)
            book.see(entry, node.name)
        seen.applied = shard.applied
        if shard.applied == book.index and shard.applied - seen.hashed >= HASH_EVERY:
            seen.hashed = shard.applied
            self._is_fold(node.name, shard)

    def _is_fold(self, node: str, shard: Shard) -> None:
        self.hashes += 1
        if shard.machine.state_hash() != self.books[shard.number].state_hash():
            text = f"the machine of shard {shard.number} at {shard.applied} differs on {node}"
            raise Violation("equal machines at equal indexes", text)

    def _leads(self, number: int, term: int, node: str) -> None:
        known = self.leaders.setdefault((number, term), node)
        if known != node:
            text = f"shard {number} has two leaders in term {term}: {known} and {node}"
            raise Violation("one leader per term", text)

    # --- the end --------------------------------------------------------------------------

    def finish(self, queues: list[str]) -> None:
        """After everything was drained."""
        history = self.history
        lost = [p for p in history.confirmed if p not in history.delivered]
        if lost:
            text = f"{len(lost)} confirmed messages were lost, {lost[0]!r} among them"
            raise Violation("conservation", text)
        for payload, deliveries in history.delivered.items():
            ids = {id for id, _ in deliveries}
            if len(ids) > 1:
                text = f"{payload!r} was enqueued {len(ids)} times"
                raise Violation("a retry enqueues once", text)
            counts = [count for _, count in deliveries]
            if len(set(counts)) != len(counts):
                text = f"{payload!r} was delivered twice with one count: {counts}"
                raise Violation("one session per checkout", text)
        for book in self.books.values():
            book.count()
        self.checkpoints.finish()
        for node in self.nodes.values():
            if node.engine is None:
                assert node.gone, node.name
                continue
            for shard in node.engine.shards.values():
                if shard.applied == self.books[shard.number].index:
                    self._is_fold(node.name, shard)
            for status in node.engine.status().queues:
                if status.name in queues and status.ready:
                    text = f"{status.ready} messages are left in {status.name}"
                    raise Violation("all is drained", text)
