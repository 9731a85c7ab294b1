"""One group's part of the store on disk: what its Raft core and the broker read."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

import msgspec

from raftlog.entry_cache import EntryCache
from raftlog.errors import Compacted, SnapshotUnavailable, Unavailable
from raftlog.group_state import GroupState
from raftlog.lmdb_records import Records, Txn, delete_record, put_record
from raftlog.messages import Entry, HardState, Membership, Snapshot
from raftlog.record import (
    NO_CHAIN,
    OpenRecord,
    body_key,
    chunk_key,
    encode_record,
    entry_key,
    seal,
)
from raftlog.storage import limited
from raftlog.store_errors import CorruptRecord, Place
from raftlog.write import GroupWrite, Mark, check_write

_encode = msgspec.msgpack.encode


class Reader(Protocol):
    """The store, as one of its groups needs it."""

    @property
    def records(self) -> Records:
        """The databases."""

    @property
    def tail(self) -> EntryCache:
        """The entries written last."""

    @property
    def reads(self) -> EntryCache:
        """The entries read last."""

    def begin(self) -> AbstractContextManager[Txn]:
        """A transaction that reads."""


class Plan(NamedTuple):
    """A `GroupWrite`, checked and encoded: what is left to do is to put."""

    group: LmdbGroup
    write: GroupWrite
    state: GroupState
    records: list[tuple[bytes, bytes]]
    gone: range  #: indices of the old end of the log, whose records are to be deleted


class LmdbGroup:
    """One group: a `GroupStorage`. `LmdbStore` writes it by `plan`, `put` and `remember`."""

    __slots__ = ("_linked", "_read", "_sizes", "_store", "_tail", "log_bytes", "number", "state")

    def __init__(self, store: Reader, number: int, state: GroupState, sizes: Sequence[int]) -> None:
        """Use `LmdbStore.group`. sizes: bytes of data of each entry behind the beginning."""
        self.number = number
        self.state = state  #: what is durable now
        self.log_bytes = sum(sizes)  #: of data of the entries behind the log's beginning
        self._sizes = array("I", sizes)  # of each of them
        self._store = store
        self._linked = (0, 0)  # index and chain of the record read last: the next must follow it
        self._tail = store.tail.of_group(number)
        self._read = store.reads.of_group(number)

    @property
    def incarnation(self) -> int:
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
                found += [
                    record.entry for record in self._from_disk(range(index, high), max_bytes - size)
                ]
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
        self._check(index)
        return self.entry(index).term

    def first_index(self) -> int:
        return self.state.before_index + 1

    def last_index(self) -> int:
        return self.state.last_index

    def snapshot(self) -> Snapshot:
        state = self.state
        if state.checkpoint_index:
            return Snapshot(state.checkpoint_index, state.checkpoint_term, state.membership)
        if not state.membership.voters:
            raise SnapshotUnavailable("this node does not know the group's members yet")
        return Snapshot(0, 0, state.membership)

    # --- GroupStorage --------------------------------------------------------------------

    def entry(self, index: int) -> Entry:
        entry = self._tail.get(index) or self._read.get(index)
        if entry is not None:
            return entry
        kept = self._is_kept(index)
        with self._store.begin() as txn:
            record = self._store.records.entry(txn, self.number, self.state.edition, index)
        if record is None:
            raise self._missing(index, kept=kept)
        self._store.reads.add(self.number, record.entry)
        return record.entry

    def entry_bytes(self, index: int, bytes_max: int) -> bytes:
        entry = self._tail.get(index) or self._read.get(index)
        if entry is not None:
            return entry.data[:bytes_max]
        kept = self._is_kept(index)
        with self._store.begin() as txn:
            data = self._store.records.entry_data(
                txn, self.number, self.state.edition, index, bytes_max
            )
        if data is None:
            raise self._missing(index, kept=kept)
        return data

    def kept_entries(self, low: int, limit: int) -> list[int]:
        state = self.state
        with self._store.begin() as txn:
            return self._store.records.entry_indices(
                txn, self.number, state.edition, low, state.before_index, limit
            )

    def body(self, id: int) -> bytes | None:
        with self._store.begin() as txn:
            return self._store.records.body(txn, self.number, self.state.incarnation, id)

    def body_ids(self, low: int, limit: int) -> list[int]:
        with self._store.begin() as txn:
            return self._store.records.body_ids(
                txn, self.number, self.state.incarnation, low, limit
            )

    @property
    def checkpoint(self) -> Mark | None:
        return self.state.checkpoint

    def chunk(self, number: int, index: int | None = None) -> bytes:
        state = self.state
        whole = state.checkpoint_index
        if index is None:
            index = whole
        if index < whole:
            raise Compacted(f"the checkpoint at {index}, where one at {whole} is whole")
        with self._store.begin() as txn:
            data = self._store.records.chunk(txn, self.number, index, number)
        if data is not None:
            return data
        if index == whole and whole and number < state.checkpoint_chunks:
            place = Place("checkpoint", self.number, number, index)
            raise CorruptRecord(self._store.records.path, place, "it is missing")
        raise Unavailable(f"chunk {number} of the checkpoint at {index}")

    def chunks_of(self, index: int) -> int:
        if index < self.state.checkpoint_index:
            return 0
        with self._store.begin() as txn:
            count = 0
            for number in self._store.records.chunk_numbers(txn, self.number, index):
                if number != count:
                    break
                count += 1
            return count

    # --- reading from the disk -----------------------------------------------------------

    def _from_disk(self, indices: Iterable[int], bytes_max: int) -> list[OpenRecord]:
        """The log's records of `indices` until `bytes_max` is passed.

        A record read after the one before it must follow it: so all that a restart replays is
        proved to be one history.
        """
        found, size = [], 0
        records, edition = self._store.records, self.state.edition
        with self._store.begin() as txn:
            for index in indices:
                record = records.entry_of_log(txn, self.number, edition, index)
                self._follow(index, record)
                found.append(record)
                size += len(record.entry.data)
                if size > bytes_max:
                    break
        return found

    def _follow(self, index: int, record: OpenRecord) -> None:
        state, (before, chain) = self.state, self._linked
        if index == state.before_index + 1:
            before, chain = state.before_index, state.before_chain
        if index == before + 1 and record.previous != chain:
            place = Place("log", self.number, index)
            raise CorruptRecord(
                self._store.records.path, place, f"it does not follow entry {index - 1}"
            )
        self._linked = (index, record.chain)

    def _is_kept(self, index: int) -> bool:
        """Whether `index` lies before the log's beginning. Raise `Unavailable` behind it."""
        if index > self.state.last_index:
            raise Unavailable(f"entry {index} of a log up to {self.state.last_index}")
        return index <= self.state.before_index

    def _missing(self, index: int, *, kept: bool) -> Compacted | CorruptRecord:
        if kept:
            return Compacted(f"entry {index} of a log that begins at {self.first_index()}")
        return CorruptRecord(
            self._store.records.path, Place("log", self.number, index), "it is missing"
        )

    def _check(self, index: int) -> None:
        """`index` is that of an entry of this log, or the typed error."""
        if index <= self.state.before_index:
            raise Compacted(f"entry {index} of a log that begins at {self.first_index()}")
        if index > self.state.last_index:
            raise Unavailable(f"entry {index} of a log up to {self.state.last_index}")

    # --- for the store -------------------------------------------------------------------

    def plan(self, write: GroupWrite) -> Plan:
        """Check and encode a write. The caller's mistakes are bugs."""
        old = self.state
        check_write(write, old.extent)
        state = msgspec.structs.replace(old, hard_state=write.hard_state or old.hard_state)
        mark = write.install or write.mark
        self._check_mark(write, mark)
        if write.install is not None:
            state = installed(state, write.install)
        state, records, chains, gone = self._append(state, write.entries)
        if mark is not None and mark.index:
            state = msgspec.structs.replace(
                state,
                membership=mark.membership,
                checkpoint_index=mark.index,
                checkpoint_term=mark.term,
                checkpoint_chunks=mark.chunks,
            )
        to = write.compact_to
        if to is not None and to != state.before_index:
            term, chain = chains.get(to) or self._link(to)
            state = msgspec.structs.replace(
                state, before_index=to, before_term=term, before_chain=chain
            )
        return Plan(self, write, state, records, gone)

    def _append(
        self, state: GroupState, entries: Sequence[Entry]
    ) -> tuple[GroupState, list[tuple[bytes, bytes]], dict[int, tuple[int, int]], range]:
        """The state behind `entries`, their records, their terms and chains, and what goes."""
        records: list[tuple[bytes, bytes]] = []
        chains: dict[int, tuple[int, int]] = {}
        if not entries:
            return state, records, chains, range(0)
        first, last, chain = entries[0].index, state.last_index, state.last_chain
        if first <= last:
            before = state.before_index
            chain = state.before_chain if first - 1 == before else self._link(first - 1)[1]
        for entry in entries:
            key = entry_key(self.number, state.edition, entry.index)
            record, chain = encode_record(key, entry, chain)
            records.append((key, record))
            chains[entry.index] = entry.term, chain
        end = entries[-1].index
        state = msgspec.structs.replace(state, last_index=end, last_chain=chain)
        return state, records, chains, range(first, last + 1)

    def _link(self, index: int) -> tuple[int, int]:
        (record,) = self._from_disk((index,), 0)
        return record.entry.term, record.chain

    def _check_mark(self, write: GroupWrite, mark: Mark | None) -> None:
        if mark is None:
            return
        there = {number for index, number, _ in write.chunks if index == mark.index}
        with self._store.begin() as txn:
            there.update(self._store.records.chunk_numbers(txn, self.number, mark.index))
        assert there.issuperset(range(mark.chunks)), f"not all chunks of {mark} are there"
        if write.mark is not None:
            terms = {entry.index: entry.term for entry in write.entries}
            term = terms.get(mark.index)
            assert mark.term == (self.term(mark.index) if term is None else term), mark

    def put(self, txn: Txn, plan: Plan) -> None:
        """Carry out a plan of this group."""
        number, write, state = self.number, plan.write, plan.state
        store = self._store.records
        for index in plan.gone:
            delete_record(txn, store.log, entry_key(number, state.edition, index))
        for key, record in plan.records:
            put_record(txn, store.log, key, record)
        for index, count, data in write.chunks:
            key = chunk_key(number, index, count)
            put_record(txn, store.checkpoint, key, seal(key, data))
        for index in write.drop_entries:
            delete_record(txn, store.log, entry_key(number, state.edition, index))
        for id, data in write.bodies:
            key = body_key(number, state.incarnation, id)
            put_record(txn, store.messages, key, seal(key, data))
        for id in write.drop_bodies:
            delete_record(txn, store.messages, body_key(number, state.incarnation, id))
        store.put_state(txn, number, _encode(state))

    def remember(self, plan: Plan) -> None:
        """The plan is durable: what is in memory follows."""
        old, write, entries = self.state, plan.write, plan.write.entries
        tail, reads, number = self._store.tail, self._store.reads, self.number
        self.state = plan.state
        if write.install is not None or plan.gone:
            self._linked = (0, 0)  # what was read may be of another history
        before = old.before_index
        if write.install is not None:
            tail.forget_from(number, 0, old.last_index)
            reads.forget_from(number, 0, old.last_index)
            self._forget_sizes(0, len(self._sizes))
            before = write.install.index
        if entries:
            if plan.gone:
                tail.forget_from(number, plan.gone.start, old.last_index)
                reads.forget_from(number, plan.gone.start, old.last_index)
                self._forget_sizes(plan.gone.start - before - 1, len(self._sizes))
            sizes = [len(entry.data) for entry in entries]
            self._sizes.extend(sizes)
            self.log_bytes += sum(sizes)
        self._forget_sizes(0, plan.state.before_index - before)
        for entry in entries:
            tail.add(number, entry)
        for index in write.drop_entries:
            tail.forget(number, index)
            reads.forget(number, index)

    def _forget_sizes(self, low: int, high: int) -> None:
        self.log_bytes -= sum(self._sizes[low:high])
        del self._sizes[low:high]


def installed(state: GroupState, mark: Mark) -> GroupState:
    """A log that begins behind a snapshot, in an edition of its own."""
    return msgspec.structs.replace(
        state,
        before_index=mark.index,
        before_term=mark.term,
        before_chain=NO_CHAIN,
        last_index=mark.index,
        last_chain=NO_CHAIN,
        membership=mark.membership,
        edition=state.edition + 1,
    )
