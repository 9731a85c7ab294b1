"""A shard: one Raft group and the machine that its entries drive.

    commands -> inbox -> propose (leader) -> entry -> committed -> Machine.apply -> effects
                  |
                  +-- waits while this node's copy of the topology is older than the
                      one by which a command was routed

The leader is in service from the moment its own no-op is applied: only from then on are
proposals made and effects carried out. What was applied before belongs to earlier leaders;
clients hear of the new one and name what they hold and miss.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from broker.batch import Batch, BatchError, encode_batch, index_of, offset_of
from broker.errors import FormatTooNew
from broker.inbox import Inbox
from broker.machines.commands import AnyCommand, Enqueue, decode
from broker.machines.effects import Effect
from broker.machines.machine import Machine
from raftlog.errors import Compacted, ProposalDropped
from raftlog.membership import decode_change
from raftlog.messages import Entry, EntryKind
from raftlog.node import RawNode
from raftlog.progress import ProgressState
from raftlog.ready import ProgressStatus, Role, Status
from raftlog.storage import GroupStorage
from raftlog.store_errors import CorruptRecord, Place

LEVEL_ENTRIES = 64
"""A new replica that lacks no more than this takes part: more come in all the time."""

BATCHES_KEPT = 16
"""Entries whose offset tables stay open for the bodies of their messages."""


@dataclass(slots=True)
class Applied:
    """What one entry did: its effects are carried out only when `in_service`."""

    index: int
    commands: list[AnyCommand]
    effects: list[Effect]
    in_service: bool


@dataclass(slots=True)
class Replay:
    """What was applied behind the last checkpoint: what a restart would apply again."""

    commands: int = 0
    bytes: int = 0

    def clear(self) -> None:
        """There is a checkpoint of all that."""
        self.commands = self.bytes = 0

    def add(self, more: Replay) -> None:
        """There will be no checkpoint of that."""
        self.commands += more.commands
        self.bytes += more.bytes


class Shard:
    """One group's Raft node, machine and inbox on this node."""

    def __init__(
        self,
        number: int,
        raft: RawNode,
        machine: Machine,
        storage: GroupStorage,
        *,
        entry_bytes_max: int,
        entry_commands_max: int,
    ) -> None:
        self.number = number
        self.raft = raft
        self.machine = machine
        self.storage = storage
        self.inbox = Inbox()
        self.applied = raft.applied
        self.serving_term = 0  #: the own term whose no-op is applied; 0: not in service
        self.full = False  #: Raft took no more; try again when something was applied
        self.changed_at = 0  #: the last entry applied that changed the membership
        self.receiving = ""  #: the node that a snapshot is on its way from
        self.pulled_ms = -1_000_000_000  #: when a part of the checkpoint was last asked for
        self.replay = Replay()
        self._entry_bytes_max = entry_bytes_max
        self._entry_commands_max = entry_commands_max
        self._batches: OrderedDict[int, Batch] = OrderedDict()

    @property
    def in_service(self) -> bool:
        """Whether this node leads the shard and its own no-op is applied."""
        raft = self.raft
        return self.serving_term == raft.term and raft.role is Role.LEADER and raft.term != 0

    def is_caught_up(self, member: int) -> bool:
        """Whether a member has, as far as its leader knows, all of the log."""
        progress = self.raft.status().progress.get(member)
        return progress is not None and progress.match == self.raft.last_index

    def is_level(self, member: int) -> bool:
        """Whether a member has nearly all of the log: what it lacks may be on its way."""
        status = self.raft.status()
        progress = status.progress.get(member)
        return progress is not None and is_level(progress, status)

    def can_propose(self, topology: int) -> bool:
        """Whether `propose` would do anything, at this applied index of shard 0."""
        return (
            bool(self.inbox)
            and not self.full
            and self.inbox.is_due(topology)
            and self.machine.topology_index <= topology
            and self.in_service
        )

    def propose(self, now_ms: int, topology: int, is_open: Callable[[int], bool]) -> None:
        """Turn what waits into entries, as far as Raft takes them."""
        inbox, bytes_max, commands_max = self.inbox, self._entry_bytes_max, self._entry_commands_max
        while taken := inbox.take(topology, is_open, bytes_max, commands_max):
            try:
                self.raft.propose(encode_batch(now_ms, [item.command for item in taken]))
            except ProposalDropped:
                inbox.put_back(taken)
                self.full = True
                return

    def retire(self) -> None:
        """This node does not lead any more: clients repeat what was waiting."""
        self.serving_term = 0
        self.inbox.clear()

    def apply(self, entry: Entry) -> Applied:
        """Apply one committed entry."""
        assert entry.index == self.applied + 1, (self.number, entry.index, self.applied)
        self.applied = entry.index
        self.full = False
        if entry.kind == EntryKind.CHANGE:
            self.raft.apply_conf_change(decode_change(entry.data))
            self.changed_at = entry.index
        if entry.kind != EntryKind.NORMAL or not entry.data:
            return Applied(entry.index, [], [], self.in_service)
        batch = self._keep(entry.index, self._opened(entry))
        self.replay.commands += batch.count
        self.replay.bytes += len(entry.data)
        commands = self._decoded(entry.index, batch)
        effects = self.machine.apply(entry.index, batch.now_ms, commands)
        return Applied(entry.index, commands, effects, self.in_service)

    def _opened(self, entry: Entry) -> Batch:
        try:
            return Batch(entry.data)
        except BatchError as error:
            raise self._too_new(entry.index, error) from error

    def _decoded(self, index: int, batch: Batch) -> list[AnyCommand]:
        try:
            return [decode(batch.command(offset)) for offset in range(batch.count)]
        except msgspec.DecodeError as error:
            raise self._too_new(index, error) from error

    def _too_new(self, index: int, error: Exception) -> FormatTooNew:
        """Its sum is right, and nodes let nothing else into a log than they can read."""
        return FormatTooNew(
            f"entry {index} of shard {self.number} cannot be read by this version ({error}): run "
            "the version that wrote it, or a later one"
        )

    def restore(self, index: int) -> None:
        """Become what the storage's whole checkpoint, at `index`, says."""
        mark = self.storage.checkpoint
        assert mark is not None and mark.index == index, (self.number, index, mark)
        self.machine.restore(b"".join(map(self.storage.chunk, range(mark.chunks))))
        assert self.machine.applied <= index, (self.number, self.machine.applied, index)
        self.applied = index
        self.replay.clear()
        self._batches.clear()

    def message(self, id: int) -> Enqueue:
        """The command that carried a message, which must be alive.

        Raise `CorruptRecord` when it is nowhere: who passed over it would lose a message.
        """
        data = self.encoded(id)
        if data is None:
            wrong = f"its message is alive, and neither it nor entry {index_of(id)} is there"
            raise CorruptRecord("this node's data", Place("messages", self.number, id), wrong)
        command = decode(data)
        assert isinstance(command, Enqueue), (self.number, id)
        return command

    def encoded(self, id: int) -> bytes | memoryview | None:
        """The bytes of that command, from its entry or by themselves; None when they are gone."""
        index = index_of(id)
        batch = self._batches.get(index)
        if batch is None:
            try:
                entry = self.storage.entry(index)
            except Compacted:
                return self.storage.body(id)
            batch = self._keep(index, Batch(entry.data))
        return batch.command(offset_of(id))

    def _keep(self, index: int, batch: Batch) -> Batch:
        batches = self._batches
        batches[index] = batch
        if len(batches) > BATCHES_KEPT:
            batches.popitem(last=False)
        return batch


def is_level(progress: ProgressStatus, status: Status) -> bool:
    """Whether a member lacks so few entries that they may be on their way.

    Not while it receives a snapshot: the few entries of a log may carry a large state.
    """
    follows = progress.state is ProgressState.REPLICATE
    return follows and progress.match + LEVEL_ENTRIES >= status.last_index
