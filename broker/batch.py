"""The data of one log entry: many commands, and where each of them ends.

    0      1        4          8            16              16 + 4 * count
    +------+--------+----------+------------+---------------+------------------+
    | 0x01 | 0 0 0  | count u32| now_ms u64 | end u32 ...   | command ...      |
    +------+--------+----------+------------+---------------+------------------+

All numbers are little-endian; `end[i]` counts from the first command's first byte. The
leader stamps `now_ms` (Unix time in ms). With the offsets any one command can be read
without the others: a message's body is found by its id alone.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import accumulate

FORMAT = 1
OFFSET_BITS = 20
COMMANDS_MAX = 1 << OFFSET_BITS
_OFFSET_MASK = COMMANDS_MAX - 1
_HEAD = struct.Struct("<BxxxIQ")
TABLE_START = _HEAD.size
"""Where the offset table of an entry begins."""


def command_id(index: int, offset: int) -> int:
    """The id of the command at `offset` of the entry at `index`; ids grow with the log."""
    return index << OFFSET_BITS | offset


def index_of(id: int) -> int:
    """The entry that carried the command with this id."""
    return id >> OFFSET_BITS


def offset_of(id: int) -> int:
    """The place within its entry of the command with this id."""
    return id & _OFFSET_MASK


class BatchError(ValueError):
    """The bytes of an entry are not a batch of commands."""


def encode_batch(now_ms: int, commands: Sequence[bytes]) -> bytes:
    """The data of one entry. 1 to `COMMANDS_MAX` encoded commands."""
    count = len(commands)
    assert 0 < count <= COMMANDS_MAX
    ends = struct.pack(f"<{count}I", *accumulate(map(len, commands)))
    return b"".join((_HEAD.pack(FORMAT, count, now_ms), ends, *commands))


def table_bytes(head: bytes) -> int:
    """Where the commands begin, by the first `TABLE_START` bytes of an entry. `BatchError`."""
    if len(head) < TABLE_START or head[0] != FORMAT:
        raise BatchError(f"{len(head)} bytes are not the beginning of a batch of format {FORMAT}")
    count: int = _HEAD.unpack_from(head)[1]
    return TABLE_START + 4 * count


def command_ends(head: bytes) -> tuple[int, ...]:
    """The offset table, when `head` goes as far as `table_bytes` says."""
    count = (table_bytes(head) - TABLE_START) // 4
    return struct.unpack_from(f"<{count}I", head, TABLE_START)


class Batch:
    """An entry's data, opened: `now_ms`, `count` and the bytes of each command."""

    __slots__ = ("_ends", "_start", "_view", "count", "now_ms")

    def __init__(self, data: bytes) -> None:
        """Raise `BatchError` when `data` is not a batch."""
        if len(data) < _HEAD.size or data[0] != FORMAT:
            raise BatchError(f"an entry of {len(data)} bytes is not a batch of format {FORMAT}")
        _, self.count, self.now_ms = _HEAD.unpack_from(data)
        self._start = _HEAD.size + 4 * self.count
        if len(data) < self._start:
            raise BatchError(f"a batch of {self.count} commands in {len(data)} bytes")
        self._ends = struct.unpack_from(f"<{self.count}I", data, _HEAD.size)
        if self._start + (self._ends[-1] if self.count else 0) != len(data):
            raise BatchError("a batch's offsets and its length disagree")
        self._view = memoryview(data)

    def command(self, offset: int) -> memoryview:
        """The bytes of one command, not copied."""
        begin = self._ends[offset - 1] if offset else 0
        return self._view[self._start + begin : self._start + self._ends[offset]]
