"""A node with its storage and machine, driven by the rules of `Ready`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from raftlog.config import Config
from raftlog.membership import decode_change
from raftlog.messages import EntryKind, Membership, Message
from raftlog.node import RawNode, ReadState, Ready
from raftlog.storage import MemoryStorage


@dataclass(slots=True)
class Applied:
    """The simplest machine: the data of all entries. Its snapshot is all of them."""

    index: int
    membership: Membership
    data: list[bytes] = field(default_factory=list)

    def dump(self) -> bytes:
        return b"\n".join(self.data)

    @classmethod
    def load(cls, index: int, membership: Membership, dump: bytes) -> Applied:
        return cls(index, membership, dump.split(b"\n") if dump else [])


class Host:
    """One node: `storage` and `durable` survive a crash, `node` and `machine` do not."""

    def __init__(self, config: Config, membership: Membership | Iterable[int]) -> None:
        self.config = config
        self.storage = MemoryStorage(membership)
        self.reads: list[ReadState] = []
        self.start()

    def start(self) -> None:
        """Start from what the storage holds, its newest snapshot first."""
        snapshot = self.storage.snapshot()
        self.storage.set_membership(snapshot.membership)
        self.machine = Applied.load(snapshot.index, snapshot.membership, snapshot.data)
        self.node = RawNode(replace(self.config, applied=snapshot.index), self.storage)
        self.ready: Ready | None = None

    # --- the steps of a turn -------------------------------------------------------------

    def begin(self) -> list[Message]:
        """Take a Ready; the messages that may leave at once."""
        self.ready = self.node.ready()
        return self.ready.messages

    def write(self) -> list[Message]:
        """Make it durable; the messages that may leave now."""
        assert self.ready is not None
        ready, storage = self.ready, self.storage
        if ready.must_sync:
            if ready.snapshot is not None:
                storage.apply_snapshot(ready.snapshot)
            storage.append(ready.entries)
            if ready.hard_state is not None:
                storage.set_hard_state(ready.hard_state)
        return ready.messages_after

    def finish(self) -> None:
        """Apply, and tell the node."""
        assert self.ready is not None
        ready, machine = self.ready, self.machine
        if ready.snapshot is not None:
            snapshot = ready.snapshot
            self.machine = machine = Applied.load(
                snapshot.index, snapshot.membership, snapshot.data
            )
        for entry in ready.committed:
            assert entry.index == machine.index + 1, (entry, machine.index)
            machine.index = entry.index
            if entry.kind == EntryKind.CHANGE:
                machine.membership = self.node.apply_conf_change(decode_change(entry.data))
            elif entry.data:
                machine.data.append(entry.data)
        self.reads.extend(ready.read_states)
        self.node.advance(ready)
        self.ready = None

    def turn(self, send: Callable[[Message], None]) -> None:
        """Everything in the right order."""
        for message in self.begin():
            send(message)
        for message in self.write():
            send(message)
        self.finish()

    def take_snapshot(self) -> None:
        """Make a snapshot of the machine as it is."""
        self.storage.create_snapshot(
            self.machine.index, self.machine.membership, self.machine.dump()
        )
