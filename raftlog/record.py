"""The bytes of the store's keys and records, each with its checksum.

    key of an entry     group u16 | edition u32 | index u64
    key of a body       group u16 | incarnation u32 | message id u64
    key of a chunk      group u16 | checkpoint's index u64 | number u32
    record of an entry  format u8 = 1 | kind u8 | term u64 | previous u32 | chain u32 | data ...
    any other record    format u8 = 1 | crc u32 | data ...

    a long record       key: PART_BYTES of it | key + u16 1: PART_BYTES | ... | the rest

All numbers are big-endian, so that keys sort by group and index. `chain` is the CRC-32 of
the record's key and of all of the record but `chain` itself; `previous` is the `chain` of the
entry before. So a record proves its own bytes and its place, and its neighbours prove that
none is missing and none is from another history. docs/storage.md has the whole picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple
from zlib import crc32

from raftlog.messages import Entry

DIRECTORY_FORMAT = 2
"""Of the directory as a whole. 1 knew neither checkpoints nor parts of records."""

FORMAT = 1
"""Of each record."""

PART_BYTES = 4080
"""What fits into one page of LMDB's by itself, behind the page's head of 16 bytes.

LMDB gives a longer value several pages in a row, and looks for such a row through all of its
free pages: once a large backlog has been deleted here and there, for a tenth of a second and
longer each time (docs/decisions/record-parts.md). Any one free page is found at once.
"""

LISTED_PARTS_MAX = 4096
"""Who asks for the next kept entries or bodies gets no more when these have so many parts.

They are asked for in order to be deleted, and a transaction deletes about 1000 parts in 1 ms.
"""

NO_CHAIN = 0
"""What the first entry of a log names as its predecessor's `chain`."""

GROUP_MAX = (1 << 16) - 1

_KEY = Struct(">HIQ")
_GROUP_KEY = Struct(">H")
_CHUNK_KEY = Struct(">HQI")
_PART = Struct(">H")
_HEAD = Struct(">BBQI")
_CRC = Struct(">I")
_TURN = Struct(">Q")
_SEAL = Struct(">BI")
HEAD_BYTES = _HEAD.size + _CRC.size
SEAL_BYTES = _SEAL.size

entry_key = _KEY.pack
"""(group, edition, index) -> the key of an entry in `log`."""

body_key = _KEY.pack
"""(group, incarnation, message id) -> the key of a body in `messages`."""

chunk_key = _CHUNK_KEY.pack
"""(group, checkpoint's index, number) -> the key of a chunk in `checkpoint`."""

part_number = _PART.pack
"""(number, from 1) -> what is behind a record's key in that of its part."""

EDITION_BYTES = 6
"""Of the key of an entry, up to and including the edition."""

KEY_BYTES = _KEY.size
"""Of an entry, a body and a chunk alike; the key of a further part is longer."""

group_key = _GROUP_KEY.pack
"""(group) -> the key of a group in `state`."""


turn_bytes = _TURN.pack
"""(number of a transaction) -> the data of the record "turn" in the main database."""


class RecordDamaged(ValueError):
    """These bytes are not what was written under this key; the text says what is wrong."""


class RecordTooNew(ValueError):
    """The record is whole, but of a later format."""


class OpenRecord(NamedTuple):
    """An entry as it was on disk."""

    entry: Entry
    previous: int
    chain: int


def encode_record(key: bytes, entry: Entry, previous: int) -> tuple[bytes, int]:
    """The record of an entry that follows the one with chain `previous`, and its own chain."""
    head = _HEAD.pack(FORMAT, entry.kind, entry.term, previous)
    chain = crc32(entry.data, crc32(key + head))
    return b"".join((head, _CRC.pack(chain), entry.data)), chain


def decode_record(key: bytes, index: int, record: bytes) -> OpenRecord:
    """Verify and open a record. Raise `RecordDamaged` or `RecordTooNew`."""
    if len(record) < HEAD_BYTES:
        raise RecordDamaged(f"it has {len(record)} bytes, where {HEAD_BYTES} are the least")
    format, kind, term, previous = _HEAD.unpack_from(record)
    (chain,) = _CRC.unpack_from(record, _HEAD.size)
    data = record[HEAD_BYTES:]
    actual = crc32(data, crc32(key + record[: _HEAD.size]))
    if actual != chain:
        raise RecordDamaged(f"its checksum is {actual:08x} and should be {chain:08x}")
    if format != FORMAT:
        raise RecordTooNew(f"format {format}")
    return OpenRecord(Entry(index, term, kind, data), previous, chain)


def open_key(key: bytes) -> tuple[int, int, int]:
    """(group, edition or incarnation, index or message id) of the key of an entry or a body."""
    group, edition, index = _KEY.unpack_from(key)
    return group, edition, index


def open_chunk_key(key: bytes) -> tuple[int, int, int]:
    """(group, checkpoint's index, number) of the key of a chunk."""
    group, index, number = _CHUNK_KEY.unpack_from(key)
    return group, index, number


def parts_of(key: bytes, record: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values under which a record is stored."""
    yield key, record[:PART_BYTES]
    for number, at in enumerate(range(PART_BYTES, len(record), PART_BYTES), 1):
        yield key + part_number(number), record[at : at + PART_BYTES]


def parts_in(record_bytes: int) -> int:
    """How many parts a record of so many bytes has."""
    return max(1, -(-record_bytes // PART_BYTES))


def named_chains(record: bytes) -> tuple[int, int] | None:
    """(previous, chain) as a perhaps damaged record of an entry has them; None in its ruins."""
    if len(record) < HEAD_BYTES:
        return None
    return _HEAD.unpack_from(record)[3], _CRC.unpack_from(record, _HEAD.size)[0]


def named_crc(record: bytes) -> int | None:
    """The sum that a perhaps damaged sealed record has; None in its ruins."""
    return None if len(record) < _SEAL.size else int(_SEAL.unpack_from(record)[1])


def seal(key: bytes, data: bytes) -> bytes:
    """The record of a small value under `key`."""
    return _SEAL.pack(FORMAT, crc32(data, crc32(key, FORMAT))) + data


def unseal(key: bytes, record: bytes) -> bytes:
    """Verify a small value. Raise `RecordDamaged` or `RecordTooNew`."""
    if len(record) < _SEAL.size:
        raise RecordDamaged(f"it has {len(record)} bytes, where {_SEAL.size} are the least")
    format, crc = _SEAL.unpack_from(record)
    data = record[_SEAL.size :]
    actual = crc32(data, crc32(key, format))
    if actual != crc:
        raise RecordDamaged(f"its checksum is {actual:08x} and should be {crc:08x}")
    if format != FORMAT:
        raise RecordTooNew(f"format {format}")
    return data
