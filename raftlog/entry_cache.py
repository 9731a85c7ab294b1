"""The entries that were written or read last, of all groups together, in bounded memory."""

from __future__ import annotations

from collections import deque

from raftlog.messages import Entry

ENTRY_OVERHEAD_BYTES = 200
"""About what an entry costs besides its data: the structs and the places that hold it."""


class EntryCache:
    """First in, first out. `bytes_max` bounds the data and the overhead of what is held.

    An entry that was replaced or forgotten is counted until its turn to leave comes: until
    then it is still in memory.
    """

    __slots__ = ("_bytes", "_groups", "_order", "bytes_max")

    def __init__(self, bytes_max: int) -> None:
        assert bytes_max >= 0
        self.bytes_max = bytes_max
        self._bytes = 0
        self._groups: dict[int, dict[int, Entry]] = {}
        self._order: deque[tuple[int, Entry]] = deque()

    @property
    def bytes(self) -> int:
        """What is held now."""
        return self._bytes

    def of_group(self, group: int) -> dict[int, Entry]:
        """The group's entries by index, for reading: the same dict for ever."""
        return self._groups.setdefault(group, {})

    def add(self, group: int, entry: Entry) -> None:
        """Hold an entry, in place of one of the same index. One that never fits is not held."""
        entries = self.of_group(group)
        size = len(entry.data) + ENTRY_OVERHEAD_BYTES
        if size > self.bytes_max:
            entries.pop(entry.index, None)
            return
        entries[entry.index] = entry
        self._order.append((group, entry))
        self._bytes += size
        while self._bytes > self.bytes_max:
            old_group, old = self._order.popleft()
            self._bytes -= len(old.data) + ENTRY_OVERHEAD_BYTES
            held = self._groups[old_group]
            if held.get(old.index) is old:
                del held[old.index]

    def forget_from(self, group: int, first: int, last: int) -> None:
        """Entries [first, last] of the group are no longer true."""
        entries = self.of_group(group)
        if last - first < len(entries):
            for index in range(first, last + 1):
                entries.pop(index, None)
        else:
            for index in [index for index in entries if index >= first]:
                del entries[index]

    def forget(self, group: int, index: int) -> None:
        """This entry's record is gone."""
        self.of_group(group).pop(index, None)
