"""Where the durable part of a group's log is read from, and such a place in memory.

        snapshot           entries
    ...........|##############################|
               ^ first_index - 1              ^ last_index

    Storage         what the Raft core reads
    GroupStorage    ... and what the broker reads beyond it: kept entries, bodies, checkpoint
    GroupStore      all groups of a node, and how they are written (write.py)

The core only reads; the driver writes what a Ready tells it to, in one transaction. A
`GroupStorage` is on disk (lmdb_store.py) or in memory (memory_store.py), with equal semantics;
`MemoryStorage` is enough for the core alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from raftlog.errors import Compacted, SnapshotOutOfDate, Unavailable
from raftlog.messages import Entry, HardState, Membership, Snapshot
from raftlog.write import GroupWrite, Mark


class Storage(Protocol):
    """What the core reads. Answers describe durable state only."""

    def initial_state(self) -> tuple[HardState, Membership]:
        """The hard state, and the membership in force at `Config.applied`."""
        ...

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """The entries of [low, high), up to `max_bytes` of data, at least one.

        Raise `Compacted` or `Unavailable` when an end is outside the log.
        """
        ...

    def term(self, index: int) -> int:
        """The term of an entry of [first_index - 1, last_index], or the same errors."""
        ...

    def first_index(self) -> int:
        """The index of the first entry that is still there, or would be."""
        ...

    def last_index(self) -> int:
        """The index of the last entry; `first_index() - 1` when there is none."""
        ...

    def snapshot(self) -> Snapshot:
        """The newest snapshot. Raise `SnapshotUnavailable` when there is none just now."""
        ...


class GroupStorage(Storage, Protocol):
    """One group's durable part, as the broker needs it.

               before    checkpoint            last
    k..k.k.kk.k|############|####################|      k: an entry whose record is kept

    Whatever is read from a disk may raise `CorruptRecord` (store_errors.py).
    """

    @property
    def incarnation(self) -> int:
        """Which of the groups that have had this number."""
        ...

    def entry(self, index: int) -> Entry:
        """One entry, also one before the log's beginning whose record is kept.

        Raise `Compacted` when its record is gone, `Unavailable` behind the last one.
        """
        ...

    def entry_bytes(self, index: int, bytes_max: int) -> bytes:
        """The first so many bytes of such an entry's data, without verifying it: cheap.

        Only what is needed of it is read from the disk. The same errors.
        """
        ...

    def kept_entries(self, low: int, limit: int) -> list[int]:
        """Indices of kept records, from `low` to the log's beginning, ascending, so many.

        Fewer when they are long (LISTED_PARTS_MAX), at least one if there is one.
        """
        ...

    def body(self, id: int) -> bytes | None:
        """The body stored for a message id, None when there is none."""
        ...

    def body_ids(self, low: int, limit: int) -> list[int]:
        """Message ids whose bodies are stored, from `low` on, ascending, so many, or fewer."""
        ...

    @property
    def checkpoint(self) -> Mark | None:
        """The newest whole checkpoint: where a restart begins."""
        ...

    def chunk(self, number: int, index: int | None = None) -> bytes:
        """A chunk of the whole checkpoint, or of one under way at `index`.

        Raise `Unavailable` when there is none of this number, `Compacted` when that
        checkpoint is past.
        """
        ...

    def chunks_of(self, index: int) -> int:
        """How many chunks of the checkpoint at `index` are there, from 0 on without a gap."""
        ...

    @property
    def log_bytes(self) -> int:
        """Bytes of data of the entries behind the log's beginning."""
        ...


class GroupStore(Protocol):
    """All groups of a node."""

    @property
    def disk_id(self) -> bytes:
        """16 random bytes, made with the directory: a lost and a new disk never have the same."""
        ...

    @property
    def storages(self) -> Mapping[int, GroupStorage]:
        """Every group there is, by number."""
        ...

    def write(self, batch: Sequence[GroupWrite]) -> None:
        """Make all of it durable in one transaction; at most one write for each group."""
        ...

    def add_group(self, group: int, membership: Membership) -> GroupStorage:
        """A new, empty group; without members it joins one that exists.

        What it has voted in an earlier life on this disk is remembered.
        """
        ...

    def drop_group(self, group: int) -> None:
        """The group is no longer kept here. Its term and vote are remembered."""
        ...


class MemoryStorage:
    """A `Storage` in memory, with what its driver needs to write it."""

    def __init__(self, membership: Membership | Iterable[int] = ()) -> None:
        """An empty log; `membership` (or its voters) is the one a static group begins with.

        Without any, the node joins a group that exists: its leader sends what is needed.
        """
        if not isinstance(membership, Membership):
            membership = Membership(voters=tuple(sorted(membership)))
        self._hard_state = HardState()
        self._membership = membership
        self._snapshot = Snapshot(index=0, term=0, membership=membership)
        self._before = (0, 0)  # index and term of what stands before the first entry
        self._entries: list[Entry] = []

    # --- Storage -------------------------------------------------------------------------

    def initial_state(self) -> tuple[HardState, Membership]:
        return self._hard_state, self._membership

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        before = self._before[0]
        if low <= before:
            raise Compacted(f"entry {low} of a log that begins at {before + 1}")
        if high > self.last_index() + 1 or low >= high:
            raise Unavailable(f"entries [{low}, {high}) of a log up to {self.last_index()}")
        return limited(self._entries[low - before - 1 : high - before - 1], max_bytes)

    def term(self, index: int) -> int:
        before, term = self._before
        if index < before:
            raise Compacted(f"entry {index} of a log that begins at {before + 1}")
        if index == before:
            return term
        if index > self.last_index():
            raise Unavailable(f"entry {index} of a log up to {self.last_index()}")
        return self._entries[index - before - 1].term

    def first_index(self) -> int:
        return self._before[0] + 1

    def last_index(self) -> int:
        return self._before[0] + len(self._entries)

    def snapshot(self) -> Snapshot:
        return self._snapshot

    # --- for the driver ------------------------------------------------------------------

    def set_hard_state(self, hard_state: HardState) -> None:
        """Replace the hard state."""
        self._hard_state = hard_state

    def set_membership(self, membership: Membership) -> None:
        """Replace the membership a restart begins with: that of the driver's `applied`."""
        self._membership = membership

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries; what was at and behind the first one's index is gone."""
        if not entries:
            return
        first, before = entries[0].index, self._before[0]
        assert before < first <= self.last_index() + 1, (before, first, self.last_index())
        del self._entries[first - before - 1 :]
        self._entries.extend(entries)

    def create_snapshot(self, index: int, membership: Membership, data: bytes) -> Snapshot:
        """Make a snapshot at an applied index. The log stays; see `compact`.

        Raise `SnapshotOutOfDate` when there is one of this index or a later one.
        """
        if index <= self._snapshot.index:
            raise SnapshotOutOfDate(f"{index}, where {self._snapshot.index} exists")
        self._snapshot = Snapshot(
            index=index, term=self.term(index), membership=membership, data=data
        )
        return self._snapshot

    def compact(self, index: int) -> None:
        """Forget the entries up to and including `index`, which a snapshot must cover."""
        assert index <= self._snapshot.index, (index, self._snapshot.index)
        before = self._before[0]
        if index <= before:
            raise Compacted(f"entry {index} of a log that begins at {before + 1}")
        self._before, self._entries = (index, self.term(index)), self._entries[index - before :]

    def apply_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the whole log by a snapshot that came from a leader.

        A node that joins may get one of index 0, which only says who founded the group.
        """
        if snapshot.index <= self._snapshot.index and self._membership.voters:
            raise SnapshotOutOfDate(f"{snapshot.index}, where {self._snapshot.index} exists")
        self._snapshot, self._membership = snapshot, snapshot.membership
        self._before, self._entries = (snapshot.index, snapshot.term), []


def limited(entries: list[Entry], max_bytes: int) -> list[Entry]:
    """The longest beginning with at most `max_bytes` of data, at least one entry."""
    size = 0
    for count, entry in enumerate(entries):
        size += len(entry.data)
        if size > max_bytes and count:
            return entries[:count]
    return entries
