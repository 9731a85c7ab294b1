"""What must hold of checkpoints, kept entries and survivors.

a checkpoint is the fold of the log     its chunks are the bytes of a machine that has applied
                                        every entry up to there, its membership that of the log
every living message has its body       on each replica that has applied as much as any ever has
nothing is left of what is gone         after a drain, when all is swept
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.batch import Batch, index_of, offset_of
from broker.config import raft_id
from broker.groups import new_machine, replicas
from broker.machines.commands import decode
from broker.machines.machine import Machine
from raftlog.errors import Compacted
from raftlog.membership import decode_change, next_membership
from raftlog.messages import Entry, EntryKind, Membership
from raftlog.storage import GroupStorage
from raftlog.write import Mark
from tests.simulation.node import SimNode
from tests.simulation.violation import Violation

EVERY = 16
"""All bodies are looked at whenever so many entries more are applied, and at the end."""


@dataclass
class _Fold:
    """A machine that has only ever applied entries."""

    machine: Machine
    membership: Membership
    index: int = 0

    def apply(self, entry: Entry) -> None:
        self.index = entry.index
        if entry.kind == EntryKind.CHANGE:
            self.membership = next_membership(self.membership, decode_change(entry.data))
        elif entry.data:
            batch = Batch(entry.data)
            commands = [decode(batch.command(offset)) for offset in range(batch.count)]
            self.machine.apply(entry.index, batch.now_ms, commands)


@dataclass
class CheckpointChecker:
    """Told of every entry once it is committed; looks at the nodes' disks."""

    nodes: dict[str, SimNode]
    entries: dict[tuple[int, int], Entry] = field(default_factory=dict)
    folds: dict[int, _Fold] = field(default_factory=dict)
    proved: dict[tuple[int, int], tuple[bytes, Membership]] = field(default_factory=dict)
    marks: dict[tuple[str, int], int] = field(default_factory=dict)
    looked: dict[tuple[str, int], int] = field(default_factory=dict)
    top: dict[int, int] = field(default_factory=dict)  #: applied by whoever has applied most
    checkpoints: int = 0  #: that were proved

    def committed(self, number: int, entry: Entry) -> None:
        """Any node has applied this entry."""
        self.entries.setdefault((number, entry.index), entry)

    def step(self, node: SimNode) -> None:
        """A node that runs."""
        assert node.engine is not None
        for number, shard in node.engine.shards.items():
            self.top[number] = max(self.top.get(number, 0), shard.applied)
            mark, key = shard.storage.checkpoint, (node.name, number)
            if mark is not None and self.marks.get(key) != mark.index:
                self.marks[key] = mark.index
                self._marked(node, number, shard.storage, mark)
            if shard.applied - self.looked.get(key, 0) >= EVERY:
                self._bodies(node, number)

    def finish(self) -> None:
        """All is still."""
        for node in self.nodes.values():
            if node.engine is None:
                assert node.gone, node.name
                continue
            for number in node.engine.shards:
                self.looked.pop((node.name, number), None)
                self._bodies(node, number)

    def leftovers(self) -> list[str]:
        """What lies on disk for messages although there are none."""
        left = []
        for node in self.nodes.values():
            if node.engine is None:
                assert node.gone, node.name
                continue
            for number, shard in node.engine.shards.items():
                if _living(shard.machine):
                    continue
                entries = shard.storage.kept_entries(0, 1000)
                bodies = shard.storage.body_ids(0, 1000)
                if entries or bodies:
                    text = f"keeps {len(entries)} entries and {len(bodies)} bodies of nothing"
                    left.append(f"{node.name}: shard {number} {text}")
        return left

    # --- the fold -------------------------------------------------------------------------

    def _marked(self, node: SimNode, number: int, storage: GroupStorage, mark: Mark) -> None:
        """A node has a new checkpoint."""
        self.checkpoints += 1
        state = b"".join(map(storage.chunk, range(mark.chunks)))
        at = f"shard {number} on {node.name} at {mark.index}"
        proved = self.proved.get((number, mark.index))
        if proved is None:
            proved = self.proved[number, mark.index] = self._folded(node, number, mark.index)
        if state != proved[0]:
            raise Violation("a checkpoint is the fold of the log", f"the checkpoint of {at} is not")
        if mark.membership != proved[1]:
            text = f"the checkpoint of {at} has {mark.membership}, the log {proved[1]}"
            raise Violation("a checkpoint is the fold of the log", text)

    def _folded(self, node: SimNode, number: int, index: int) -> tuple[bytes, Membership]:
        fold = self.folds.get(number)
        if fold is None or fold.index > index:
            # Behind what was folded: from the log's beginning once more, which is rare.
            founder = next(iter(self.nodes.values())).config
            ids = sorted(map(raft_id, replicas(founder)[number]))
            membership = Membership(voters=tuple(ids))
            fold = _Fold(new_machine(node.config, number), membership)
        for at in range(fold.index + 1, index + 1):
            fold.apply(self.entries[number, at])
        kept = self.folds.get(number)
        if kept is None or kept.index < index:
            self.folds[number] = fold
        return fold.machine.snapshot(), fold.membership

    # --- the bodies -----------------------------------------------------------------------

    def _bodies(self, node: SimNode, number: int) -> None:
        assert node.engine is not None
        shard, key = node.engine.shards[number], (node.name, number)
        if shard.applied < self.top[number] or self.looked.get(key) == shard.applied:
            return
        self.looked[key] = shard.applied
        for id in _living(shard.machine):
            wanted = Batch(self.entries[number, index_of(id)].data).command(offset_of(id))
            if _body(shard.storage, id) != wanted:
                text = f"message {id} of shard {number} is alive on {node.name} without its body"
                raise Violation("every living message has its body", text)


def _living(machine: Machine) -> set[int]:
    """All messages, found in another way than the sweeper's."""
    return {id for queue in machine.queues() for id in machine.messages(queue)}


def _body(storage: GroupStorage, id: int) -> bytes | memoryview | None:
    try:
        return Batch(storage.entry(index_of(id)).data).command(offset_of(id))
    except Compacted:
        return storage.body(id)
