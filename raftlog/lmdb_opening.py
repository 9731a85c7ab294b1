"""What is verified of a group when its store opens, and what is then in memory of it."""

from __future__ import annotations

from raftlog.group_state import GroupState
from raftlog.lmdb_records import Records, Txn
from raftlog.messages import Entry
from raftlog.store_errors import CorruptRecord, Place

TAIL_ENTRIES = 64
"""How many of each group's last entries are verified, link by link, when the store opens."""
TAIL_BYTES = 8 << 20
"""... but no more than this much data of each group."""


def load_group(
    txn: Txn, records: Records, group: int, state: GroupState
) -> tuple[list[int], list[Entry]]:
    """Bytes of data of each entry of the log, and its last entries, oldest first.

    Raise `CorruptRecord` when the state contradicts itself, when a chunk of the checkpoint or an
    entry is missing, when one is there too many, or when one of the last is not what was written.
    """
    check_bounds(records, group, state)
    missing = missing_chunk(txn, records, group, state)
    if missing is not None:
        raise missing
    sizes = records.log_sizes(txn, state, group)
    return sizes, _verified_tail(txn, records, group, state)


def check_bounds(records: Records, group: int, state: GroupState) -> None:
    """The log begins at or before the checkpoint, and the checkpoint is not behind its end."""
    before, mark, last = state.before_index, state.checkpoint_index, state.last_index
    if not (before <= mark <= last or before == mark == 0):
        raise CorruptRecord(
            records.path,
            Place("state", group),
            f"its log of ({before}, {last}] has a checkpoint at {mark}",
        )


def missing_chunk(
    txn: Txn, records: Records, group: int, state: GroupState
) -> CorruptRecord | None:
    """What is to be said of the first chunk of the whole checkpoint that is not there."""
    expected = 0
    for number in records.chunk_numbers(txn, group, state.checkpoint_index):
        if number != expected or expected == state.checkpoint_chunks:
            break
        expected += 1
    if expected >= state.checkpoint_chunks:
        return None
    place = Place("checkpoint", group, expected, state.checkpoint_index)
    return CorruptRecord(records.path, place, "it is missing")


def _verified_tail(txn: Txn, records: Records, group: int, state: GroupState) -> list[Entry]:
    """The group's last entries, each proved to follow the one before."""
    entries: list[Entry] = []
    chain, index, size = state.last_chain, state.last_index, 0
    while index > state.before_index and len(entries) < TAIL_ENTRIES and size <= TAIL_BYTES:
        record = records.entry_of_log(txn, group, state.edition, index)
        if record.chain != chain:
            place = Place("log", group, index)
            raise CorruptRecord(records.path, place, "it is of another history")
        entries.append(record.entry)
        size += len(record.entry.data)
        chain, index = record.previous, index - 1
    if index == state.before_index and chain != state.before_chain:
        raise CorruptRecord(
            records.path,
            Place("log", group, index + 1),
            "it does not follow the log's beginning",
        )
    return entries[::-1]
