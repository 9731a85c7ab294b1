"""The ready messages of one priority, in the order in which they came.

    ids       . . . . 7 9 12 15        packed, 8 bytes each; what lies before head is gone
                      ^ head
    returned  3 5                      a heap: ids that were out and came back

The next message is the lower of the two: an id is its place in the order, so a message that
comes back takes up its old place, and never has to be moved there.
"""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush

_COMPACT_MIN = 1024  #: ids before head that are worth a move of the rest


def _no_ids() -> array[int]:
    return array("Q")


@dataclass(slots=True)
class Lane:
    ids: array[int] = field(default_factory=_no_ids)
    """Ascending: a new message is appended, and its id is above all that came before."""
    head: int = 0
    returned: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids) - self.head + len(self.returned)

    def __iter__(self) -> Iterator[int]:
        yield from self.returned
        for at in range(self.head, len(self.ids)):
            yield self.ids[at]

    def put_back(self, id: int) -> None:
        heappush(self.returned, id)

    def take(self) -> int:
        """The first message; there must be one."""
        returned, ids, head = self.returned, self.ids, self.head
        if returned and (head == len(ids) or returned[0] < ids[head]):
            return heappop(returned)
        id = ids[head]
        head += 1
        if head == len(ids) or (head >= _COMPACT_MIN and head * 2 >= len(ids)):
            del ids[:head]  # moves no more ids than were taken since the last time
            head = 0
        self.head = head
        return id

    def holds_new(self, id: int) -> bool:
        """Is this message here and was never out? (Who came back is in the queue's books.)"""
        at = bisect_left(self.ids, id, self.head)
        return at < len(self.ids) and self.ids[at] == id

    def new_between(self, low: int, high: int) -> array[int]:
        """Those of [low, high] that were never out, ascending: a copy of a slice."""
        first = bisect_left(self.ids, low, self.head)
        return self.ids[first : bisect_right(self.ids, high, first)]

    def count_new_between(self, low: int, high: int) -> int:
        """How many `new_between` would give."""
        first = bisect_left(self.ids, low, self.head)
        return bisect_right(self.ids, high, first) - first

    def packed(self) -> bytes:
        """The ids from head on, 8 bytes each, little-endian."""
        ids = self.ids[self.head :]
        if sys.byteorder == "big":
            ids.byteswap()
        return ids.tobytes()


def lane_from(packed: bytes, returned: list[int]) -> Lane:
    """`returned` in ascending order, which makes it a heap."""
    ids = _no_ids()
    ids.frombytes(packed)
    if sys.byteorder == "big":
        ids.byteswap()
    return Lane(ids, 0, returned)
