"""Proving that a store holds what was written to it, record by record.

    verify_directory(path)  -> Report: every damaged record of a stopped node, nothing changed

Of the log every link from the beginning to the end is followed; kept entries, bodies and
chunks have only sums of their own: nothing tells that one of them is missing, but for the
chunks of the whole checkpoint.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from raftlog.group_state import GroupState, Identity
from raftlog.lmdb_environment import (
    DATA_FILE,
    check_meta_pages_of,
    open_readonly,
    reading,
    take_lock_of_stopped,
)
from raftlog.lmdb_opening import check_bounds
from raftlog.lmdb_records import DISK_KEY, VALUE_PREFIX, Records, Txn, of_node
from raftlog.record import entry_key, open_key
from raftlog.store_errors import CorruptRecord, Place, StoreCorrupt

PAGE = 256
"""How many keys are looked up at a time."""


class Damage(NamedTuple):
    """A record that is not what was written, or is missing."""

    place: Place
    wrong: str

    def __str__(self) -> str:
        return f"{self.place} (database {self.place.database}): {self.wrong}"


class Report(NamedTuple):
    """What was found in a directory."""

    identity: Identity | None  #: whose it is, if that can be read
    groups: list[int]  #: that are kept there, or were
    records: int  #: how many were read, damaged ones too
    damages: list[Damage]


def verify_directory(path: Path) -> Report:
    """Read everything in the directory of a stopped node, and change nothing.

    Raise `StoreLocked` or `StoreUnusable` when it cannot be read now, `StoreTooNew`, and
    `StoreCorrupt` when LMDB's own pages are damaged, so that no record can be named.
    """
    lock = take_lock_of_stopped(path)
    try:
        return verify_locked(path)
    finally:
        os.close(lock)


def verify_locked(path: Path) -> Report:
    """The same, for who holds the directory's lock already."""
    check_meta_pages_of(path / DATA_FILE)
    with open_readonly(path) as env:
        records = Records(path)
        records.open_existing(env)
        if records.meta is None:
            raise StoreCorrupt(f"{path} has no store in it: its first start was cut short")
        with reading(env, path) as txn:
            return _report(txn, records)


def count_and_verify(txn: Txn, records: Records, group: int, state: GroupState) -> int:
    """Prove one group; the number of its records. Raise the first `CorruptRecord`."""
    count = 0
    for found in _verified(txn, records, group, state):
        if found is not None:
            raise found
        count += 1
    return count


def _report(txn: Txn, records: Records) -> Report:
    damages: list[Damage] = []
    count = 0

    def note(error: CorruptRecord) -> None:
        damages.append(Damage(error.place, error.wrong))

    identity = None
    try:
        count += 2
        if records.format(txn) > 1 and records.meta_value(txn, DISK_KEY) is None:
            note(CorruptRecord(records.path, of_node(DISK_KEY), "it is missing"))
        identity = records.identity(txn)
    except CorruptRecord as error:
        note(error)
    for key in txn.cursor(db=records.meta).iternext(values=False):
        if bytes(key).startswith(VALUE_PREFIX):
            count += 1
            try:
                records.meta_value(txn, bytes(key))
            except CorruptRecord as error:
                note(error)
    for missing in records.stateless(txn):
        note(missing)
    groups = []
    for key in records.state_keys(txn):
        count += 1
        group = int.from_bytes(key, "big")
        groups.append(group)
        try:
            state = records.group_state(txn, key)
            if state.dropped:
                continue
            check_bounds(records, group, state)
        except CorruptRecord as error:
            note(error)
            continue
        for found in _verified(txn, records, group, state):
            count += 1
            if found is not None:
                note(found)
    damages.sort(key=lambda damage: [str(part or "").rjust(20) for part in damage.place])
    return Report(identity, groups, count, damages)


def _verified(
    txn: Txn, records: Records, group: int, state: GroupState
) -> Iterator[CorruptRecord | None]:
    """For each record of the group: None, or what is wrong with it."""
    yield from _verified_log(txn, records, group, state)
    yield from _verified_rest(txn, records, group, state)


def _verified_log(
    txn: Txn, records: Records, group: int, state: GroupState
) -> Iterator[CorruptRecord | None]:
    """From the end to the beginning: so what is wrong is the entry, and not the one behind it."""
    yield from _strangers(txn, records, group, state)
    chain: int | None = state.last_chain  # that of the next one to come, where it is known
    for index in range(state.last_index, state.before_index, -1):
        place = Place("log", group, index)
        try:
            record = records.entry_of_log(txn, group, state.edition, index)
        except CorruptRecord as error:
            chain = None
            yield error
            continue
        if chain is not None and record.chain != chain:
            chain = None
            yield CorruptRecord(records.path, place, "it is of another history")
            continue
        if index == state.checkpoint_index and record.entry.term != state.checkpoint_term:
            yield CorruptRecord(
                records.path, Place("state", group), f"its checkpoint is not of entry {index}"
            )
        else:
            yield None
        chain = record.previous
    if chain is not None and chain != state.before_chain:
        place = Place("log", group, state.before_index + 1)
        yield CorruptRecord(records.path, place, "it does not follow the log's beginning")


def _strangers(
    txn: Txn, records: Records, group: int, state: GroupState
) -> Iterator[CorruptRecord]:
    """The first record behind what the group's state calls the last one."""
    cursor = txn.cursor(db=records.log)
    if cursor.set_range(entry_key(group, state.edition, state.last_index + 1)):
        of_group, _, index = open_key(cursor.key())
        if of_group == group:
            wrong = f"the log should end at {state.last_index}"
            yield CorruptRecord(records.path, Place("log", group, index), wrong)


def _verified_rest(
    txn: Txn, records: Records, group: int, state: GroupState
) -> Iterator[CorruptRecord | None]:
    """Kept entries, bodies and chunks, by their own sums."""
    edition, incarnation = state.edition, state.incarnation
    low = 0
    while kept := records.entry_indices(txn, group, edition, low, state.before_index, PAGE):
        for index in kept:
            yield _wrong(partial(records.entry, txn, group, edition, index))
        low = kept[-1] + 1
    low = 0
    while ids := records.body_ids(txn, group, incarnation, low, PAGE):
        for id in ids:
            yield _wrong(partial(records.body, txn, group, incarnation, id))
        low = ids[-1] + 1
    numbers = set()
    for index, number in records.chunks_from(txn, group, state.checkpoint_index):
        if index == state.checkpoint_index:
            numbers.add(number)
        yield _wrong(partial(records.chunk, txn, group, index, number))
    for number in range(state.checkpoint_chunks):
        if number not in numbers:
            place = Place("checkpoint", group, number, state.checkpoint_index)
            yield CorruptRecord(records.path, place, "it is missing")


def _wrong(read: Callable[[], object]) -> CorruptRecord | None:
    try:
        read()
    except CorruptRecord as error:
        return error
    return None
