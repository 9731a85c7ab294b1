"""The durable part of all of a node's groups, in one LMDB environment: one commit per turn.

    database    key                              value (docs/storage.md has the bytes)
    (main)      "turn"                           number of the last transaction: lmdb_meta.py
    meta        "format", "identity"             of the directory, written once
    meta        "x/" + name                      small values of the broker's own
    state       group u16                        GroupState: see there
    log         group u16|incarnation u32|index  one entry
    messages, checkpoint                         reserved, not made yet

    write([GroupWrite, ...]) -> every group's entries and state in ONE transaction, which is
                                one fsync; only when it returns may what depends on it leave

Durability is LMDB's default: a commit returns after the data, then the meta page, are on the
disk. The first failed write or commit ends the store: after a failed fsync nobody knows what
the disk holds. A record that is not what was written is reported, never skipped.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, TypeVar

import lmdb
import msgspec

from raftlog.entry_cache import EntryCache
from raftlog.errors import Compacted, SnapshotUnavailable, Unavailable
from raftlog.lmdb_meta import TURN_KEY, MetaDamaged, check_meta_pages, sealed_turn
from raftlog.messages import Entry, HardState, Membership, Snapshot
from raftlog.record import (
    FORMAT,
    GROUP_MAX,
    NO_CHAIN,
    OpenRecord,
    RecordDamaged,
    RecordTooNew,
    decode_record,
    encode_record,
    entry_key,
    group_key,
    seal,
    unseal,
)
from raftlog.storage import limited
from raftlog.store_errors import (
    KEEP,
    CorruptRecord,
    StoreCorrupt,
    StoreFailed,
    StoreLocked,
    StoreOfOtherCluster,
    StoreOfOtherNode,
    StoreTooNew,
    StoreUnusable,
)
from raftlog.write import Extent, GroupWrite, Mark, check_write

FIRST_INCARNATION = 1
TAIL_ENTRIES = 64
"""How many of each group's last entries are verified, link by link, when the store opens."""
TAIL_BYTES = 8 << 20
"""... but no more than this much data of each group."""

_DATA_FILE = "data.mdb"
_LOCK_FILE = "node.lock"
_DATABASES_MAX = 8
_FORMAT_KEY = b"format"
_IDENTITY_KEY = b"identity"
_VALUE_PREFIX = b"x/"

_T = TypeVar("_T")


class Identity(msgspec.Struct, frozen=True, array_like=True):
    """Whose directory it is."""

    cluster: str
    node: str


class GroupState(msgspec.Struct, frozen=True, array_like=True):
    """All of a group that is not an entry; written with every write to the group.

        before                       last
    ......|###########################|
          chain                       chain

    `before` is where the log begins: the last entry that is gone, (0, 0) in a new group.
    `last` says where it ends, so that a lost suffix is noticed.
    """

    incarnation: int
    before_index: int
    before_term: int
    before_chain: int
    last_index: int
    last_chain: int
    hard_state: HardState
    membership: Membership


class _Plan(NamedTuple):
    """A `GroupWrite`, checked and encoded: what is left to do is to put."""

    storage: GroupStorage
    state: GroupState
    entries: Sequence[Entry]
    records: list[tuple[bytes, bytes]]
    gone: range  #: indices whose records are to be deleted


_encode = msgspec.msgpack.encode
_decode_state = msgspec.msgpack.Decoder(GroupState).decode
_decode_identity = msgspec.msgpack.Decoder(Identity).decode


FULL_BELOW_BYTES = 1 << 20
"""With less room than this a failed write is taken for one that found the disk full."""


def _free_bytes(path: Path) -> int:
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize


class LmdbStore:
    """One node's directory, open. Not to be used from two threads at a time."""

    __slots__ = (
        "_env",
        "_failure",
        "_groups",
        "_lock",
        "_log",
        "_meta",
        "_reads",
        "_state",
        "_tail",
        "path",
    )

    def __init__(self, path: Path, env: lmdb.Environment, lock: int, cache_bytes: int) -> None:
        """Use `open`."""
        self.path = path
        self._env = env
        self._lock: int | None = lock
        self._meta: lmdb._Database | None = None
        self._state: lmdb._Database | None = None
        self._log: lmdb._Database | None = None
        self._groups: dict[int, GroupStorage] = {}
        self._failure: str | None = None
        # A reader of old entries must not push the recent ones out: it has its own quarter.
        self._tail = EntryCache(cache_bytes - cache_bytes // 4)
        self._reads = EntryCache(cache_bytes // 4)

    @classmethod
    def open(
        cls,
        path: Path | str,
        identity: Identity,
        groups: Mapping[int, Iterable[int]],
        map_bytes: int,
        cache_bytes: int,
    ) -> LmdbStore:
        """Open the directory, or make it, and add the groups that it does not have.

        groups: the voters of each group. What the directory knows of a group wins.
        map_bytes: how large the store may grow. cache_bytes: memory for recent entries.

        Raise `StoreUnusable`, `StoreLocked`, `StoreOfOtherCluster`, `StoreOfOtherNode`,
        `StoreTooNew` or `StoreCorrupt` before anything is changed, and `StoreFailed` when the
        disk refuses.
        """
        path = Path(path)
        absent = [place for place in (path, *path.parents) if not place.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = _take_lock(path)
        except OSError as error:
            raise StoreUnusable(
                f"{path} cannot be used: {error}; choose another directory"
            ) from error
        env: lmdb.Environment | None = None
        try:
            _check_meta_pages(path / _DATA_FILE)
            env = _open_environment(path, map_bytes)
            store = cls(path, env, lock, cache_bytes)
            store._read_all(identity)
            if store._meta is None:
                # LMDB syncs its file, but not the directory entries that lead to it.
                for place in (path, *(place.parent for place in absent)):
                    _sync_directory(place)
            store._add(identity, groups)
        except BaseException:
            if env is not None:
                env.close()
            os.close(lock)
            raise
        return store

    def close(self) -> None:
        """Give the directory back. Closing twice is allowed."""
        if self._lock is not None:
            self._env.close()
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> LmdbStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # --- reading -------------------------------------------------------------------------

    @property
    def groups(self) -> list[int]:
        """The groups this directory has, in order."""
        return sorted(self._groups)

    def group(self, group: int) -> GroupStorage:
        """The `Storage` of one group. KeyError when the directory does not have it."""
        return self._groups[group]

    def entry(self, group: int, index: int) -> Entry:
        """One entry. Raise `Compacted`, `Unavailable` or `CorruptRecord`."""
        return self._groups[group].entry(index)

    def read_meta(self, name: str) -> bytes | None:
        """The value written by `write_meta`, or None. Raise `CorruptRecord`."""
        key = _VALUE_PREFIX + name.encode()
        return self._reading(lambda txn: self._unsealed(txn, self._meta, key, None))

    def verify(self, group: int) -> int:
        """Read the whole log of a group and prove every link. Returns the number of entries.

        Raise `CorruptRecord` for the first entry that is not what it should be.
        """
        storage = self._groups[group]
        return self._reading(lambda txn: self._verify_chain(txn, storage))

    # --- writing -------------------------------------------------------------------------

    def write(self, batch: Sequence[GroupWrite]) -> None:
        """Make all of it durable in one transaction; at most one write for each group.

        Raise `StoreFailed` when it is not durable: the store refuses all writes from then on,
        and the node must stop.
        """
        self._refuse_after_failure()
        if not batch:
            return
        assert len({write.group for write in batch}) == len(batch), "a group twice in one turn"
        plans = [self._groups[write.group].plan(write) for write in batch]
        self._commit(lambda txn: self._put(txn, plans))
        for plan in plans:
            self._remember(plan)

    def write_meta(self, name: str, value: bytes) -> None:
        """Make a small value of the broker's own durable. Raise `StoreFailed`."""
        self._refuse_after_failure()
        key = _VALUE_PREFIX + name.encode()
        self._commit(lambda txn: self._put_sealed(txn, self._meta, key, value))

    def _put(self, txn: lmdb.Transaction[bytes], plans: list[_Plan]) -> None:
        for storage, state, _, records, gone in plans:
            for index in gone:
                txn.delete(entry_key(storage.group, state.incarnation, index), db=self._log)
            for key, record in records:
                txn.put(key, record, db=self._log)
            self._put_sealed(txn, self._state, group_key(storage.group), _encode(state))

    def _put_sealed(
        self, txn: lmdb.Transaction[bytes], db: lmdb._Database | None, key: bytes, data: bytes
    ) -> None:
        txn.put(key, seal(key, data), db=db)

    def _remember(self, plan: _Plan) -> None:
        """The plan is durable: what is in memory follows."""
        storage, entries = plan.storage, plan.entries
        if entries and entries[0].index <= storage.state.last_index:
            first, last = entries[0].index, storage.state.last_index
            self._tail.forget_from(storage.group, first, last)
            self._reads.forget_from(storage.group, first, last)
        storage.state = plan.state
        for entry in entries:
            self._tail.add(storage.group, entry)

    def _commit(self, fill: Callable[[lmdb.Transaction[bytes]], None]) -> None:
        try:
            with self._env.begin(write=True) as txn:
                fill(txn)
                txn.put(TURN_KEY, sealed_turn(txn.id()))
        except (lmdb.Error, OSError) as error:
            self._failure = self._explained(error)
            raise StoreFailed(self._failure) from error

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise StoreFailed(f"an earlier write failed: {self._failure}")

    def _explained(self, error: Exception) -> str:
        if isinstance(error, lmdb.MapFullError):
            size = self._env.info()["map_size"]
            return (
                f"the store in {self.path} has used all of its {size} bytes: raise "
                "store_bytes_max and start this node again. What was acknowledged is safe."
            )
        # A write that found room for its first part alone is an I/O error to LMDB.
        if isinstance(error, lmdb.DiskError) or _free_bytes(self.path) < FULL_BELOW_BYTES:
            return (
                f"the disk under {self.path} is full: make room and start this node again. "
                f"What was acknowledged is safe. ({error})"
            )
        return f"writing to {self.path} failed, look at the disk: {error}"

    # --- opening -------------------------------------------------------------------------

    def _read_all(self, identity: Identity) -> None:
        """Verify and load what is there; changes nothing."""

        self._meta = self._existing(b"meta")
        if self._meta is None:
            return  # new, or its maker died before the first commit
        self._reading(lambda txn: self._check_owner(txn, identity))
        self._state = self._existing(b"state")
        self._log = self._existing(b"log")
        if self._state is None or self._log is None:
            raise StoreCorrupt(f"{self.path} lacks a database. {KEEP}")
        self._reading(self._load_groups)

    def _existing(self, name: bytes) -> lmdb._Database | None:
        """The database, or None. LMDB opens it in a transaction that writes nothing."""
        try:
            return self._env.open_db(name, create=False)
        except lmdb.NotFoundError:
            return None
        except (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.IncompatibleError) as error:
            raise StoreCorrupt(f"{self.path} is damaged: {error}. {KEEP}") from error
        except lmdb.Error as error:
            raise StoreFailed(f"{self.path} cannot be opened: {error}") from error

    def _check_owner(self, txn: lmdb.Transaction[bytes], identity: Identity) -> None:
        format = self._unsealed(txn, self._meta, _FORMAT_KEY, None)
        if format != bytes([FORMAT]):
            if format is None:
                raise CorruptRecord(self.path, None, None, "the format is missing")
            raise StoreTooNew(
                f"{self.path} has format {int.from_bytes(format, 'big')}, and this version knows "
                f"{FORMAT}: run the version that wrote it, or a later one"
            )
        stored = self._unsealed(txn, self._meta, _IDENTITY_KEY, None)
        if stored is None:
            raise CorruptRecord(self.path, None, None, "the identity is missing")
        owner = _decode_identity(stored)
        if owner.cluster != identity.cluster:
            raise StoreOfOtherCluster(
                f"{self.path} belongs to cluster {owner.cluster!r}, and this node to "
                f"{identity.cluster!r}: set the right cluster_name, or another data_dir"
            )
        if owner.node != identity.node:
            raise StoreOfOtherNode(
                f"{self.path} belongs to node {owner.node!r}, and this is {identity.node!r}: "
                "set the right node_id, or another data_dir"
            )

    def _load_groups(self, txn: lmdb.Transaction[bytes]) -> None:
        for key in txn.cursor(db=self._state).iternext(values=False):
            self._load_group(txn, bytes(key))

    def _load_group(self, txn: lmdb.Transaction[bytes], key: bytes) -> None:
        if len(key) != 2:
            raise CorruptRecord(self.path, None, None, f"{key!r} is not the key of a group")
        group = int.from_bytes(key, "big")
        data = self._unsealed(txn, self._state, key, group)
        assert data is not None
        storage = self._groups[group] = GroupStorage(self, group, _decode_state(data))
        for entry in reversed(self._verified_tail(txn, storage)):
            self._tail.add(group, entry)

    def _verified_tail(self, txn: lmdb.Transaction[bytes], storage: GroupStorage) -> list[Entry]:
        """The group's last entries, newest first, each proved to follow the one before."""
        group, state = storage.group, storage.state
        self._refuse_strangers(txn, storage)
        entries: list[Entry] = []
        chain, index, size = state.last_chain, state.last_index, 0
        while index > state.before_index and len(entries) < TAIL_ENTRIES and size <= TAIL_BYTES:
            record = self.read_record(txn, storage, index)
            if record.chain != chain:
                raise CorruptRecord(self.path, group, index, "it is of another history")
            entries.append(record.entry)
            size += len(record.entry.data)
            chain, index = record.previous, index - 1
        if index == state.before_index and chain != state.before_chain:
            raise CorruptRecord(
                self.path, group, index + 1, "it does not follow the log's beginning"
            )
        return entries

    def _refuse_strangers(self, txn: lmdb.Transaction[bytes], storage: GroupStorage) -> None:
        """No entry of the group's stands behind what its state calls the last one."""
        group, state = storage.group, storage.state
        cursor = txn.cursor(db=self._log)
        if cursor.set_range(entry_key(group, state.incarnation, state.last_index + 1)):
            key = bytes(cursor.key())
            if key[:6] == entry_key(group, state.incarnation, 0)[:6]:
                index = int.from_bytes(key[6:], "big")
                raise CorruptRecord(
                    self.path, group, index, f"the log should end at {state.last_index}"
                )

    def _add(self, identity: Identity, groups: Mapping[int, Iterable[int]]) -> None:
        """One transaction makes what is missing; none is begun when nothing is."""
        assert all(0 <= group <= GROUP_MAX for group in groups)
        new = {
            group: GroupState(
                incarnation=FIRST_INCARNATION,
                before_index=0,
                before_term=0,
                before_chain=NO_CHAIN,
                last_index=0,
                last_chain=NO_CHAIN,
                hard_state=HardState(),
                membership=Membership(voters=tuple(sorted(voters))),
            )
            for group, voters in groups.items()
            if group not in self._groups
        }
        if self._meta is not None and not new:
            return

        def put(txn: lmdb.Transaction[bytes]) -> None:
            if self._meta is None:
                self._meta = self._env.open_db(b"meta", txn=txn)
                self._state = self._env.open_db(b"state", txn=txn)
                self._log = self._env.open_db(b"log", txn=txn)
                self._put_sealed(txn, self._meta, _FORMAT_KEY, bytes([FORMAT]))
                self._put_sealed(txn, self._meta, _IDENTITY_KEY, _encode(identity))
            for group, state in new.items():
                self._put_sealed(txn, self._state, group_key(group), _encode(state))

        self._commit(put)
        for group, state in new.items():
            self._groups[group] = GroupStorage(self, group, state)

    # --- records -------------------------------------------------------------------------

    def _reading(self, read: Callable[[lmdb.Transaction[bytes]], _T]) -> _T:
        """Run `read` in a transaction of its own, and translate LMDB's own complaints."""
        try:
            with self._env.begin() as txn:
                return read(txn)
        except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
            raise StoreCorrupt(f"{self.path} is damaged: {error}. {KEEP}") from error
        except lmdb.Error as error:
            raise StoreFailed(f"reading from {self.path} failed: {error}") from error

    def _unsealed(
        self,
        txn: lmdb.Transaction[bytes],
        db: lmdb._Database | None,
        key: bytes,
        group: int | None,
    ) -> bytes | None:
        record = txn.get(key, db=db)
        if record is None:
            return None
        try:
            return unseal(key, record)
        except RecordDamaged as error:
            raise CorruptRecord(self.path, group, None, f"{key!r}: {error}") from error
        except RecordTooNew as error:
            raise self._too_new(key, error) from error

    def read_record(
        self, txn: lmdb.Transaction[bytes], storage: GroupStorage, index: int
    ) -> OpenRecord:
        """For `GroupStorage`: a record that must be there, verified."""
        key = entry_key(storage.group, storage.state.incarnation, index)
        record = txn.get(key, db=self._log)
        if record is None:
            raise CorruptRecord(self.path, storage.group, index, "it is missing")
        try:
            return decode_record(key, index, record)
        except RecordDamaged as error:
            raise CorruptRecord(self.path, storage.group, index, str(error)) from error
        except RecordTooNew as error:
            raise self._too_new(key, error) from error

    def _too_new(self, key: bytes, error: RecordTooNew) -> StoreTooNew:
        return StoreTooNew(
            f"a record in {self.path} (key {key.hex()}) has {error}, and this version knows "
            f"{FORMAT}: run the version that wrote it, or a later one"
        )

    def read_records(
        self, storage: GroupStorage, indices: Iterable[int], bytes_max: int
    ) -> list[OpenRecord]:
        """For `GroupStorage`: the records of `indices` until `bytes_max` is passed."""

        def read(txn: lmdb.Transaction[bytes]) -> list[OpenRecord]:
            records, size = [], 0
            for index in indices:
                record = self.read_record(txn, storage, index)
                records.append(record)
                size += len(record.entry.data)
                if size > bytes_max:
                    break
            return records

        return self._reading(read)

    def _verify_chain(self, txn: lmdb.Transaction[bytes], storage: GroupStorage) -> int:
        state, chain = storage.state, storage.state.before_chain
        self._refuse_strangers(txn, storage)
        for index in range(state.before_index + 1, state.last_index + 1):
            record = self.read_record(txn, storage, index)
            if record.previous != chain:
                raise CorruptRecord(
                    self.path, storage.group, index, f"it does not follow entry {index - 1}"
                )
            chain = record.chain
        if chain != state.last_chain:
            raise CorruptRecord(
                self.path, storage.group, state.last_index, "it is of another history"
            )
        return state.last_index - state.before_index


class GroupStorage:
    """One group's part of the store: the `Storage` that its Raft core reads."""

    __slots__ = ("_read", "_store", "_tail", "group", "state")

    def __init__(self, store: LmdbStore, group: int, state: GroupState) -> None:
        """Use `LmdbStore.group`."""
        self.group = group
        self.state = state  #: what is durable now; `LmdbStore.write` replaces it
        self._store = store
        self._tail = store._tail.of_group(group)
        self._read = store._reads.of_group(group)

    @property
    def incarnation(self) -> int:
        """Which of the groups that have had this number."""
        return self.state.incarnation

    # --- Storage -------------------------------------------------------------------------

    def initial_state(self) -> tuple[HardState, Membership]:
        return self.state.hard_state, self.state.membership

    def entries(self, low: int, high: int, max_bytes: int) -> list[Entry]:
        self._check(low)
        if low >= high or high > self.state.last_index + 1:
            raise Unavailable(f"entries [{low}, {high}) of a log up to {self.state.last_index}")
        found: list[Entry] = []
        size = 0
        tail, read = self._tail, self._read
        for index in range(low, high):
            entry = tail.get(index) or read.get(index)
            if entry is None:
                found += self._from_disk(index, high, max_bytes - size)
                break
            size += len(entry.data)
            if size > max_bytes and found:
                break
            found.append(entry)
        return limited(found, max_bytes)

    def term(self, index: int) -> int:
        state = self.state
        if index == state.before_index:
            return state.before_term
        return self.entry(index).term

    def first_index(self) -> int:
        return self.state.before_index + 1

    def last_index(self) -> int:
        return self.state.last_index

    def snapshot(self) -> Snapshot:
        raise SnapshotUnavailable(f"group {self.group} has made no snapshot")

    # --- beyond Storage ------------------------------------------------------------------

    def entry(self, index: int) -> Entry:
        """One entry, from memory where it can be. Raise as `LmdbStore.entry` does."""
        entry = self._tail.get(index) or self._read.get(index)
        if entry is not None:
            return entry
        self._check(index)
        (record,) = self._store.read_records(self, (index,), 0)
        self._store._reads.add(self.group, record.entry)
        return record.entry

    def entry_bytes(self, index: int) -> bytes:
        return self.entry(index).data

    def kept_entries(self, low: int, limit: int) -> list[int]:
        return []

    def body(self, id: int) -> bytes | None:
        return None

    def body_ids(self, low: int, limit: int) -> list[int]:
        return []

    @property
    def checkpoint(self) -> Mark | None:
        return None

    def chunk(self, number: int, index: int | None = None) -> bytes:
        raise Unavailable(f"chunk {number} of the checkpoint at {index}")

    def chunks_of(self, index: int) -> int:
        return 0

    @property
    def log_bytes(self) -> int:
        return 0

    def plan(self, write: GroupWrite) -> _Plan:
        """For `LmdbStore`: check and encode a write. The caller's mistakes are bugs."""
        state = self.state
        last, chain = state.last_index, state.last_chain
        hard_state = write.hard_state or state.hard_state
        check_write(write, Extent(state.before_index, last, state.hard_state, 0))
        assert write[3:] == GroupWrite(0)[3:], "not stored yet"
        records: list[tuple[bytes, bytes]] = []
        gone = range(0)
        if write.entries:
            first = write.entries[0].index
            if first <= last:
                chain = self._chain_before(first)
            for index, entry in enumerate(write.entries, first):
                key = entry_key(self.group, state.incarnation, index)
                record, chain = encode_record(key, entry, chain)
                records.append((key, record))
            gone = range(index + 1, last + 1)
            last = index
        return _Plan(
            self,
            GroupState(
                state.incarnation,
                state.before_index,
                state.before_term,
                state.before_chain,
                last,
                chain,
                hard_state,
                state.membership,
            ),
            write.entries,
            records,
            gone,
        )

    def _chain_before(self, index: int) -> int:
        if index - 1 == self.state.before_index:
            return self.state.before_chain
        (record,) = self._store.read_records(self, (index - 1,), 0)
        return record.chain

    def _from_disk(self, low: int, high: int, bytes_max: int) -> list[Entry]:
        return [
            record.entry for record in self._store.read_records(self, range(low, high), bytes_max)
        ]

    def _check(self, index: int) -> None:
        """`index` is that of an entry of this log, or the typed error."""
        if index <= self.state.before_index:
            raise Compacted(f"entry {index} of a log that begins at {self.first_index()}")
        if index > self.state.last_index:
            raise Unavailable(f"entry {index} of a log up to {self.state.last_index}")


def _check_meta_pages(file: Path) -> None:
    """Before LMDB chooses between the two, and can no longer be asked about the other."""
    try:
        with file.open("rb") as opened:
            check_meta_pages(lambda offset, count: os.pread(opened.fileno(), count, offset))
    except FileNotFoundError:
        pass  # a new directory
    except OSError as error:
        raise StoreFailed(f"{file} cannot be read: {error}") from error
    except MetaDamaged as error:
        raise StoreCorrupt(f"the meta pages of {file} are damaged: {error}. {KEEP}") from error


def _open_environment(path: Path, map_bytes: int) -> lmdb.Environment:
    """With LMDB's default durability: never nosync, nometasync, map_async or writemap."""
    try:
        return lmdb.open(
            str(path),
            map_size=map_bytes,
            max_dbs=_DATABASES_MAX,
            max_spare_txns=1,
            sync=True,
            metasync=True,
            map_async=False,
            writemap=False,
        )
    except lmdb.VersionMismatchError as error:
        raise StoreTooNew(f"{path} was written by another version of LMDB: {error}") from error
    except (lmdb.InvalidError, lmdb.CorruptedError) as error:
        raise StoreCorrupt(f"{path / _DATA_FILE} is no LMDB file: {error}. {KEEP}") from error
    except (lmdb.Error, OSError) as error:
        raise StoreFailed(f"{path} cannot be opened: {error}") from error


def _take_lock(path: Path) -> int:
    """LMDB itself lets many processes in; two nodes in one directory would be a disaster."""
    lock = os.open(path / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreLocked(
            f"another process works in {path}: stop it first, or set another data_dir"
        ) from error
    except OSError:
        os.close(lock)
        raise
    return lock


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
