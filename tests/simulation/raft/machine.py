"""The simplest machine that gives a wrong fold away: a running sum over all entries."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

import msgspec

from raftlog.messages import Entry


@dataclass(slots=True)
class Machine:
    """`sum` depends on every entry up to `index`, and on their order."""

    index: int = 0
    sum: int = 0

    def apply(self, entry: Entry) -> None:
        """The next entry."""
        assert entry.index == self.index + 1, f"entry {entry.index} after {self.index}"
        self.index = entry.index
        self.sum = fold(self.sum, entry)

    def dump(self) -> bytes:
        """All of it, for a snapshot."""
        return msgspec.msgpack.encode((self.index, self.sum))

    @classmethod
    def load(cls, data: bytes) -> Machine:
        """The machine of a snapshot."""
        index, total = msgspec.msgpack.decode(data, type=tuple[int, int])
        return cls(index, total)


def fold(total: int, entry: Entry) -> int:
    """The sum with one entry more."""
    return crc32(entry.data, total ^ (entry.term << 1 | entry.kind))
