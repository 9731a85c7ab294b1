"""The durable part of all of a node's groups, in one LMDB environment: one commit per turn.

    (main)       "turn"                                         lmdb_meta.py
    meta         "format", "identity", "disk", "x/" + name      of the node
    state        group                                          group_state.py
    log          group | edition | index                        entries, kept ones too
    messages     group | incarnation | message id               bodies without an entry
    checkpoint   group | checkpoint's index | number            the machines' states

    write([GroupWrite, ...]) -> all of it in ONE transaction, which is one fsync; only when it
                                returns may what depends on it leave

docs/storage.md has the bytes. Durability is LMDB's default: a commit returns after the data,
then the meta page, are on the disk. The first failed write or commit ends the store: after a
failed fsync nobody knows what the disk holds. A record that is not what was written is
reported, never skipped.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import lmdb
import msgspec

from raftlog.entry_cache import EntryCache
from raftlog.group_state import GroupState, Identity, dropped_state, new_state
from raftlog.lmdb_environment import (
    DATA_FILE,
    check_meta_pages_of,
    commit,
    forget_failed_commit,
    free_bytes,
    note_failed_commit,
    open_environment,
    reading,
    sync_directory,
    take_lock,
)
from raftlog.lmdb_garbage import PORTION, collect, has_garbage
from raftlog.lmdb_group import LmdbGroup, Plan
from raftlog.lmdb_opening import load_group
from raftlog.lmdb_records import (
    DISK_KEY,
    FORMAT_KEY,
    IDENTITY_KEY,
    VALUE_PREFIX,
    Records,
    Txn,
    of_node,
)
from raftlog.lmdb_verify import count_and_verify
from raftlog.messages import Entry, Membership
from raftlog.record import DIRECTORY_FORMAT, GROUP_MAX
from raftlog.store_errors import (
    CorruptRecord,
    StoreFailed,
    StoreOfOtherCluster,
    StoreOfOtherNode,
    StoreUnusable,
)
from raftlog.write import GroupWrite

__all__ = ["Identity", "LmdbStore"]

DISK_ID_BYTES = 16

FULL_BELOW_BYTES = 1 << 20
"""With less room than this a failed write is taken for one that found the disk full."""

_encode = msgspec.msgpack.encode


class LmdbStore:
    """One node's directory, open: a `GroupStore`. Not to be used from two threads at a time."""

    __slots__ = (
        "_disk_id",
        "_dropped",
        "_env",
        "_failure",
        "_format",
        "_garbage",
        "_lock",
        "path",
        "reads",
        "records",
        "storages",
        "tail",
    )

    def __init__(self, path: Path, env: lmdb.Environment, lock: int, cache_bytes: int) -> None:
        """Use `open`."""
        self.path = path
        self.records = Records(path)
        self.storages: dict[int, LmdbGroup] = {}
        # A reader of old entries must not push the recent ones out: it has its own quarter.
        self.tail = EntryCache(cache_bytes - cache_bytes // 4)
        self.reads = EntryCache(cache_bytes // 4)
        self._env = env
        self._lock: int | None = lock
        self._format = 0  # of the directory; 0: it is new
        self._disk_id: bytes | None = None
        self._dropped: dict[int, GroupState] = {}
        self._garbage: dict[int, GroupState] = {}  # groups that may have some, the next first
        self._failure: str | None = None

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

        groups: the voters of each group. What the directory knows of a group wins, also that
        it was dropped. map_bytes: how large the store may grow. cache_bytes: memory for recent
        entries.

        Raise `StoreUnusable`, `StoreLocked`, `StoreOfOtherCluster`, `StoreOfOtherNode`,
        `StoreTooNew` or `StoreCorrupt` before anything is changed, and `StoreFailed` when the
        disk refuses.
        """
        path = Path(path)
        absent = [place for place in (path, *path.parents) if not place.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
            lock = take_lock(path)
        except OSError as error:
            raise StoreUnusable(
                f"{path} cannot be used: {error}; choose another directory"
            ) from error
        env: lmdb.Environment | None = None
        try:
            put_back = check_meta_pages_of(path / DATA_FILE)
            env = open_environment(path, map_bytes)
            store = cls(path, env, lock, cache_bytes)
            store._read_all(identity)
            if not store._format:
                # LMDB syncs its file, but not the directory entries that lead to it.
                for place in (path, *(place.parent for place in absent)):
                    sync_directory(place)
            store._add(identity, groups)
            if put_back:
                store._commit(lambda txn: None)
            forget_failed_commit(path)
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
    def disk_id(self) -> bytes:
        """16 random bytes, made with the directory."""
        assert self._disk_id is not None
        return self._disk_id

    @property
    def groups(self) -> list[int]:
        """The groups this directory has, in order."""
        return sorted(self.storages)

    def group(self, group: int) -> LmdbGroup:
        """The `GroupStorage` of one group. KeyError when the directory does not have it."""
        return self.storages[group]

    def entry(self, group: int, index: int) -> Entry:
        """One entry. Raise `Compacted`, `Unavailable` or `CorruptRecord`."""
        return self.storages[group].entry(index)

    def read_meta(self, name: str) -> bytes | None:
        """The value written by `write_meta`, or None. Raise `CorruptRecord`."""
        with self.begin() as txn:
            return self.records.meta_value(txn, VALUE_PREFIX + name.encode())

    def verify(self, group: int) -> int:
        """Read all that there is of a group and prove it. Returns the number of records.

        Raise `CorruptRecord` for the first one that is not what it should be.
        """
        with self.begin() as txn:
            return count_and_verify(txn, self.records, group, self.storages[group].state)

    @contextmanager
    def begin(self) -> Iterator[Txn]:
        """A transaction that reads. Raise `StoreCorrupt` or `StoreFailed`."""
        with reading(self._env, self.path) as txn:
            yield txn

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
        plans = [self.storages[write.group].plan(write) for write in batch]
        self._commit(lambda txn: self._put(txn, plans))
        for plan in plans:
            plan.group.remember(plan)
            if plan.write.install is not None or plan.write.mark is not None:
                self._garbage[plan.group.number] = plan.state

    def write_meta(self, name: str, value: bytes) -> None:
        """Make a small value of the broker's own durable. Raise `StoreFailed`."""
        self._refuse_after_failure()
        key = VALUE_PREFIX + name.encode()
        self._commit(lambda txn: self.records.put_meta(txn, key, value))

    def add_group(self, group: int, membership: Membership) -> LmdbGroup:
        """A new, empty group; without members it joins one that exists. See `GroupStore`."""
        self._refuse_after_failure()
        assert 0 <= group <= GROUP_MAX
        assert group not in self.storages, group
        old = self._dropped.get(group)
        if old is None:
            state = new_state(membership)
        else:
            self._clear(group, old)
            state = msgspec.structs.replace(old, membership=membership, dropped=False)
        self._commit(lambda txn: self.records.put_state(txn, group, _encode(state)))
        self._dropped.pop(group, None)
        self.storages[group] = storage = LmdbGroup(self, group, state, ())
        return storage

    def drop_group(self, group: int) -> None:
        """Forget a group but for how this node has voted in it; later writes make the room."""
        self._refuse_after_failure()
        storage = self.storages[group]
        state = dropped_state(storage.state, storage.term(storage.last_index()))
        self._commit(lambda txn: self.records.put_state(txn, group, _encode(state)))
        del self.storages[group]
        for cache in (self.tail, self.reads):
            cache.forget_from(group, 0, storage.last_index())
        self._dropped[group] = self._garbage[group] = state

    def collect_garbage(self) -> bool:
        """Delete a portion of what nothing leads to any more; False when there is none.

        Writes do that by the way; this is for a node that writes nothing. Raise `StoreFailed`.
        """
        if not self._garbage:
            return False
        self._refuse_after_failure()
        self._commit(self._collect)
        return True

    def _put(self, txn: Txn, plans: list[Plan]) -> None:
        for plan in plans:
            plan.group.put(txn, plan)
        if self._garbage:
            self._collect(txn)

    def _collect(self, txn: Txn) -> None:
        """Delete a portion of one group's garbage; the others' turns come."""
        group, state = next(iter(self._garbage.items()))
        del self._garbage[group]
        if collect(txn, self.records, group, state, PORTION) == PORTION:
            self._garbage[group] = state

    def _clear(self, group: int, dropped: GroupState) -> None:
        """Nothing of the earlier life of a group may show in its next one."""
        done = 0

        def portion(txn: Txn) -> None:
            nonlocal done
            done = collect(txn, self.records, group, dropped, PORTION)

        while True:
            self._commit(portion)
            if not done:
                break
        self._garbage.pop(group, None)

    def _commit(self, fill: Callable[[Txn], None]) -> None:
        try:
            commit(self._env, fill)
        except (lmdb.Error, OSError) as error:
            self._failure = self._explained(error)
            if not isinstance(error, lmdb.MapFullError):
                note_failed_commit(self._env, self.path)
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
        if isinstance(error, lmdb.DiskError) or free_bytes(self.path) < FULL_BELOW_BYTES:
            return (
                f"the disk under {self.path} is full: make room and start this node again. "
                f"What was acknowledged is safe. ({error})"
            )
        return f"writing to {self.path} failed, look at the disk: {error}"

    # --- opening -------------------------------------------------------------------------

    def _read_all(self, identity: Identity) -> None:
        """Verify and load what is there; changes nothing."""
        records = self.records
        records.open_existing(self._env)
        if records.meta is None:
            return  # new, or its maker died before the first commit
        with self.begin() as txn:
            self._format = records.format(txn)
            self._check_owner(records.identity(txn), identity)
            self._disk_id = records.meta_value(txn, DISK_KEY)
            if self._format > 1 and self._disk_id is None:
                raise CorruptRecord(self.path, of_node(DISK_KEY), "it is missing")
            for error in records.stateless(txn):
                raise error
            for key in records.state_keys(txn):
                state = records.group_state(txn, key)
                group = int.from_bytes(key, "big")
                if state.dropped:
                    self._dropped[group] = state
                else:
                    sizes, tail = load_group(txn, records, group, state)
                    self.storages[group] = LmdbGroup(self, group, state, sizes)
                    for entry in tail:
                        self.tail.add(group, entry)
                if has_garbage(txn, records, group, state):
                    self._garbage[group] = state

    def _check_owner(self, owner: Identity, identity: Identity) -> None:
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

    def _add(self, identity: Identity, groups: Mapping[int, Iterable[int]]) -> None:
        """One transaction makes what is missing; none is begun when nothing is."""
        assert all(0 <= group <= GROUP_MAX for group in groups)
        new = {
            group: new_state(Membership(voters=tuple(sorted(voters))))
            for group, voters in groups.items()
            if group not in self.storages and group not in self._dropped
        }
        if self._format == DIRECTORY_FORMAT and not new:
            return
        disk_id = self._disk_id or os.urandom(DISK_ID_BYTES)

        def put(txn: Txn) -> None:
            records = self.records
            if self._format != DIRECTORY_FORMAT:
                records.create(self._env, txn)
                records.put_meta(txn, FORMAT_KEY, bytes([DIRECTORY_FORMAT]))
                records.put_meta(txn, DISK_KEY, disk_id)
            if not self._format:
                records.put_meta(txn, IDENTITY_KEY, _encode(identity))
            for group, state in new.items():
                records.put_state(txn, group, _encode(state))

        self._commit(put)
        self._format, self._disk_id = DIRECTORY_FORMAT, disk_id
        for group, state in new.items():
            self.storages[group] = LmdbGroup(self, group, state, ())
