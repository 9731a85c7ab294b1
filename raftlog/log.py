"""A node's log: the durable part in the storage, and the end of it in memory.

                    storage
    |####################################|
                    tail    +------------+-------------+
                            |  durable   |  unstable   |
                            +------------+-------------+
                            ^ tail_first ^ stable      ^ last
    applied <= committed <= last

The tail holds everything that is not durable, and of the durable part as much as
`cached_bytes_max` allows: what is committed and sent has nearly always just been appended,
and is then neither read nor decoded again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from raftlog.errors import Compacted, StorageError, Unavailable
from raftlog.messages import Entry, Snapshot
from raftlog.storage import Storage, limited

ENTRY_OVERHEAD = 64
"""What an entry in memory costs beside its data, about, in bytes."""


@dataclass(slots=True)
class Log:
    """See the picture. Invariant: tail_first + len(tail) == last + 1."""

    storage: Storage
    cached_bytes_max: int
    last: int
    stable: int
    committed: int
    applied: int
    tail_first: int
    tail: list[Entry] = field(default_factory=list)
    tail_bytes: int = 0
    snapshot: Snapshot | None = None  #: from a leader, not durable yet; the log begins there
    floor: tuple[int, int] = (0, 0)  #: (term, index) of the end of a log dropped before this one

    @classmethod
    def open(cls, storage: Storage, *, committed: int, applied: int, cached_bytes_max: int) -> Log:
        """The log as the storage has it. `committed` may lag behind `applied`."""
        last, before = storage.last_index(), storage.first_index() - 1
        applied = max(applied, before)
        committed = max(committed, applied)
        assert committed <= last, f"committed up to {committed}, but the log ends at {last}"
        log = cls(storage, cached_bytes_max, last, last, committed, applied, last + 1)
        hard_state, _ = storage.initial_state()
        log.floor = (hard_state.floor_term, hard_state.floor_index)
        return log

    # --- reading -------------------------------------------------------------------------

    def term(self, index: int) -> int:
        """The term of an entry. Raise `Compacted` or `Unavailable`."""
        if index >= self.tail_first:
            if index > self.last:
                raise Unavailable(f"entry {index} of a log up to {self.last}")
            return self.tail[index - self.tail_first].term
        if self.snapshot is not None:
            if index == self.snapshot.index:
                return self.snapshot.term
            raise Compacted(f"entry {index} lies before a snapshot at {self.snapshot.index}")
        return self.storage.term(index)

    def last_term(self) -> int:
        """The term of the last entry, 0 when there was never one."""
        return self.term(self.last)

    def has(self, index: int, term: int) -> bool:
        """Whether the entry at `index` is there and of this term."""
        try:
            return self.term(index) == term
        except StorageError:
            return False

    def first_index(self) -> int:
        """The index of the first entry that is still there, or would be."""
        if self.snapshot is not None:
            return self.snapshot.index + 1
        return self.storage.first_index()

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        """The entries of [low, high), up to `max_bytes` of data, at least one."""
        first = self.tail_first
        if low >= first:
            return limited(self.tail[low - first : high - first], max_bytes)
        if self.snapshot is not None:
            raise Compacted(f"entry {low} lies before a snapshot at {self.snapshot.index}")
        begin = self.storage.entries(low, min(high, first), max_bytes)
        if high <= first or begin[-1].index < first - 1:
            return begin
        return limited(begin + self.tail[: high - first], max_bytes)

    def unstable(self) -> list[Entry]:
        """The entries that are not durable yet."""
        return self.tail[self.stable + 1 - self.tail_first :]

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends so is at least as complete as this one (thesis §3.6.1).

        And as the one that this replica had before, if it has dropped one.
        """
        return (last_term, last_index) >= max((self.last_term(), self.last), self.floor)

    def agree_at_most(self, index: int, term: int) -> tuple[int, int]:
        """The highest index up to `index` whose term is not above `term`, and its term.

        Two logs whose terms at `index` differ cannot agree above it. Term 0 is returned
        where the log does not know it any more.
        """
        index = min(index, self.last)
        while True:
            try:
                own = self.term(index)
            except StorageError:
                return index, 0
            if own <= term:
                return index, own
            index -= 1

    # --- writing -------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Put entries behind the log, or in place of its end."""
        first = entries[0].index
        assert self.committed < first <= self.last + 1, (self.committed, first, self.last)
        if first == self.last + 1:
            self.tail.extend(entries)
            self.tail_bytes += _memory(entries)
        else:
            self._replace_end(first, entries)
        self.last = entries[-1].index

    def _replace_end(self, first: int, entries: Sequence[Entry]) -> None:
        if first <= self.tail_first:
            self.tail, self.tail_first = list(entries), first
        else:
            self.tail[first - self.tail_first :] = entries
        self.stable = min(self.stable, first - 1)
        self.tail_bytes = _memory(self.tail)

    def follow(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> bool:
        """Make the log equal to a leader's from `prev_index` on; False when it cannot.

        Only what contradicts is cut off: an old message must not shorten the log.
        """
        if not self.has(prev_index, prev_term):
            return False
        entries = self._news(entries)
        if entries:
            self.append(entries)
        return True

    def _news(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        if entries and entries[0].index == self.last + 1:
            return entries
        for count, entry in enumerate(entries):
            if not self.has(entry.index, entry.term):
                return entries[count:]
        return ()

    def commit_to(self, index: int) -> None:
        """Everything up to `index` is committed; it never goes back."""
        if index > self.committed:
            assert index <= self.last, f"commit {index} of a log up to {self.last}: entries lost"
            self.committed = index

    def restore(self, snapshot: Snapshot) -> None:
        """Replace everything by a snapshot."""
        assert snapshot.index >= self.committed
        self.snapshot = snapshot
        self.tail, self.tail_bytes, self.tail_first = [], 0, snapshot.index + 1
        self.last = self.stable = self.committed = snapshot.index

    # --- what the driver has done --------------------------------------------------------

    def stable_to(self, index: int, term: int) -> None:
        """The entry (index, term) and all before it are durable.

        Meanwhile others may have taken their place: then this says nothing.
        """
        if not self.stable < index <= self.last or index < self.tail_first:
            return
        if self.tail[index - self.tail_first].term == term:
            self.stable = index

    def snapshot_stable(self, snapshot: Snapshot) -> None:
        """The snapshot is durable and the machine restored from it."""
        if self.snapshot is snapshot:
            self.snapshot = None
        self.applied = max(self.applied, snapshot.index)

    def applied_to(self, index: int) -> None:
        """The machine has applied everything up to `index`."""
        assert self.applied <= index <= self.committed, (self.applied, index, self.committed)
        self.applied = index

    def trim(self) -> None:
        """Let go of the oldest durable entries beyond the limit."""
        size, count, durable = self.tail_bytes, 0, self.stable + 1 - self.tail_first
        while size > self.cached_bytes_max and count < durable:
            size -= len(self.tail[count].data) + ENTRY_OVERHEAD
            count += 1
        if count:
            del self.tail[:count]
            self.tail_first += count
            self.tail_bytes = size


def _memory(entries: Sequence[Entry]) -> int:
    return sum([len(entry.data) for entry in entries]) + ENTRY_OVERHEAD * len(entries)
