"""The twin in memory of the store on disk: the same answers, and writes that are atomic.

It stands for the disk in simulations: what was written is there after a crash, and nothing
else. `tests/raftlog/test_store_model.py` drives both alike and compares all that they answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence

from raftlog.errors import Compacted, SnapshotUnavailable, Unavailable
from raftlog.messages import Entry, HardState, Membership, Snapshot
from raftlog.record import HEAD_BYTES, LISTED_PARTS_MAX, SEAL_BYTES, parts_in
from raftlog.storage import limited
from raftlog.write import Extent, GroupWrite, Mark, check_write

FIRST_INCARNATION = 1


class MemoryGroup:
    """One group: a `GroupStorage`, with `write` for its store."""

    __slots__ = (
        "_before",
        "_bodies",
        "_body_ids",
        "_checkpoint",
        "_chunks",
        "_entries",
        "_hard_state",
        "_kept",
        "_last",
        "_log_bytes",
        "_membership",
    )

    incarnation = FIRST_INCARNATION

    def __init__(self, membership: Membership | Iterable[int] = ()) -> None:
        """An empty log; `membership` (or its voters) is the one the group begins with."""
        if not isinstance(membership, Membership):
            membership = Membership(voters=tuple(sorted(membership)))
        self._hard_state = HardState()
        self._membership = membership
        self._before = (0, 0)  # index and term of what stands before the first entry
        self._last = 0
        self._entries: dict[int, Entry] = {}  # the log's and the kept ones
        self._kept: list[int] = []  # sorted indices, none behind _before
        self._log_bytes = 0
        self._bodies: dict[int, bytes] = {}
        self._body_ids: list[int] = []  # sorted keys of _bodies
        self._checkpoint: Mark | None = None
        self._chunks: dict[int, dict[int, bytes]] = {}  # by index, by number

    # --- Storage -------------------------------------------------------------------------

    def initial_state(self) -> tuple[HardState, Membership]:
        return self._hard_state, self._membership

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        self._check(low)
        if low >= high or high > self._last + 1:
            raise Unavailable(f"entries [{low}, {high}) of a log up to {self._last}")
        found, size = [], 0
        for index in range(low, high):
            entry = self._entries[index]
            found.append(entry)
            size += len(entry.data)
            if size > max_bytes:
                break
        return limited(found, max_bytes)

    def term(self, index: int) -> int:
        if index == self._before[0]:
            return self._before[1]
        self._check(index)
        return self._entries[index].term

    def first_index(self) -> int:
        return self._before[0] + 1

    def last_index(self) -> int:
        return self._last

    def snapshot(self) -> Snapshot:
        mark = self._checkpoint
        if mark is not None:
            return Snapshot(mark.index, mark.term, mark.membership)
        if not self._membership.voters:
            raise SnapshotUnavailable("this node does not know the group's members yet")
        return Snapshot(0, 0, self._membership)

    # --- GroupStorage --------------------------------------------------------------------

    def entry(self, index: int) -> Entry:
        entry = self._entries.get(index)
        if entry is None:
            self._check(index)
            raise Compacted(f"entry {index}")
        return entry

    def entry_bytes(self, index: int, bytes_max: int) -> bytes:
        return self.entry(index).data[:bytes_max]

    def kept_entries(self, low: int, limit: int) -> list[int]:
        sizes = self._entries
        return _listed(self._kept, low, limit, lambda index: HEAD_BYTES + len(sizes[index].data))

    def body(self, id: int) -> bytes | None:
        return self._bodies.get(id)

    def body_ids(self, low: int, limit: int) -> list[int]:
        bodies = self._bodies
        return _listed(self._body_ids, low, limit, lambda key: SEAL_BYTES + len(bodies[key]))

    @property
    def checkpoint(self) -> Mark | None:
        return self._checkpoint

    def chunk(self, number: int, index: int | None = None) -> bytes:
        whole = self._checkpoint.index if self._checkpoint is not None else 0
        if index is None:
            index = whole
        if index < whole:
            raise Compacted(f"the checkpoint at {index}, where one at {whole} is whole")
        try:
            return self._chunks[index][number]
        except KeyError:
            raise Unavailable(f"chunk {number} of the checkpoint at {index}") from None

    def chunks_of(self, index: int) -> int:
        chunks, count = self._chunks.get(index, {}), 0
        while count in chunks:
            count += 1
        return count

    @property
    def log_bytes(self) -> int:
        return self._log_bytes

    def _check(self, index: int) -> None:
        if index <= self._before[0]:
            raise Compacted(f"entry {index} of a log that begins at {self.first_index()}")
        if index > self._last:
            raise Unavailable(f"entry {index} of a log up to {self._last}")

    # --- writing -------------------------------------------------------------------------

    def check(self, write: GroupWrite) -> None:
        """Assert that `write` follows the rules; nothing is changed."""
        checkpoint = self._checkpoint.index if self._checkpoint is not None else 0
        check_write(write, Extent(self._before[0], self._last, self._hard_state, checkpoint))
        mark = write.mark or write.install
        if mark is not None:
            there = {number for index, number, _ in write.chunks if index == mark.index}
            there.update(self._chunks.get(mark.index, ()))
            assert there.issuperset(range(mark.chunks)), f"not all chunks of {mark} are there"
        if write.mark is not None:
            terms = {entry.index: entry.term for entry in write.entries}
            index = write.mark.index
            term = terms.get(index)
            assert write.mark.term == (self.term(index) if term is None else term), write.mark

    def write(self, write: GroupWrite) -> None:
        """Carry out what `check` has found right."""
        if write.hard_state is not None:
            self._hard_state = write.hard_state
        if write.install is not None:
            self._install(write.install)
        if write.entries:
            self._append(write.entries)
        for index, number, data in write.chunks:
            self._chunks.setdefault(index, {})[number] = data
        if write.mark is not None:
            self._mark(write.mark)
        if write.compact_to is not None:
            self._compact(write.compact_to)
        for index in write.drop_entries:
            if self._entries.pop(index, None) is not None:
                del self._kept[bisect_left(self._kept, index)]
        for id, data in write.bodies:
            if id not in self._bodies:
                self._body_ids.insert(bisect_right(self._body_ids, id), id)
            self._bodies[id] = data
        for id in write.drop_bodies:
            if self._bodies.pop(id, None) is not None:
                del self._body_ids[bisect_left(self._body_ids, id)]

    def _install(self, mark: Mark) -> None:
        self._before, self._last = (mark.index, mark.term), mark.index
        self._entries, self._kept, self._log_bytes = {}, [], 0
        if mark.index:
            self._mark(mark)
        else:
            self._membership = mark.membership

    def _append(self, entries: Sequence[Entry]) -> None:
        for index in range(entries[0].index, self._last + 1):
            self._log_bytes -= len(self._entries.pop(index).data)
        for entry in entries:
            self._entries[entry.index] = entry
            self._log_bytes += len(entry.data)
        self._last = entries[-1].index

    def _mark(self, mark: Mark) -> None:
        self._checkpoint, self._membership = mark, mark.membership
        for index in [index for index in self._chunks if index < mark.index]:
            del self._chunks[index]

    def _compact(self, index: int) -> None:
        gone = range(self._before[0] + 1, index + 1)
        self._before = index, self.term(index)
        self._kept.extend(gone)
        self._log_bytes -= sum([len(self._entries[old].data) for old in gone])

    # --- being dropped -------------------------------------------------------------------

    def voted(self) -> HardState:
        """What is remembered of this group when it is dropped."""
        return self._hard_state.after_drop(self.term(self._last), self._last)

    def remember(self, hard_state: HardState) -> None:
        """The group was here before, and this is what was remembered."""
        self._hard_state = hard_state


class MemoryStore:
    """All groups of a node: a `GroupStore`. A write is atomic."""

    def __init__(
        self, groups: Mapping[int, Membership | Iterable[int]], disk_id: bytes = bytes(16)
    ) -> None:
        """groups: the membership, or the voters, of each group."""
        self.disk_id = disk_id
        self.storages = {group: MemoryGroup(voters) for group, voters in groups.items()}
        self._dropped: dict[int, HardState] = {}

    def write(self, batch: Sequence[GroupWrite]) -> None:
        assert len({write.group for write in batch}) == len(batch), "a group twice in one turn"
        for write in batch:
            self.storages[write.group].check(write)
        for write in batch:
            self.storages[write.group].write(write)

    def add_group(self, group: int, membership: Membership) -> MemoryGroup:
        assert group not in self.storages, group
        self.storages[group] = new = MemoryGroup(membership)
        if group in self._dropped:
            new.remember(self._dropped.pop(group))
        return new

    def drop_group(self, group: int) -> None:
        self._dropped[group] = self.storages.pop(group).voted()


def _listed(numbers: list[int], low: int, limit: int, bytes_of: Callable[[int], int]) -> list[int]:
    """The first of sorted numbers from `low` on, as the disk lists them."""
    found: list[int] = []
    parts = 0
    for at in range(bisect_left(numbers, low), len(numbers)):
        if len(found) >= limit or parts >= LISTED_PARTS_MAX:
            break
        found.append(numbers[at])
        parts += parts_in(bytes_of(numbers[at]))
    return found
