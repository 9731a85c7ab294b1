"""What nothing leads to any more, and how it is deleted: a few records in each later write.

    log          of an edition that is not the group's own     a snapshot took its place
    checkpoint   of an index below the whole checkpoint's      a newer one took its place
    all three    of a group that was dropped

None of it is ever read again, whether it is deleted or not, and it is found again after a
restart by the same rules. So no transaction needs to delete without bounds.
"""

from __future__ import annotations

import lmdb

from raftlog.group_state import GroupState
from raftlog.lmdb_records import Records, Txn
from raftlog.record import body_key, chunk_key, entry_key, group_key

PORTION = 256
"""How many records, or parts of them, one write deletes at most: about 0.3 ms, 1 MiB."""


def collect(txn: Txn, records: Records, group: int, state: GroupState, portion: int) -> int:
    """Delete some of a group's garbage; returns how much was deleted, 0 when there is none."""
    low = group_key(group)
    ranges: list[tuple[lmdb._Database | None, bytes | None]] = [
        (records.log, entry_key(group, state.edition, 0)),
        (records.checkpoint, chunk_key(group, state.checkpoint_index, 0)),
    ]
    if state.dropped:
        ranges = [(records.log, None), (records.messages, None), (records.checkpoint, None)]
    left = portion
    for db, high in ranges:
        if left and db is not None:
            left -= _delete(txn, db, low, high, left)
    return portion - left


def _delete(txn: Txn, db: lmdb._Database, low: bytes, high: bytes | None, limit: int) -> int:
    """Delete what is in [low, high), or begins with `low`, at most so many."""
    count = 0
    with txn.cursor(db=db) as cursor:
        more = cursor.set_range(low)
        while more and count < limit:
            key = bytes(cursor.key())
            if not key.startswith(low) if high is None else key >= high:
                break
            more = cursor.delete()
            count += 1
    return count


def has_garbage(txn: Txn, records: Records, group: int, state: GroupState) -> bool:
    """Whether `collect` would find something; changes nothing."""
    low = group_key(group)
    for db, high in (
        (records.log, entry_key(group, state.edition, 0)),
        (records.checkpoint, chunk_key(group, state.checkpoint_index, 0)),
        (records.messages, body_key(group, 0, 0)),
    ):
        if db is None:
            continue
        with txn.cursor(db=db) as cursor:
            if cursor.set_range(low):
                key = bytes(cursor.key())
                if key.startswith(low) and (state.dropped or key < high):
                    return True
    return False
