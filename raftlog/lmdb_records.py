"""The databases of a store, and reading and writing records in them, part by part.

    meta         "format", "identity", "disk", "x/" + name      sealed
    state        group                                          sealed GroupState
    log          group | edition | index                        entries
    messages     group | incarnation | message id               sealed bodies
    checkpoint   group | checkpoint's index | number            sealed chunks

Everything that is read is verified; what is not what was written is a `CorruptRecord`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import lmdb

from raftlog.group_state import GroupState, Identity, decode_identity, decode_state
from raftlog.record import (
    DIRECTORY_FORMAT,
    EDITION_BYTES,
    FORMAT,
    GROUP_MAX,
    HEAD_BYTES,
    KEY_BYTES,
    LISTED_PARTS_MAX,
    PART_BYTES,
    OpenRecord,
    RecordDamaged,
    RecordTooNew,
    body_key,
    chunk_key,
    decode_record,
    entry_key,
    group_key,
    open_chunk_key,
    open_key,
    part_number,
    parts_of,
    seal,
    unseal,
)
from raftlog.store_errors import KEEP, CorruptRecord, Place, StoreCorrupt, StoreFailed, StoreTooNew

DATABASES = ("meta", "state", "log", "messages", "checkpoint")
FIRST_FORMAT_DATABASES = ("meta", "state", "log")

FORMAT_KEY = b"format"
IDENTITY_KEY = b"identity"
DISK_KEY = b"disk"
VALUE_PREFIX = b"x/"

Txn: TypeAlias = "lmdb.Transaction[bytes]"


class Records:
    """The open databases of one directory."""

    __slots__ = ("checkpoint", "log", "messages", "meta", "path", "state")

    def __init__(self, path: Path) -> None:
        """None of them is open yet."""
        self.path = path
        self.meta: lmdb._Database | None = None
        self.state: lmdb._Database | None = None
        self.log: lmdb._Database | None = None
        self.messages: lmdb._Database | None = None
        self.checkpoint: lmdb._Database | None = None

    # --- the databases -------------------------------------------------------------------

    def open_existing(self, env: lmdb.Environment) -> None:
        """Open what there is, in transactions that write nothing."""
        for name in DATABASES:
            try:
                setattr(self, name, env.open_db(name.encode(), create=False))
            except lmdb.NotFoundError:
                pass
            except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.IncompatibleError) as error:
                raise StoreCorrupt(f"{self.path} is damaged: {error}. {KEEP}") from error
            except lmdb.Error as error:
                raise StoreFailed(f"{self.path} cannot be opened: {error}") from error

    def create(self, env: lmdb.Environment, txn: Txn) -> None:
        """Make what is missing."""
        for name in DATABASES:
            if getattr(self, name) is None:
                setattr(self, name, env.open_db(name.encode(), txn=txn))

    def format(self, txn: Txn) -> int:
        """Of the directory. Raise `StoreTooNew`; `StoreCorrupt` when a database is missing."""
        data = self.meta_value(txn, FORMAT_KEY)
        if data is None:
            raise CorruptRecord(self.path, of_node(FORMAT_KEY), "it is missing")
        format = int.from_bytes(data, "big")
        if not 1 <= format <= DIRECTORY_FORMAT:
            raise StoreTooNew(
                f"{self.path} has format {format}, and this version knows {DIRECTORY_FORMAT}: "
                "run the version that wrote it, or a later one"
            )
        for name in DATABASES if format > 1 else FIRST_FORMAT_DATABASES:
            if getattr(self, name) is None:
                raise StoreCorrupt(f"{self.path} lacks the database {name}. {KEEP}")
        return format

    def identity(self, txn: Txn) -> Identity:
        """Whose directory it is."""
        stored = self.meta_value(txn, IDENTITY_KEY)
        if stored is None:
            raise CorruptRecord(self.path, of_node(IDENTITY_KEY), "it is missing")
        return decode_identity(stored)

    # --- reading -------------------------------------------------------------------------

    def meta_value(self, txn: Txn, key: bytes) -> bytes | None:
        """A record of the node, or None."""
        return self._unsealed(txn, self.meta, key, of_node(key))

    def state_keys(self, txn: Txn) -> list[bytes]:
        """Of all groups, dropped ones too."""
        return [bytes(key) for key in txn.cursor(db=self.state).iternext(values=False)]

    def group_state(self, txn: Txn, key: bytes) -> GroupState:
        """The state of the group with this key."""
        if len(key) != 2:
            raise CorruptRecord(
                self.path, Place("state", name=key.hex()), "it is not the key of a group"
            )
        data = self._unsealed(txn, self.state, key, Place("state", int.from_bytes(key, "big")))
        assert data is not None
        return decode_state(data)

    def stateless(self, txn: Txn) -> Iterator[CorruptRecord]:
        """What is to be said of groups that have records, and no state."""
        known = {key[:2] for key in self.state_keys(txn)}
        for db in (self.log, self.messages, self.checkpoint):
            if db is None:
                continue
            with txn.cursor(db=db) as cursor:
                more = cursor.first()
                while more:
                    key = bytes(cursor.key()[:2])
                    group = int.from_bytes(key, "big")
                    if key not in known:
                        known.add(key)
                        wrong = "it is missing, and the group has records"
                        yield CorruptRecord(self.path, Place("state", group), wrong)
                    more = group < GROUP_MAX and cursor.set_range(group_key(group + 1))

    def entry(self, txn: Txn, group: int, edition: int, index: int) -> OpenRecord | None:
        """An entry, or None."""
        key = entry_key(group, edition, index)
        record = joined(txn, self.log, key)
        if record is None:
            return None
        place = Place("log", group, index)
        try:
            return decode_record(key, index, record)
        except RecordDamaged as error:
            raise CorruptRecord(self.path, place, str(error)) from error
        except RecordTooNew as error:
            raise self._too_new(place, error) from error

    def entry_of_log(self, txn: Txn, group: int, edition: int, index: int) -> OpenRecord:
        """An entry that must be there."""
        record = self.entry(txn, group, edition, index)
        if record is None:
            raise CorruptRecord(self.path, Place("log", group, index), "it is missing")
        return record

    def entry_data(
        self, txn: Txn, group: int, edition: int, index: int, bytes_max: int
    ) -> bytes | None:
        """The beginning of an entry's data, not verified."""
        end = HEAD_BYTES + bytes_max
        record = joined(txn, self.log, entry_key(group, edition, index), end)
        return None if record is None else record[HEAD_BYTES:end]

    def entry_indices(
        self, txn: Txn, group: int, edition: int, low: int, high: int, limit: int
    ) -> list[int]:
        """Of records in [low, high], ascending, so many; fewer when they are long."""
        return self._numbers(txn, self.log, group, edition, low, high, limit)

    def body(self, txn: Txn, group: int, incarnation: int, id: int) -> bytes | None:
        """A body, or None."""
        place = Place("messages", group, id)
        return self._unsealed(txn, self.messages, body_key(group, incarnation, id), place)

    def body_ids(self, txn: Txn, group: int, incarnation: int, low: int, limit: int) -> list[int]:
        """Of bodies from `low` on, ascending, so many; fewer when they are long."""
        high = (1 << 64) - 1
        return self._numbers(txn, self.messages, group, incarnation, low, high, limit)

    def chunk(self, txn: Txn, group: int, index: int, number: int) -> bytes | None:
        """A chunk of the checkpoint at `index`, or None."""
        place = Place("checkpoint", group, number, index)
        return self._unsealed(txn, self.checkpoint, chunk_key(group, index, number), place)

    def chunk_numbers(self, txn: Txn, group: int, index: int) -> Iterator[int]:
        """Of the chunks of the checkpoint at `index`, ascending."""
        for found, number in self.chunks_from(txn, group, index):
            if found != index:
                return
            yield number

    def chunks_from(self, txn: Txn, group: int, index: int) -> Iterator[tuple[int, int]]:
        """(checkpoint's index, number) of all chunks from the checkpoint at `index` on."""
        if self.checkpoint is None:
            return
        cursor, number = txn.cursor(db=self.checkpoint), 0
        while cursor.set_range(chunk_key(group, index, number)):
            of_group, index, number = open_chunk_key(cursor.key())
            if of_group != group:
                return
            yield index, number
            number += 1

    def log_sizes(self, txn: Txn, state: GroupState, group: int) -> list[int]:
        """Bytes of data of each entry behind the beginning; that none is missing is checked."""
        sizes: list[int] = []
        edition, expected = state.edition, state.before_index + 1
        prefix = entry_key(group, edition, 0)[:EDITION_BYTES]
        with txn.cursor(db=self.log) as cursor:
            if not cursor.set_range(entry_key(group, edition, expected)):
                return self._sized(sizes, state, group)
            for key, value in cursor.iternext():
                if not key.startswith(prefix):
                    break
                if len(key) != KEY_BYTES:
                    if sizes:
                        sizes[-1] += len(value)
                    continue
                index = int.from_bytes(key[EDITION_BYTES:], "big")
                if index > state.last_index:
                    wrong = f"the log should end at {state.last_index}"
                    raise CorruptRecord(self.path, Place("log", group, index), wrong)
                if index != expected:
                    break
                sizes.append(len(value) - HEAD_BYTES)
                expected += 1
        return self._sized(sizes, state, group)

    def _sized(self, sizes: list[int], state: GroupState, group: int) -> list[int]:
        missing = state.before_index + 1 + len(sizes)
        if missing <= state.last_index:
            raise CorruptRecord(self.path, Place("log", group, missing), "it is missing")
        return sizes

    def _numbers(
        self,
        txn: Txn,
        db: lmdb._Database | None,
        group: int,
        middle: int,
        low: int,
        high: int,
        limit: int,
    ) -> list[int]:
        found: list[int] = []
        if db is None or low > high:
            return found
        parts = 0
        with txn.cursor(db=db) as cursor:
            more = cursor.set_range(entry_key(group, middle, low))
            while more:
                key = cursor.key()
                of_group, of_middle, number = open_key(key)
                if (of_group, of_middle) != (group, middle) or number > high:
                    break
                if len(found) >= limit or parts >= LISTED_PARTS_MAX:
                    break
                if len(key) == KEY_BYTES:
                    found.append(number)
                    parts += 1
                    more = cursor.next()
                    continue
                # A long record: its parts are passed over, for each would be read from the disk.
                more = cursor.set_range(entry_key(group, middle, number + 1))
                if more:
                    parts += _parts_before(cursor)
                    more = cursor.next()
        return found

    def _unsealed(
        self, txn: Txn, db: lmdb._Database | None, key: bytes, place: Place
    ) -> bytes | None:
        record = None if db is None else joined(txn, db, key)
        if record is None:
            return None
        try:
            return unseal(key, record)
        except RecordDamaged as error:
            raise CorruptRecord(self.path, place, str(error)) from error
        except RecordTooNew as error:
            raise self._too_new(place, error) from error

    def _too_new(self, place: Place, error: RecordTooNew) -> StoreTooNew:
        return StoreTooNew(
            f"{place} in {self.path} has {error}, and this version knows {FORMAT}: run the "
            "version that wrote it, or a later one"
        )

    # --- writing -------------------------------------------------------------------------

    def put_meta(self, txn: Txn, key: bytes, data: bytes) -> None:
        """A record of the node."""
        txn.put(key, seal(key, data), db=self.meta)

    def put_state(self, txn: Txn, group: int, data: bytes) -> None:
        """A group's state, encoded."""
        key = group_key(group)
        txn.put(key, seal(key, data), db=self.state)


def _parts_before(cursor: lmdb.Cursor[bytes]) -> int:
    """How many parts follow the first one of the record before this place; goes to its last."""
    cursor.prev()
    key = cursor.key()
    return int.from_bytes(key[KEY_BYTES:], "big")


def joined(
    txn: Txn, db: lmdb._Database | None, key: bytes, bytes_max: int | None = None
) -> bytes | None:
    """All parts of a record, as far as they follow one another; None when there is none.

    bytes_max: so many of its bytes are enough.
    """
    part = txn.get(key, db=db)
    if part is None or len(part) != PART_BYTES or (bytes_max or len(part) + 1) <= len(part):
        return part
    parts = [part]
    with txn.cursor(db=db) as cursor:
        cursor.set_key(key)
        while len(part) == PART_BYTES and cursor.next():
            if cursor.key() != key + part_number(len(parts)):
                break  # the record ends here, or its sum will tell
            part = cursor.value()
            parts.append(part)
            if bytes_max is not None and len(parts) * PART_BYTES >= bytes_max:
                break
    return b"".join(parts)


def put_record(txn: Txn, db: lmdb._Database | None, key: bytes, record: bytes) -> None:
    """Put a record, in place of one with the same key, in as many parts as it needs."""
    if len(record) <= PART_BYTES:
        if txn.put(key, record, db=db, overwrite=False):
            return
    else:
        with txn.cursor(db=db) as cursor:
            consumed, added = cursor.putmulti(list(parts_of(key, record)), overwrite=False)
        if consumed == added:
            return
    delete_record(txn, db, key)
    put_record(txn, db, key, record)


def delete_record(txn: Txn, db: lmdb._Database | None, key: bytes) -> None:
    """Delete all parts of a record; nothing when it is not there."""
    number = 0
    place = key
    while txn.delete(place, db=db):
        number += 1
        place = key + part_number(number)


def of_node(key: bytes) -> Place:
    """Where a record of the node is."""
    return Place("meta", name=key.decode(errors="replace"))
