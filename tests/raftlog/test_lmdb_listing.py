"""Old entries are found, and looked into, without reading all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from raftlog import lmdb_records
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.messages import Entry, EntryKind, HardState, Membership
from raftlog.record import HEAD_BYTES, PART_BYTES
from raftlog.write import GroupWrite, Mark

FULL = PART_BYTES - HEAD_BYTES
SIZES = [10, FULL, FULL + 1, 5, 3 * PART_BYTES, 0, FULL - 1, 20 * PART_BYTES, 7]
"""Bytes of the entries 1, 2, ...: parts of all kinds, next to one another."""


def opened(path: Path) -> LmdbStore:
    store = LmdbStore.open(
        path, Identity("cluster", "n1"), {3: [1], 4: [1]}, map_bytes=1 << 26, cache_bytes=0
    )
    entries = [
        Entry(index, 1, EntryKind.NORMAL, bytes([index]) * size)
        for index, size in enumerate(SIZES, start=1)
    ]
    last = len(SIZES)
    mark = Mark(last, 1, Membership(voters=(1,)), 1)
    for group in (3, 4):
        store.write([GroupWrite(group, HardState(1, 0, 0), entries)])
        store.write([GroupWrite(group, chunks=((last, 0, b"state"),), mark=mark)])
        store.write([GroupWrite(group, compact_to=last)])
    return store


@pytest.mark.parametrize("dropped", [(), (1,), (3, 5), (8,), (9,), (2, 3, 4, 5, 6, 7, 8)])
def test_kept_entries_are_listed_past_their_parts(tmp_path: Path, dropped: tuple[int, ...]) -> None:
    with opened(tmp_path) as store:
        store.write([GroupWrite(3, drop_entries=dropped)])
        kept = [index for index in range(1, len(SIZES) + 1) if index not in dropped]
        for group, all_of_them in ((3, kept), (4, list(range(1, len(SIZES) + 1)))):
            storage = store.group(group)
            for low in range(len(SIZES) + 2):
                for limit in (1, 2, 100):
                    wanted = [index for index in all_of_them if index >= low][:limit]
                    assert storage.kept_entries(low, limit) == wanted


def test_a_list_ends_when_its_entries_have_too_many_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lmdb_records, "LISTED_PARTS_MAX", 8)
    with opened(tmp_path) as store:
        storage = store.group(4)
        assert storage.kept_entries(1, 100) == [1, 2, 3, 4, 5]  # 1, 1, 2, 1 and 4 parts
        assert storage.kept_entries(6, 100) == [6, 7, 8]  # 1, 1 and 21
        assert storage.kept_entries(8, 100) == [8]
        assert storage.kept_entries(9, 100) == [9]


@pytest.mark.parametrize("most", [0, 1, 16, FULL - 1, FULL, FULL + 1, PART_BYTES * 2, 1 << 20])
def test_the_beginning_of_an_entry_is_read(tmp_path: Path, most: int) -> None:
    with opened(tmp_path) as store:
        for index, size in enumerate(SIZES, start=1):
            wanted = (bytes([index]) * size)[:most]
            assert store.group(3).entry_bytes(index, most) == wanted
