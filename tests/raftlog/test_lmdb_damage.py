"""Damage of every kind of record is named, and put back only when it is proved."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lmdb
import pytest

from raftlog.group_state import GroupState, Identity
from raftlog.lmdb_compaction import compact_directory
from raftlog.lmdb_records import delete_record, put_record
from raftlog.lmdb_repair import open_repair
from raftlog.lmdb_store import LmdbStore
from raftlog.lmdb_verify import verify_directory
from raftlog.messages import Entry, HardState, Membership
from raftlog.record import (
    PART_BYTES,
    body_key,
    chunk_key,
    encode_record,
    entry_key,
    group_key,
    part_number,
)
from raftlog.store_errors import (
    CorruptRecord,
    Place,
    RepairRefused,
    StoreCorrupt,
    StoreLocked,
    StoreUnusable,
)
from raftlog.write import GroupWrite, Mark
from tests.raftlog.test_lmdb_store import on_disk

IDENTITY = Identity("cluster", "n1")
MEMBERS = Membership(voters=(1, 2, 3))
LAST, BEFORE, CHECKPOINT = 150, 20, 30
KEPT = (3, 4, 11)
BODIES = {5: b"survivor", 6: b"s" * 9000, 1 << 40: b"received"}
CHUNKS = (b"first" * 9000, b"second")


def entry(index: int) -> Entry:
    return Entry(index, 1 + index // 50, 0, f"entry {index};".encode() * (1 + index * 97 % 1500))


def open_store(path: Path) -> LmdbStore:
    return LmdbStore.open(
        path / "data", IDENTITY, {7: (1, 2, 3), 9: (1,)}, map_bytes=64 << 20, cache_bytes=1 << 20
    )


def fill(store: LmdbStore) -> None:
    store.write([GroupWrite(7, HardState(9, 1, 100), [entry(i) for i in range(1, LAST + 1)])])
    store.write(
        [
            GroupWrite(
                7,
                chunks=[(CHECKPOINT, number, data) for number, data in enumerate(CHUNKS)],
                mark=Mark(CHECKPOINT, entry(CHECKPOINT).term, MEMBERS, len(CHUNKS)),
                compact_to=BEFORE,
                drop_entries=[index for index in range(1, BEFORE + 1) if index not in KEPT],
                bodies=list(BODIES.items()),
            ),
            GroupWrite(9, HardState(1, 1, 0), [Entry(1, 1, 0, b"another group")]),
        ]
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A closed store with records of every kind."""
    with open_store(tmp_path) as store:
        fill(store)
    return tmp_path


ENTRY = ("log", entry_key(7, 1, 60), Place("log", 7, 60))
KEPT_ENTRY = ("log", entry_key(7, 1, 11), Place("log", 7, 11))
BODY = ("messages", body_key(7, 1, 5), Place("messages", 7, 5))
LONG_BODY = ("messages", body_key(7, 1, 6), Place("messages", 7, 6))
CHUNK = ("checkpoint", chunk_key(7, CHECKPOINT, 0), Place("checkpoint", 7, 0, CHECKPOINT))
ALL = [ENTRY, KEPT_ENTRY, BODY, LONG_BODY, CHUNK]
NAMES = ["entry", "kept entry", "body", "long body", "chunk"]


def flip(path: Path, database: str, key: bytes, at: int) -> None:
    def change(txn: lmdb.Transaction, db: dict[str, object]) -> None:
        record = bytearray(txn.get(key, db=db[database]))
        record[at] ^= 4
        txn.put(key, bytes(record), db=db[database])

    on_disk(path, change)


def delete(path: Path, database: str, key: bytes) -> None:
    on_disk(path, lambda txn, db: txn.delete(key, db=db[database]) and None)


def damages(path: Path) -> list[Place]:
    return [damage.place for damage in verify_directory(path / "data").damages]


def put_back(path: Path, place: Place) -> None:
    with open_repair(path / "data") as repair:
        group, number = place.group, place.number
        assert group is not None
        assert number is not None
        if place.database == "log":
            repair.repair_entry(group, number, entry(number))
        elif place.database == "messages":
            repair.repair_body(group, number, BODIES[number])
        else:
            repair.repair_chunk(group, CHECKPOINT, number, CHUNKS[number])


def assert_whole(path: Path) -> None:
    assert damages(path) == []
    with open_store(path) as store:
        storage = store.group(7)
        assert storage.entries(BEFORE + 1, LAST + 1, 1 << 30) == [
            entry(index) for index in range(BEFORE + 1, LAST + 1)
        ]
        assert [storage.entry(index) for index in KEPT] == [entry(index) for index in KEPT]
        assert storage.kept_entries(0, 99) == list(KEPT)
        assert {id: storage.body(id) for id in storage.body_ids(0, 99)} == BODIES
        assert [storage.chunk(number) for number in range(2)] == list(CHUNKS)
        store.verify(7)


def test_nothing_is_wrong_with_what_was_written(path: Path) -> None:
    before = (path / "data" / "data.mdb").read_bytes()
    report = verify_directory(path / "data")
    assert report.damages == []
    assert report.identity == IDENTITY
    assert report.groups == [7, 9]
    # format and identity, two states, the entries of both logs, and the rest
    assert report.records == 2 + 2 + LAST - BEFORE + 1 + len(KEPT) + len(BODIES) + len(CHUNKS)
    assert (path / "data" / "data.mdb").read_bytes() == before
    assert_whole(path)


@pytest.mark.parametrize(("database", "key", "place"), ALL, ids=NAMES)
@pytest.mark.parametrize("at", [0, 3, -1])
def test_a_flipped_bit_is_named_when_read_and_by_verify(
    path: Path, database: str, key: bytes, place: Place, at: int
) -> None:
    flip(path, database, key, at)
    with open_store(path) as store:
        storage, number = store.group(7), place.number
        assert number is not None
        read = {"log": storage.entry, "messages": storage.body, "checkpoint": storage.chunk}
        with pytest.raises(CorruptRecord) as caught:
            read[database](number)
        assert caught.value.place == place
        assert str(place) in str(caught.value)
        with pytest.raises(CorruptRecord) as caught:
            store.verify(7)
        assert caught.value.place == place
    assert damages(path) == [place]
    put_back(path, place)
    assert_whole(path)


def test_every_damaged_record_is_named(path: Path) -> None:
    for database, key, _ in ALL:
        flip(path, database, key, -1)
    delete(path, "log", entry_key(7, 1, 90))
    delete(path, "log", entry_key(7, 1, 91))
    flip(path, "state", group_key(9), -1)
    delete(path, "checkpoint", chunk_key(7, CHECKPOINT, 1))
    missing = [Place("log", 7, 90), Place("log", 7, 91), Place("checkpoint", 7, 1, CHECKPOINT)]
    expected = [*(place for _, _, place in ALL), *missing, Place("state", 9)]
    assert sorted(map(str, damages(path))) == sorted(map(str, expected))


def test_a_missing_part_is_named(path: Path) -> None:
    key = entry_key(7, 1, 60)
    assert len(entry(60).data) > PART_BYTES
    delete(path, "log", key + part_number(1))
    assert damages(path) == [Place("log", 7, 60)]
    put_back(path, Place("log", 7, 60))
    assert_whole(path)


def test_a_missing_chunk_is_named_at_opening(path: Path) -> None:
    delete(path, "checkpoint", chunk_key(7, CHECKPOINT, 1))
    with pytest.raises(CorruptRecord, match=rf"chunk 1 .* at {CHECKPOINT} of group 7"):
        open_store(path)


@pytest.mark.parametrize("group", [7, 9])
def test_a_group_whose_state_is_gone_is_not_made_anew(path: Path, group: int) -> None:
    """It would vote again where it has voted."""
    delete(path, "state", group_key(group))
    with pytest.raises(CorruptRecord, match=f"state of group {group} .* is missing"):
        open_store(path)
    assert damages(path) == [Place("state", group)]


def test_an_old_entry_of_another_history_is_named_and_put_back(path: Path) -> None:
    """Whole, under the right key, with a sum that fits: only its neighbours tell."""
    key = entry_key(7, 1, 60)
    record, _ = encode_record(key, Entry(60, 2, 0, b"another"), 12345)

    def replace(txn: lmdb.Transaction, db: dict[str, object]) -> None:
        delete_record(txn, db["log"], key)
        put_record(txn, db["log"], key, record)

    on_disk(path, replace)
    assert damages(path) == [Place("log", 7, 60)]
    with open_store(path) as store, pytest.raises(CorruptRecord, match="another history"):
        store.verify(7)
    for low, high in ((59, 61), (60, 62)):
        with open_store(path) as store, pytest.raises(CorruptRecord, match="does not follow"):
            store.group(7).entries(low, high, 1 << 20)
    with open_store(path) as store:
        group = store.group(7)
        assert group.entries(59, 60, 1 << 20) == [entry(59)]
        with pytest.raises(CorruptRecord, match=r"entry 60 .* does not follow entry 59"):
            group.entries(60, 61, 1 << 20)
    put_back(path, Place("log", 7, 60))
    assert_whole(path)


# --- repair -------------------------------------------------------------------------------


def test_a_run_of_missing_entries_is_put_back_together(path: Path) -> None:
    for index in (90, 91, 92):
        delete(path, "log", entry_key(7, 1, index))
    with open_repair(path / "data") as repair:
        with pytest.raises(RepairRefused, match="nothing is left"):
            repair.repair_entry(7, 91, entry(91))
        repair.repair_entries(7, [entry(90), entry(91), entry(92)])
    assert_whole(path)


@pytest.mark.parametrize("index", [BEFORE + 1, 60, LAST])
def test_the_first_and_the_last_entry_can_be_put_back(path: Path, index: int) -> None:
    delete(path, "log", entry_key(7, 1, index))
    put_back(path, Place("log", 7, index))
    assert_whole(path)


def test_damaged_neighbours_vouch_with_what_they_still_say(path: Path) -> None:
    for index in (60, 61):
        flip(path, "log", entry_key(7, 1, index), -1)
        assert Place("log", 7, index) in damages(path)
    put_back(path, Place("log", 7, 61))
    put_back(path, Place("log", 7, 60))
    assert_whole(path)


def test_an_entry_of_another_history_is_refused(path: Path) -> None:
    flip(path, "log", entry_key(7, 1, 60), -1)
    before = damages(path)
    right = entry(60)
    wrong = [
        Entry(60, right.term + 1, 0, right.data),
        Entry(60, right.term, 1, right.data),
        Entry(60, right.term, 0, right.data[:-1]),
        Entry(60, right.term, 0, b"x" + right.data[1:]),
    ]
    with open_repair(path / "data") as repair:
        for other in wrong:
            with pytest.raises(RepairRefused, match="not what was written here"):
                repair.repair_entry(7, 60, other)
        with pytest.raises(RepairRefused, match="in place of entry 60"):
            repair.repair_entry(7, 60, entry(61))
        with pytest.raises(RepairRefused, match="no place"):
            repair.repair_entry(7, LAST + 1, entry(LAST + 1))
        with pytest.raises(RepairRefused, match="no group 8"):
            repair.repair_entry(8, 60, right)
    assert damages(path) == before


def test_another_body_or_chunk_is_refused(path: Path) -> None:
    flip(path, "messages", body_key(7, 1, 5), -1)
    flip(path, "checkpoint", chunk_key(7, CHECKPOINT, 0), -1)
    before = damages(path)
    with open_repair(path / "data") as repair:
        with pytest.raises(RepairRefused, match="its sum differs"):
            repair.repair_body(7, 5, b"Survivor")
        with pytest.raises(RepairRefused, match="its sum differs"):
            repair.repair_chunk(7, CHECKPOINT, 0, CHUNKS[1])
        with pytest.raises(RepairRefused, match="not there"):
            repair.repair_body(7, 77, b"never was")
    assert damages(path) == before


def test_with_a_damaged_state_nothing_can_be_proved(path: Path) -> None:
    flip(path, "log", entry_key(7, 1, 60), -1)
    flip(path, "state", group_key(7), -1)
    with (
        pytest.raises(RepairRefused, match="under a new name"),
        open_repair(path / "data") as repair,
    ):
        repair.repair_entry(7, 60, entry(60))


def test_a_running_node_is_neither_verified_nor_repaired_nor_compacted(path: Path) -> None:
    with open_store(path):
        for work in (verify_directory, compact_directory):
            with pytest.raises(StoreLocked):
                work(path / "data")
        with pytest.raises(StoreLocked), open_repair(path / "data"):
            pass
    with pytest.raises(StoreUnusable, match="not a node's data directory"):
        verify_directory(path)
    assert os.listdir(path) == ["data"]


# --- compaction of the file ---------------------------------------------------------------


def test_the_file_shrinks_to_what_it_holds_and_goes_on(path: Path) -> None:
    with open_store(path) as store:
        for first in range(0, 300, 50):
            ids = range(1000 + first, 1050 + first)
            store.write([GroupWrite(9, bodies=[(id, b"b" * 20_000) for id in ids])])
        store.write([GroupWrite(9, drop_bodies=list(range(1000, 1300)))])
    sizes = compact_directory(path / "data")
    assert sizes.before > 6_000_000
    assert sizes.after == (path / "data" / "data.mdb").stat().st_size < sizes.before // 3
    assert sorted(os.listdir(path / "data")) == ["data.mdb", "lock.mdb", "node.lock"]
    disk_ids = set()
    for turn in range(4):  # the meta pages take turns
        assert_whole(path)
        with open_store(path) as store:
            disk_ids.add(store.disk_id)
            store.write([GroupWrite(7, HardState(10 + turn, 1, 100))])
    assert len(disk_ids) == 1


def test_a_damaged_store_is_not_compacted(path: Path) -> None:
    flip(path, *BODY[:2], -1)
    before = (path / "data" / "data.mdb").read_bytes()
    with pytest.raises(StoreCorrupt, match="body 5 of group 7"):
        compact_directory(path / "data")
    assert (path / "data" / "data.mdb").read_bytes() == before


def test_a_compaction_that_was_cut_short_is_begun_again(path: Path) -> None:
    (path / "data" / "compacted").mkdir()
    shutil.copy(path / "data" / "node.lock", path / "data" / "compacted" / "data.mdb")
    assert_whole(path)
    compact_directory(path / "data")
    assert_whole(path)


# --- the format before --------------------------------------------------------------------


def test_a_directory_of_format_1_is_taken_over(path: Path) -> None:
    """Whole records of any length, a state without the later fields, and three databases."""
    from msgspec import msgpack

    from raftlog.record import seal
    from raftlog.storage import GroupStorage

    old = path / "old" / "data"
    old.mkdir(parents=True)
    entries = [Entry(i, 1, 0, b"x" * size) for i, size in enumerate((1, 4062, 9000, 4061, 5), 1)]
    with lmdb.open(str(old), max_dbs=8, map_size=16 << 20) as env, env.begin(write=True) as txn:
        db = {name: env.open_db(name, txn=txn) for name in (b"meta", b"state", b"log")}
        txn.put(b"format", seal(b"format", b"\x01"), db=db[b"meta"])
        txn.put(b"identity", seal(b"identity", msgpack.encode(IDENTITY)), db=db[b"meta"])
        chain = 0
        for each in entries:
            key = entry_key(7, 1, each.index)
            record, chain = encode_record(key, each, chain)
            txn.put(key, record, db=db[b"log"])
        state = msgpack.encode([1, 0, 0, 0, 5, chain, [1, 2, 3], [[1, 2, 3], [], [], [], False]])
        txn.put(group_key(7), seal(group_key(7), state), db=db[b"state"])
        txn.put(b"turn", seal(b"turn", txn.id().to_bytes(8, "big")))
    assert damages(path / "old") == []
    for _ in range(2):
        with open_store(path / "old") as store:
            storage: GroupStorage = store.group(7)
            assert storage.entries(1, 6, 1 << 20) == entries
            assert storage.initial_state() == (HardState(1, 2, 3), MEMBERS)
            assert len(store.disk_id) == 16
            store.verify(7)
    with open_store(path / "old") as store:
        store.write([GroupWrite(7, None, [Entry(4, 2, 0, b"another")])])
        assert store.verify(7) == 4
        state_now: GroupState = store.group(7).state
        assert state_now.edition == 1
