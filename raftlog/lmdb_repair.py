"""Putting back damaged records of a stopped node, when it is proved that they are the old ones.

    entry i    is what was written, if, encoded behind the entry before it, it has exactly the
               chain that the entry behind it, or the group's state, names:

               chain(i-1) --> encode(entry i) --> chain(i) == previous(i+1)

               Where a neighbour is gone or damaged, what the damaged record itself still says
               of `previous` and of its own `chain` takes that place. So may a run of damaged
               neighbours be put back together, proved by its two ends.
    body,      is what was written, if it has the sum that the damaged record still names, or
    chunk      if it equals the bytes there and only their sum is damaged.

A sum has 32 bits. What is offered comes from a replica, so that it is either the same or of
another history altogether: the sum need not hold against someone who forges.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import lmdb

from raftlog.group_state import GroupState, Identity
from raftlog.lmdb_environment import (
    DATA_FILE,
    OFFLINE_SPARE_BYTES,
    check_meta_pages_of,
    commit,
    forget_failed_commit,
    open_environment,
    take_lock_of_stopped,
)
from raftlog.lmdb_records import DISK_KEY, Records, Txn, joined, put_record
from raftlog.messages import Entry
from raftlog.record import (
    SEAL_BYTES,
    OpenRecord,
    body_key,
    chunk_key,
    encode_record,
    entry_key,
    group_key,
    named_chains,
    named_crc,
    seal,
)
from raftlog.store_errors import CorruptRecord, Place, RepairRefused, StoreCorrupt, StoreFailed


class Repair:
    """A stopped node's directory, open for repairs. Each repair is durable when it returns."""

    __slots__ = ("_env", "_records")

    def __init__(self, env: lmdb.Environment, records: Records) -> None:
        """Use `open_repair`."""
        self._env = env
        self._records = records

    @property
    def identity(self) -> Identity:
        """Whose directory it is. Raise `CorruptRecord`."""
        with self._env.begin() as txn:
            return self._records.identity(txn)

    @property
    def disk_id(self) -> bytes:
        """As `GroupStore.disk_id`; empty where a first version made the directory."""
        with self._env.begin() as txn:
            return self._records.meta_value(txn, DISK_KEY) or b""

    def incarnation(self, group: int) -> int:
        """Which of the groups that have had this number. Raise `RepairRefused`."""
        with self._env.begin() as txn:
            return self._state(txn, group).incarnation

    def repair_entry(self, group: int, index: int, entry: Entry) -> None:
        """Put back one entry. Raise `RepairRefused` when it is not proved to be the old one."""
        if entry.index != index:
            raise RepairRefused(f"entry {entry.index} was offered in place of entry {index}")
        self.repair_entries(group, [entry])

    def repair_entries(self, group: int, entries: Sequence[Entry]) -> None:
        """Put back a run of entries, consecutive, of which each is damaged or missing.

        Raise `RepairRefused` when they are not proved to be the old ones; nothing is changed.
        """
        if not entries or any(
            entry.index != index for index, entry in enumerate(entries, entries[0].index)
        ):
            raise RepairRefused("the entries offered do not follow one another")
        self._change(lambda txn: self._put_entries(txn, group, entries))

    def repair_body(self, group: int, id: int, data: bytes) -> None:
        """Put back the body of a message. Raise `RepairRefused`."""
        place = Place("messages", group, id)

        def put(txn: Txn) -> None:
            key = body_key(group, self._state(txn, group).incarnation, id)
            self._put_sealed(txn, self._records.messages, key, data, place)

        self._change(put)

    def repair_chunk(self, group: int, index: int, number: int, data: bytes) -> None:
        """Put back a chunk of the checkpoint at `index`. Raise `RepairRefused`."""
        place = Place("checkpoint", group, number, index)
        key = chunk_key(group, index, number)
        self._change(lambda txn: self._put_sealed(txn, self._records.checkpoint, key, data, place))

    # --- entries -------------------------------------------------------------------------

    def _put_entries(self, txn: Txn, group: int, entries: Sequence[Entry]) -> None:
        state = self._state(txn, group)
        first, last = entries[0].index, entries[-1].index
        run = f"entries {first} to {last}" if first < last else f"entry {first}"
        if not 0 < first <= last <= state.last_index:
            raise RepairRefused(
                f"group {group} has a log up to {state.last_index}: {run} has no place in it"
            )
        starts = self._chains_before(txn, group, state, first)
        ends = self._chains_of(txn, group, state, last)
        if not starts or not ends:
            raise RepairRefused(
                f"nothing is left on this disk that could prove {run} of group {group}"
            )
        for start in starts:
            records, chain = [], start
            for entry in entries:
                key = entry_key(group, state.edition, entry.index)
                record, chain = encode_record(key, entry, chain)
                records.append((key, record))
            if chain in ends:
                for key, record in records:
                    put_record(txn, self._records.log, key, record)
                return
        raise RepairRefused(
            f"what was offered for {run} of group {group} is not what was written here: its "
            "chain does not fit the entries around it"
        )

    def _chains_before(self, txn: Txn, group: int, state: GroupState, index: int) -> list[int]:
        """What may be the chain of the entry before `index`, the surest first."""
        found = []
        if index - 1 == state.before_index:
            found.append(state.before_chain)
        else:
            before = self._whole(txn, group, state, index - 1)
            if before is not None:
                return [before.chain]
        return found or [names[0] for names in self._names(txn, group, state, index)]

    def _chains_of(self, txn: Txn, group: int, state: GroupState, index: int) -> list[int]:
        """What may be the chain of the entry at `index`, the surest first."""
        if index == state.last_index:
            return [state.last_chain]
        if index == state.before_index:
            return [state.before_chain]
        behind = self._whole(txn, group, state, index + 1)
        if behind is not None:
            return [behind.previous]
        return [names[1] for names in self._names(txn, group, state, index)]

    def _whole(self, txn: Txn, group: int, state: GroupState, index: int) -> OpenRecord | None:
        try:
            return self._records.entry(txn, group, state.edition, index)
        except CorruptRecord:
            return None

    def _names(self, txn: Txn, group: int, state: GroupState, index: int) -> list[tuple[int, int]]:
        record = joined(txn, self._records.log, entry_key(group, state.edition, index))
        names = None if record is None else named_chains(record)
        return [] if names is None else [names]

    # --- what is sealed ------------------------------------------------------------------

    def _put_sealed(
        self, txn: Txn, db: lmdb._Database | None, key: bytes, data: bytes, place: Place
    ) -> None:
        record = joined(txn, db, key) if db is not None else None
        if record is None:
            raise RepairRefused(f"{place} is not there, so that nothing can prove it")
        new = seal(key, data)
        if named_crc(record) != named_crc(new) and new[SEAL_BYTES:] != record[SEAL_BYTES:]:
            raise RepairRefused(
                f"what was offered for {place} is not what was written here: its sum differs"
            )
        put_record(txn, db, key, new)

    # --- the directory -------------------------------------------------------------------

    def _state(self, txn: Txn, group: int) -> GroupState:
        key = group_key(group)
        try:
            if txn.get(key, db=self._records.state) is None:
                raise RepairRefused(f"there is no group {group} in {self._records.path}")
            return self._records.group_state(txn, key)
        except CorruptRecord as error:
            raise RepairRefused(
                f"the state of group {group} is damaged itself, so that nothing in it can be "
                "proved: take this node out of the cluster and add one under a new name"
            ) from error

    def _change(self, fill: Callable[[Txn], None]) -> None:
        try:
            commit(self._env, fill)
        except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
            raise StoreCorrupt(f"{self._records.path} is damaged: {error}") from error
        except (lmdb.Error, OSError) as error:
            raise StoreFailed(f"writing to {self._records.path} failed: {error}") from error


@contextmanager
def open_repair(path: Path) -> Iterator[Repair]:
    """A stopped node's directory, for repairs; its lock is held meanwhile.

    Raise `StoreLocked`, `StoreUnusable`, `StoreTooNew`, or `StoreCorrupt` when LMDB's own pages
    are damaged, which no repair of records can help.
    """
    lock = take_lock_of_stopped(path)
    try:
        put_back = check_meta_pages_of(path / DATA_FILE)
        size = (path / DATA_FILE).stat().st_size
        with open_environment(path, size + OFFLINE_SPARE_BYTES) as env:
            records = Records(path)
            records.open_existing(env)
            if records.meta is None:
                raise StoreCorrupt(f"{path} has no store in it: its first start was cut short")
            with env.begin() as txn:
                records.format(txn)
            opened = Repair(env, records)
            if put_back:
                opened._change(lambda txn: None)
            forget_failed_commit(path)
            yield opened
    finally:
        os.close(lock)
