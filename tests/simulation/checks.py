"""What must hold at every step of a simulated cluster, and at its end.

at every step   one leader per term · one history of committed entries · nothing goes back
                · equal machines at equal indexes · no delivery after a confirmed ack
at the end      confirmed = delivered and acked, or still there · nothing twice in a queue
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import blake2b

from raftlog.errors import Compacted
from raftlog.ready import Role
from tests.simulation.checkpoints import CheckpointChecker
from tests.simulation.client import History
from tests.simulation.node import SimNode
from tests.simulation.violation import Violation


@dataclass
class Checker:
    """Looks at all nodes after each step; remembers what may never change."""

    nodes: dict[str, SimNode]
    history: History
    leaders: dict[tuple[int, int], str] = field(default_factory=dict)
    entries: dict[tuple[int, int], tuple[int, bytes]] = field(default_factory=dict)
    hashes: dict[tuple[int, int], bytes] = field(default_factory=dict)
    checked: dict[tuple[str, int, int], int] = field(default_factory=dict)
    terms: dict[tuple[str, int], int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.checkpoints = CheckpointChecker(self.nodes)

    def step(self) -> None:
        """All invariants that can be seen from outside the nodes."""
        for node in self.nodes.values():
            engine = node.engine
            if engine is None:
                continue
            for number, shard in engine.shards.items():
                raft = shard.raft
                self._never_back(
                    node.name, number, node.disk.storages[number].initial_state()[0].term
                )
                if raft.role is Role.LEADER:
                    known = self.leaders.setdefault((number, raft.term), node.name)
                    if known != node.name:
                        raise Violation(
                            "one leader per term",
                            f"shard {number} has two leaders in term {raft.term}: "
                            f"{known} and {node.name}",
                        )
                self._committed(node, number, shard.applied)
                self._same_machine(node.name, number, shard.applied, shard.machine.state_hash)
            self.checkpoints.step(node)
        if self.history.faults:
            raise Violation(*self.history.faults[0])

    def _never_back(self, node: str, number: int, term: int) -> None:
        """Of what is on disk: nobody has heard of a term that a crash came before."""
        if term < self.terms.get((node, number), 0):
            text = f"the term of {node} in shard {number} went back to {term}"
            raise Violation("terms never go back", text)
        self.terms[node, number] = term

    def _committed(self, node: SimNode, number: int, applied: int) -> None:
        """Everything applied is on this node's disk, and the same on all of them."""
        key = (node.name, node.boots, number)
        storage = node.disk.storages[number]
        for index in range(self.checked.get(key, 0) + 1, applied + 1):
            try:
                entry = storage.entry(index)
            except Compacted:
                continue  # applied in an earlier life, or part of a snapshot
            self.checkpoints.committed(number, entry)
            mark = (entry.term, blake2b(entry.data, digest_size=8).digest())
            if self.entries.setdefault((number, index), mark) != mark:
                text = f"entry {index} of shard {number} differs on {node.name}"
                raise Violation("one history of commits", text)
        self.checked[key] = max(applied, self.checked.get(key, 0))

    def _same_machine(self, node: str, number: int, applied: int, state_hash: object) -> None:
        if applied % 16 or not applied or not callable(state_hash):
            return
        mark = state_hash()
        if self.hashes.setdefault((number, applied), mark) != mark:
            text = f"the machine of shard {number} at {applied} differs on {node}"
            raise Violation("equal machines at equal indexes", text)

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
                raise Violation("one live session per checkout", text)
        self.checkpoints.finish()
        for node in self.nodes.values():
            assert node.engine is not None
            for status in node.engine.status().queues:
                if status.name in queues and status.ready:
                    text = f"{status.ready} messages are left in {status.name}"
                    raise Violation("all is drained", text)
