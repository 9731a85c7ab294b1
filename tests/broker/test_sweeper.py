"""Checkpoints, compaction and sweeping of one shard, against a store in memory.

The shard here is a machine and a storage; each `Group.entry` is an entry that is committed,
written and applied. What is swept goes through the store's own rules for a write.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.batch import command_id, encode_batch
from broker.checkpointer import LOG_PER_STATE, Checkpointer
from broker.config import Config
from broker.housekeeping import PULLED_MS, Housekeeping
from broker.machines import commands as c
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.shard import Shard
from broker.sweeper import Sweeper
from raftlog.memory_store import MemoryGroup
from raftlog.messages import Entry, EntryKind, Membership
from raftlog.store_errors import CorruptRecord
from raftlog.write import GroupWrite, Mark

MEMBERS = Membership(voters=(1,))
TICK_MS = 50


class Group:
    """A shard that is driven by hand."""

    def __init__(self, storage: MemoryGroup | None = None) -> None:
        self.storage = storage or MemoryGroup(MEMBERS)
        # Of Raft, the parts looked at here need no more than this.
        raft: Any = SimpleNamespace(
            applied=0, term=1, membership=MEMBERS, compactable_to=lambda: 99
        )
        machine = Machine(shard=1, shards=2, limits=Limits(), place=lambda vhost, name: 1)
        self.shard = Shard(1, raft, machine, self.storage, entry_bytes_max=1, entry_commands_max=1)
        self.seq = 0

    def entry(self, *commands: c.AnyCommand) -> int:
        """One more entry: its index."""
        index = self.storage.last_index() + 1
        data = encode_batch(index, [c.encode(command) for command in commands])
        entry = Entry(index, 1, EntryKind.NORMAL, data)
        self.write(GroupWrite(1, entries=(entry,)))
        self.shard.apply(entry)
        return index

    def write(self, write: GroupWrite) -> None:
        self.storage.check(write)
        self.storage.write(write)

    def enqueue(self, queue: int = 1, size: int = 100) -> c.Enqueue:
        self.seq += 1
        return c.Enqueue(7, self.seq, 0, (queue,), "", "", 0, None, bytes(size))

    def take(self, *ids: int) -> None:
        """A consumer of queue 1 fetches and acknowledges so many of its first messages."""
        for _ in ids:
            self.seq += 1
            self.entry(c.Fetch(7, self.seq, 0, 1))
        self.seq += 1
        self.entry(c.Settle(7, self.seq, 0, 1, int(c.Outcome.ACK), ids))

    def compact(self) -> None:
        """A checkpoint of now, and the log begins behind it."""
        index, state = self.shard.applied, self.shard.machine.snapshot()
        self.write(
            GroupWrite(
                1,
                chunks=((index, 0, state),),
                mark=Mark(index, 1, MEMBERS, 1),
                compact_to=index,
            )
        )

    def sweep(self, sweeper: Sweeper) -> int:
        """Until it rests; the number of steps."""
        steps = 0
        while sweeper.looking:
            entries, bodies, gone = sweeper.step()
            self.write(GroupWrite(1, drop_entries=entries, bodies=bodies, drop_bodies=gone))
            steps += 1
            assert steps < 10_000
        return steps

    def kept(self) -> list[int]:
        return self.storage.kept_entries(0, 1000)

    def bodies(self) -> list[int]:
        return self.storage.body_ids(0, 1000)

    def prove_bodies(self) -> None:
        """Every living message can be read, from the store and not from the shard's cache."""
        self.shard._batches.clear()
        for id in self.shard.machine.ids_between(0, (1 << 64) - 1):
            assert isinstance(self.shard.message(id), c.Enqueue)


@pytest.fixture
def group() -> Group:
    group = Group()
    group.entry(c.QueueCreate(1, 0, None), c.QueueCreate(2, 0, None))
    return group


def test_an_entry_goes_when_nothing_in_it_is_alive_and_stays_while_half_of_it_is(
    group: Group,
) -> None:
    full = group.entry(*[group.enqueue() for _ in range(4)])
    group.compact()
    sweeper = Sweeper(group.shard, entries_max=100)
    group.sweep(sweeper)
    assert group.kept() == [full]  # the queue's creation is in the checkpoint

    ids = [command_id(full, offset) for offset in range(4)]
    group.take(ids[0])
    sweeper.compare()
    group.sweep(sweeper)
    assert group.kept() == [full] and not group.bodies()

    group.take(ids[1], ids[2])
    sweeper.compare()
    group.sweep(sweeper)
    assert not group.kept() and group.bodies() == [ids[3]]
    group.prove_bodies()

    group.take(ids[3])
    sweeper.compare()
    group.sweep(sweeper)
    assert not group.kept() and not group.bodies()


def test_survivors_between_two_kept_entries_are_of_neither(group: Group) -> None:
    first = group.entry(group.enqueue(), group.enqueue())
    sparse = group.entry(group.enqueue(size=1), c.Tick(), group.enqueue(queue=2, size=1000))
    last = group.entry(group.enqueue())
    ids = [command_id(first, 0), command_id(first, 1), command_id(sparse, 0), command_id(last, 0)]
    group.seq += 1
    group.entry(c.Purge(7, group.seq, 0, 2))
    group.compact()
    sweeper = Sweeper(group.shard, entries_max=100)
    group.sweep(sweeper)
    assert group.kept() == [first, last] and group.bodies() == [ids[2]]
    sweeper.look_at_all()
    group.sweep(sweeper)
    assert group.kept() == [first, last] and group.bodies() == [ids[2]]
    group.prove_bodies()


def test_a_body_that_the_machine_cannot_know_yet_stays(group: Group) -> None:
    """It was received for a snapshot that is on its way."""
    ahead = command_id(group.shard.applied + 3, 0)
    group.write(GroupWrite(1, bodies=((5, b"dead"), (ahead, b"later"))))
    sweeper = Sweeper(group.shard, entries_max=100)
    group.sweep(sweeper)
    assert group.bodies() == [ahead]
    sweeper.compare()
    assert not sweeper.looking
    for _ in range(3):
        group.entry(c.Tick())
    sweeper.compare()
    group.sweep(sweeper)
    assert group.bodies() == []


def test_a_body_behind_the_logs_beginning_goes_when_its_message_is_gone(group: Group) -> None:
    """It came for a snapshot, and the entries came after all."""
    id = command_id(group.shard.applied + 1, 0)
    group.write(GroupWrite(1, bodies=((id, b"received"),)))
    assert command_id(group.entry(group.enqueue()), 0) == id
    sweeper = Sweeper(group.shard, entries_max=100)
    group.sweep(sweeper)
    assert group.bodies() == [id]
    group.take(id)
    sweeper.compare()
    group.sweep(sweeper)
    assert group.bodies() == [] and group.storage.first_index() == 1


def test_a_look_at_everything_waits_until_enough_has_died(group: Group) -> None:
    index = group.entry(*[group.enqueue() for _ in range(100)])
    group.compact()
    sweeper = Sweeper(group.shard, entries_max=100)
    group.sweep(sweeper)
    ids = [command_id(index, offset) for offset in range(100)]
    sweeper.compare()
    group.take(*ids[:5])
    sweeper.compare()
    assert not sweeper.looking  # 5 of 100, in traffic
    sweeper.compare()
    assert not sweeper.looking  # in quiet: still too few
    group.take(*ids[5:10])
    sweeper.compare()
    assert not sweeper.looking
    sweeper.compare()
    assert sweeper.looking  # 10 of 100, in quiet
    group.sweep(sweeper)
    group.take(*ids[10:33])
    sweeper.compare()
    assert sweeper.looking  # 23 of 90, in traffic


@given(seed=st.integers(0, 1 << 30), entries_max=st.sampled_from([1, 3, 100]))
@settings(max_examples=60, deadline=None)
def test_whatever_dies_when_the_living_can_be_read_and_in_the_end_nothing_is_left(
    seed: int, entries_max: int
) -> None:
    chance, group = random.Random(seed), Group()
    group.entry(c.QueueCreate(1, 0, None), c.QueueCreate(2, 0, None))
    sweeper = Sweeper(group.shard, entries_max=entries_max)
    for _ in range(60):
        kind = chance.randrange(6)
        if kind <= 2:
            count = chance.randrange(1, 6)
            group.entry(
                *[group.enqueue(chance.choice([1, 2]), chance.randrange(300)) for _ in range(count)]
            )
        elif kind == 3:
            ready = list(group.shard.machine.messages(1))
            group.take(*sorted(ready)[: chance.randrange(4)])
        elif kind == 4:
            group.compact()
            sweeper.notice()
        else:
            sweeper.compare()
            if chance.random() < 0.2:
                sweeper = Sweeper(group.shard, entries_max=entries_max)  # a restart
        if sweeper.looking:
            entries, bodies, gone = sweeper.step()
            group.write(GroupWrite(1, drop_entries=entries, bodies=bodies, drop_bodies=gone))
        group.prove_bodies()
    for queue in (1, 2):
        group.seq += 1
        group.entry(c.Purge(7, group.seq, 0, queue))
    group.compact()
    sweeper.notice()
    group.sweep(sweeper)
    sweeper.compare()
    group.sweep(sweeper)
    assert not group.kept() and not group.bodies()


def test_damage_is_not_copied_into_a_record_with_a_sum_of_its_own(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = group.entry(group.enqueue(size=1), group.enqueue(queue=2, size=1000))
    group.seq += 1
    group.entry(c.Purge(7, group.seq, 0, 2))
    group.compact()
    read: list[int] = []

    def verified(self: MemoryGroup, index: int) -> Entry:
        read.append(index)
        return entry(self, index)

    entry = MemoryGroup.entry
    monkeypatch.setattr(
        MemoryGroup, "entry_bytes", lambda self, index, most: entry(self, index).data[:most]
    )
    monkeypatch.setattr(MemoryGroup, "entry", verified)
    group.sweep(Sweeper(group.shard, entries_max=100))
    assert read == [index] and group.bodies() == [command_id(index, 0)]


def test_a_living_message_without_a_body_stops_the_node(group: Group) -> None:
    index = group.entry(group.enqueue())
    group.compact()
    group.write(GroupWrite(1, drop_entries=(index,)))
    group.shard._batches.clear()
    with pytest.raises(CorruptRecord, match=str(command_id(index, 0))):
        group.shard.message(command_id(index, 0))


# --- checkpoints ------------------------------------------------------------------------------


def drive(group: Group, housekeeping: Housekeeping, now_ms: int, ticks: int = 1) -> int:
    """So many ticks, with a turn after each; the time after them."""
    for _ in range(ticks):
        now_ms += TICK_MS
        housekeeping.tick(now_ms)
        if housekeeping.due:
            write = housekeeping.add_to(GroupWrite(1))
            if write is not None:
                group.write(write)
        assert not housekeeping.due
    return now_ms


def test_what_a_turn_cannot_take_does_not_keep_the_node_busy(group: Group) -> None:
    """Its write has a part of a snapshot in it, or the group has gone since the tick."""
    housekeeping = Housekeeping(config(replay_commands_max=2), {1: group.shard})
    housekeeping.tick(10_000)
    assert housekeeping.due
    housekeeping.rest()
    assert not housekeeping.due
    drive(group, housekeeping, 10_000, 3)
    assert group.storage.checkpoint is not None


def config(**limits: int) -> Config:
    return Config(shards=2, **limits)


def test_a_checkpoint_is_written_in_chunks_marked_compacted_and_restored(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.checkpointer.CHUNK_BYTES_MAX", 50)
    housekeeping = Housekeeping(config(replay_commands_max=40), {1: group.shard})
    now_ms = drive(group, housekeeping, 10_000)
    for _ in range(19):
        last = group.entry(group.enqueue())
    state = group.shard.machine.snapshot()
    assert len(state) > 200
    chunks = -(-len(state) // 50)
    now_ms = drive(group, housekeeping, now_ms)
    assert group.storage.chunks_of(last) == 1 and group.storage.checkpoint is None
    group.entry(group.enqueue())  # goes on meanwhile
    now_ms = drive(group, housekeeping, now_ms, chunks - 2)
    group.shard.pulled_ms = now_ms  # another node reads an earlier one: this one waits
    now_ms = drive(group, housekeeping, now_ms, PULLED_MS // TICK_MS - 1)
    assert group.storage.chunks_of(last) == chunks - 1 and group.storage.checkpoint is None
    now_ms = drive(group, housekeeping, now_ms)
    assert group.storage.checkpoint == Mark(last, 1, MEMBERS, chunks)
    now_ms = drive(group, housekeeping, now_ms, 30)
    assert group.storage.first_index() == last + 1

    again = Group(group.storage)
    again.shard.restore(last)
    assert again.shard.machine.snapshot() == state and again.shard.applied == last
    again.shard.apply(group.storage.entry(last + 1))
    assert again.shard.machine.state_hash() == group.shard.machine.state_hash()


def test_a_large_state_waits_for_more_log(group: Group) -> None:
    checkpointer = Checkpointer(group.shard, commands_max=1, bytes_max=1, commands_limit=10**9)
    group.entry(*[group.enqueue(size=1) for _ in range(500)])
    assert checkpointer.due
    checkpointer.begin()
    piece = checkpointer.step()
    group.write(GroupWrite(1, chunks=(piece.chunk,), mark=piece.mark))
    size = len(piece.chunk[2])
    written = 0
    while not checkpointer.due:
        written += len(group.storage.entry(group.entry(c.Tick(), group.enqueue())).data)
        assert written < (LOG_PER_STATE + 1) * size
    assert written >= LOG_PER_STATE * size


def test_a_large_state_does_not_make_a_restart_long(group: Group) -> None:
    """Small commands, as acknowledgements are, come to little log and much time."""
    checkpointer = Checkpointer(group.shard, commands_max=1, bytes_max=1, commands_limit=1000)
    group.entry(*[group.enqueue(size=1) for _ in range(5000)])
    checkpointer.begin()
    checkpointer.step()
    for number in range(999):
        assert not checkpointer.due, number
        group.entry(c.Tick())
    assert not checkpointer.due
    group.entry(c.Tick())
    assert checkpointer.due


def test_a_checkpoint_that_is_given_up_is_due_again_at_once(group: Group) -> None:
    checkpointer = Checkpointer(group.shard, commands_max=5, bytes_max=1 << 30, commands_limit=5)
    for _ in range(5):
        group.entry(c.Tick())
    checkpointer.give_up()  # before it was begun
    commands, size = group.shard.replay.commands, group.shard.replay.bytes
    checkpointer.begin()
    assert not checkpointer.due
    group.entry(c.Tick())
    checkpointer.give_up()
    assert checkpointer.due
    assert group.shard.replay.commands == commands + 1
    assert group.shard.replay.bytes > size


def test_who_receives_a_snapshot_makes_no_checkpoint_and_sweeps_nothing(group: Group) -> None:
    housekeeping = Housekeeping(config(replay_commands_max=2), {1: group.shard})
    now_ms = drive(group, housekeeping, 10_000, 3)
    group.compact()
    before = (group.kept(), group.storage.checkpoint)
    group.entry(group.enqueue(size=8 << 20))
    group.shard.receiving = "n2"
    now_ms = drive(group, housekeeping, now_ms, 50)
    assert (group.kept(), group.storage.checkpoint) == before
    group.shard.receiving = ""
    drive(group, housekeeping, now_ms, 50)
    assert group.storage.checkpoint != before[1] and group.kept() != before[0]


def test_what_came_of_a_snapshot_that_was_given_up_is_looked_at(group: Group) -> None:
    housekeeping = Housekeeping(config(), {1: group.shard})
    now_ms = drive(group, housekeeping, 10_000, 50)
    group.shard.receiving = "n2"
    now_ms = drive(group, housekeeping, now_ms, 2)
    id = command_id(group.shard.applied + 1, 0)
    group.write(GroupWrite(1, bodies=((id, b"received"),)))
    assert command_id(group.entry(group.enqueue()), 0) == id
    group.take(id)
    group.shard.receiving = ""
    drive(group, housekeeping, now_ms, 50)
    assert group.bodies() == []


def test_a_checkpoint_that_another_node_reads_is_not_replaced(group: Group) -> None:
    housekeeping = Housekeeping(config(replay_commands_max=2), {1: group.shard})
    now_ms = drive(group, housekeeping, 10_000, 3)
    mark = group.storage.checkpoint
    assert mark is not None
    group.shard.pulled_ms = now_ms
    group.entry(group.enqueue(size=8 << 20))
    now_ms = drive(group, housekeeping, now_ms, PULLED_MS // TICK_MS - 2)
    assert group.storage.checkpoint == mark
    drive(group, housekeeping, now_ms, 5)
    assert group.storage.checkpoint != mark


def test_the_log_stays_as_far_as_a_member_needs_it(group: Group) -> None:
    raft: Any = group.shard.raft
    raft.compactable_to = lambda: 2
    housekeeping = Housekeeping(config(replay_commands_max=2), {1: group.shard})
    for _ in range(4):
        group.entry(group.enqueue())
    now_ms = drive(group, housekeeping, 10_000, 50)
    assert group.storage.first_index() == 3
    raft.compactable_to = lambda: 4
    drive(group, housekeeping, now_ms, 50)
    assert group.storage.first_index() == 5
