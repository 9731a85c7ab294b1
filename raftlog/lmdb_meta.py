"""Whether the newest of an LMDB file's two meta pages is still what was written.

    page 0, page 1    @16 magic u32 | version u32 | ... | @40 page size u32 | ...
                      @128 root of the main database u64 | ... | @144 turn u64
    the page at root  ... "turn" | the sealed record of the same turn | ...

Each commit overwrites the older of the two meta pages with the number of its transaction, its
turn, which is even on page 0 and odd on page 1; LMDB believes the higher one. So one damaged
bit could make it go back to the transaction before, and it would say nothing: acknowledged
entries and votes would be gone. But each of our transactions also writes its turn into the main
database, whose only page the meta page names, and LMDB leaves the pages of its last two
transactions alone. So each meta page can be held against the page that it names.

One picture is made by LMDB itself: when it cannot write a meta page, it puts that page's old turn
back, but not its old root, and the commit fails. That is just what a damaged turn looks like, so
it is believed only of the transaction of which the store has noted that its commit failed.

Numbers are in the machine's own byte order, as LMDB writes them.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, calcsize

from raftlog.record import seal, turn_bytes

TURN_KEY = b"turn"
"""The key, in the main database, of the record that each transaction writes."""

MAGIC_AND_VERSION = (0xBEEFC0DE, 1)
"""Of LMDB 0.9's data format, the one this module knows."""

META_BYTES = 152

_MAGIC_VERSION = Struct("=II")
_PAGE_BYTES = Struct("=I")
_NUMBER = Struct("=Q")
_MAGIC_AT, _PAGE_BYTES_AT, _ROOT_AT, _TURN_AT = 16, 40, 128, 144
_NO_ROOT = (1 << 64) - 1


class MetaDamaged(ValueError):
    """The meta pages contradict each other or what they name; the text says how."""


def sealed_turn(turn: int) -> bytes:
    """The record that the transaction of this number writes under `TURN_KEY`."""
    return seal(TURN_KEY, turn_bytes(turn))


def check_meta_pages(read: Callable[[int, int], bytes], failed_turn: int = 0) -> bool:
    """Raise `MetaDamaged` when a file's meta pages are not both what was written.

    Return whether the older one is what the failed commit of `failed_turn` has left of it: LMDB
    will not use it, and the next commit must overwrite it.

    read: (offset, count) -> that many bytes of the file, fewer at its end. What is no LMDB file
    of this format at all is left for LMDB to refuse.
    """
    first = read(0, META_BYTES)
    if len(first) < META_BYTES or not _is_known(first) or calcsize("P") != 8:
        return False
    (page_bytes,) = _PAGE_BYTES.unpack_from(first, _PAGE_BYTES_AT)
    second = read(page_bytes, META_BYTES)
    if len(second) < META_BYTES or not _is_known(second):
        raise MetaDamaged(f"there is no second one after {page_bytes} bytes")
    even, odd = _turn_of(first), _turn_of(second)
    if even == odd == 0:
        return False  # nothing has been committed yet
    if even % 2 or not odd % 2 or abs(even - odd) != 1:
        raise MetaDamaged(f"their turns are {even} and {odd}, which do not follow one another")
    put_back = False
    for meta, turn in ((first, even), (second, odd)):
        (root,) = _NUMBER.unpack_from(meta, _ROOT_AT)
        if turn == 0:
            whole = root == _NO_ROOT
        else:
            page = _page(read, root, page_bytes)
            whole = TURN_KEY + sealed_turn(turn) in page
            if not whole and turn == failed_turn - 2 and max(even, odd) == failed_turn - 1:
                whole = put_back = TURN_KEY + sealed_turn(failed_turn) in page
        if not whole:
            raise MetaDamaged(f"that of turn {turn} names page {root}, which is not of that turn")
    return put_back


def _is_known(meta: bytes) -> bool:
    return _MAGIC_VERSION.unpack_from(meta, _MAGIC_AT) == MAGIC_AND_VERSION


def _turn_of(meta: bytes) -> int:
    (turn,) = _NUMBER.unpack_from(meta, _TURN_AT)
    return int(turn)


def _page(read: Callable[[int, int], bytes], number: int, page_bytes: int) -> bytes:
    offset = number * page_bytes
    # A damaged number may lie far beyond what a file offset can be.
    return read(offset, page_bytes) if offset < 1 << 62 else b""
