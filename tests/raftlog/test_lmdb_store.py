"""The store, on a real LMDB: what is written is there again, or its loss is told."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raftlog.errors import Compacted, SnapshotUnavailable, Unavailable
from raftlog.lmdb_garbage import PORTION
from raftlog.lmdb_opening import TAIL_ENTRIES
from raftlog.lmdb_records import DATABASES
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.lmdb_verify import verify_directory
from raftlog.memory_store import MemoryStore
from raftlog.messages import Entry, EntryKind, HardState, Membership, Snapshot
from raftlog.record import HEAD_BYTES, encode_record, entry_key, group_key, seal, turn_bytes
from raftlog.store_errors import (
    CorruptRecord,
    StoreCorrupt,
    StoreFailed,
    StoreLocked,
    StoreOfOtherCluster,
    StoreOfOtherNode,
    StoreTooNew,
    StoreUnusable,
)
from raftlog.write import GroupWrite
from tests.raftlog import store_writer
from tests.raftlog.store_view import view

IDENTITY = Identity("cluster", "n1")
GROUPS: dict[int, tuple[int, ...]] = {0: (1, 2, 3), 7: (3, 1, 2)}
MAP_BYTES = 16 << 20
PAGE_BYTES = resource.getpagesize()

Open = Callable[..., LmdbStore]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Open]:
    """Opens the store of this test; whatever is left open is closed at the end."""
    stores: list[LmdbStore] = []

    def open_it(
        identity: Identity = IDENTITY,
        groups: dict[int, tuple[int, ...]] = GROUPS,
        map_bytes: int = MAP_BYTES,
        cache_bytes: int = 1 << 20,
    ) -> LmdbStore:
        store = LmdbStore.open(
            tmp_path / "data", identity, groups, map_bytes=map_bytes, cache_bytes=cache_bytes
        )
        stores.append(store)
        return store

    yield open_it
    for store in stores:
        store.close()


def log(first: int, last: int, term: int = 1, size: int = 20) -> list[Entry]:
    return [
        Entry(index, term, EntryKind.NORMAL, f"{term}/{index};".encode().ljust(size, b"."))
        for index in range(first, last + 1)
    ]


def fill(store: LmdbStore, group: int, last: int, size: int = 20) -> list[Entry]:
    entries = log(1, last, size=size)
    store.write([GroupWrite(group, HardState(1, 2, 0), entries)])
    return entries


def on_disk(
    path: Path,
    change: Callable[[lmdb.Transaction, dict[str, object]], None],
    *,
    keep_turn: bool = True,
) -> None:
    """Change a closed store behind its back."""
    with lmdb.open(str(path / "data"), max_dbs=8, map_size=MAP_BYTES) as env:
        dbs: dict[str, object] = {name: env.open_db(name.encode()) for name in DATABASES}
        with env.begin(write=True) as txn:
            change(txn, dbs)
            if keep_turn:
                txn.put(b"turn", seal(b"turn", turn_bytes(txn.id())))


def flip(path: Path, needle: bytes, at: int) -> None:
    """Flip one bit in data.mdb, `at` bytes from where `needle` stands."""
    file = path / "data" / "data.mdb"
    data = bytearray(file.read_bytes())
    places = [place for place in range(len(data)) if data.startswith(needle, place)]
    assert places, "the bytes are not in the file"
    for place in places:  # older copies of the page, too
        data[place + at] ^= 0x10
    file.write_bytes(data)


# --- what is written is there again -------------------------------------------------------


def test_a_new_group_is_empty_and_knows_its_voters(opened: Open) -> None:
    storage = opened().group(7)
    assert storage.initial_state() == (HardState(), Membership(voters=(1, 2, 3)))
    assert (storage.first_index(), storage.last_index(), storage.term(0)) == (1, 0, 0)
    assert storage.snapshot() == Snapshot(0, 0, Membership(voters=(1, 2, 3)))
    assert storage.checkpoint is None


def test_who_knows_no_members_has_no_snapshot(opened: Open) -> None:
    with pytest.raises(SnapshotUnavailable):
        opened(groups={9: ()}).group(9).snapshot()


def test_entries_and_state_are_there_after_reopening(opened: Open) -> None:
    store = opened()
    entries = fill(store, 7, 5)
    store.write([GroupWrite(7, HardState(3, 2, 5))])
    for again in range(2):
        storage = store.group(7)
        assert storage.entries(1, 6, 1 << 20) == entries
        assert storage.term(4) == 1
        assert storage.initial_state() == (
            HardState(3, 2, 5),
            Membership(voters=(1, 2, 3)),
        )
        assert store.group(0).last_index() == 0
        assert store.verify(7) == 5
        store.close()
        if not again:
            store = opened()


def test_what_the_directory_knows_of_a_group_wins_and_new_groups_are_added(opened: Open) -> None:
    opened().close()
    store = opened(groups={7: (8, 9), 3: (4,)})
    assert store.groups == [0, 3, 7]
    assert store.group(7).initial_state()[1].voters == (1, 2, 3)
    assert store.group(3).initial_state()[1].voters == (4,)
    with pytest.raises(KeyError):
        store.group(1)


def test_a_conflicting_suffix_is_gone(opened: Open) -> None:
    store = opened()
    old = fill(store, 0, 9)
    new = log(4, 5, term=2)
    store.write([GroupWrite(0, HardState(2, 1, 0), new)])
    for again in range(2):
        storage = store.group(0)
        assert storage.last_index() == 5
        assert storage.entries(1, 6, 1 << 20) == old[:3] + new
        assert store.entry(0, 5) == new[1]
        with pytest.raises(Unavailable):
            store.entry(0, 6)
        assert store.verify(0) == 5
        if not again:
            store.close()
            store = opened()
    store.write([GroupWrite(0, None, log(6, 7, term=2))])
    assert store.verify(0) == 7


def test_a_replaced_entry_is_not_read_from_memory(opened: Open) -> None:
    store = opened(cache_bytes=4000)
    fill(store, 0, 40, size=100)
    assert store.entry(0, 3).term == 1  # read from the disk, and kept as read last
    store.write([GroupWrite(0, HardState(2, 1, 0), log(3, 40, term=2, size=100))])
    assert store.entry(0, 3).term == 2


def test_a_whole_log_can_be_replaced(opened: Open) -> None:
    store = opened()
    fill(store, 0, 3)
    store.write([GroupWrite(0, HardState(2, 1, 0), log(1, 1, term=2))])
    store.close()
    assert opened().verify(0) == 1


def test_a_committed_entry_is_never_replaced(opened: Open) -> None:
    store = opened()
    fill(store, 0, 3)
    store.write([GroupWrite(0, HardState(1, 2, 2))])
    with pytest.raises(AssertionError):
        store.write([GroupWrite(0, HardState(2, 1, 2), log(2, 2, term=2))])
    with pytest.raises(AssertionError):
        store.write([GroupWrite(0, HardState(1, 1, 1))])
    with pytest.raises(AssertionError):
        store.write([GroupWrite(0, None, log(5, 5))])


def test_many_groups_share_one_transaction(opened: Open) -> None:
    groups = dict.fromkeys(range(64), (1, 2, 3))
    store = opened(groups=groups)
    before = store._env.info()["last_txnid"]
    for turn in range(1, 4):
        store.write(
            [
                GroupWrite(group, HardState(group + 1, 1, 0), log(turn, turn, term=group + 1))
                for group in groups
            ]
        )
    assert store._env.info()["last_txnid"] == before + 3
    store.close()
    store = opened(groups=groups)
    for group in groups:
        assert store.group(group).entries(1, 4, 1 << 20) == log(1, 3, term=group + 1)
        assert store.verify(group) == 3


@pytest.mark.parametrize("cache_bytes", [0, 1000, 1 << 20])
def test_reading_is_bounded_and_the_same_from_memory_and_disk(
    opened: Open, cache_bytes: int
) -> None:
    store = opened(cache_bytes=cache_bytes)
    entries = fill(store, 0, 30, size=100)
    storage = store.group(0)
    assert storage.entries(1, 31, 1 << 20) == entries
    assert storage.entries(5, 31, 0) == entries[4:5]
    assert storage.entries(5, 31, 100) == entries[4:5]
    assert storage.entries(5, 31, 250) == entries[4:6]
    assert storage.entries(28, 31, 300) == entries[27:30]
    assert storage.entries(2, 4, 1 << 20) == entries[1:3]
    for index in (1, 15, 30, 15):
        assert store.entry(0, index) == entries[index - 1]
    assert store.tail.bytes + store.reads.bytes <= cache_bytes
    for low, high in ((3, 32), (31, 32), (4, 4)):
        with pytest.raises(Unavailable):
            storage.entries(low, high, 100)
    with pytest.raises(Compacted):
        storage.entries(0, 3, 100)
    with pytest.raises(Compacted):
        storage.entry(0)


def test_recent_entries_cost_no_read(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened()
    entries = fill(store, 0, 30)

    def refuse(*_: object) -> object:
        raise AssertionError("the disk was read")

    monkeypatch.setattr(LmdbStore, "begin", refuse)
    assert store.group(0).entries(1, 31, 1 << 20) == entries
    assert store.group(0).term(17) == 1


def test_garbage_goes_also_where_nothing_is_written(opened: Open, tmp_path: Path) -> None:
    with opened() as store:
        fill(store, 7, 3 * PORTION)
        store.drop_group(7)
        rounds = 0
        while store.collect_garbage():
            rounds += 1
        assert rounds == 4
    left: list[bytes] = []

    def look(txn: lmdb.Transaction, dbs: dict[str, object]) -> None:
        with txn.cursor(db=dbs["log"]) as cursor:
            left.extend(bytes(key) for key, _ in cursor)

    on_disk(tmp_path, look)
    assert not [key for key in left if key.startswith(group_key(7))]


def test_values_of_the_broker(opened: Open) -> None:
    store = opened()
    assert store.read_meta("boot") is None
    store.write_meta("boot", b"1")
    store.write_meta("boot", b"2")
    store.close()
    assert opened().read_meta("boot") == b"2"


# --- the directory of someone else --------------------------------------------------------


def test_the_wrong_directory_is_refused_and_not_touched(opened: Open, tmp_path: Path) -> None:
    opened().close()
    before = (tmp_path / "data" / "data.mdb").read_bytes()
    with pytest.raises(StoreOfOtherCluster, match=r"'cluster'.*'other'.*cluster_name"):
        opened(Identity("other", "n1"), {5: (1,)})
    with pytest.raises(StoreOfOtherNode, match=r"'n1'.*'n2'.*node_id"):
        opened(Identity("cluster", "n2"), {5: (1,)})
    assert (tmp_path / "data" / "data.mdb").read_bytes() == before
    assert opened().groups == [0, 7]


def test_a_newer_format_is_refused(opened: Open, tmp_path: Path) -> None:
    opened().close()
    on_disk(
        tmp_path,
        lambda txn, db: txn.put(b"format", seal(b"format", b"\x03"), db=db["meta"]) and None,
    )
    before = (tmp_path / "data" / "data.mdb").read_bytes()
    with pytest.raises(StoreTooNew, match="has format 3, and this version knows 2"):
        opened(groups={5: (1,)})
    assert (tmp_path / "data" / "data.mdb").read_bytes() == before


def test_a_second_process_is_refused(opened: Open, tmp_path: Path) -> None:
    store = opened()
    with pytest.raises(StoreLocked, match="another process works in"):
        opened()
    code = (
        "import fcntl, os, sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "print('locked', flush=True)\n"
        "sys.stdin.read()\n"
    )
    store.close()
    lock = str(tmp_path / "data" / "node.lock")
    with subprocess.Popen(
        [sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(StoreLocked):
            opened()
        other.kill()
    opened()


def test_a_file_that_is_no_store_is_refused(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "data.mdb").write_bytes(b"not LMDB " * 4096)
    with pytest.raises(StoreCorrupt, match="no LMDB file"):
        opened()


def test_a_place_that_cannot_be_used_is_refused(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(b"a file, where a directory should be")
    with pytest.raises(StoreUnusable, match="cannot be used"):
        opened()


def test_an_unfinished_first_start_is_begun_again(opened: Open, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    lmdb.open(str(tmp_path / "data"), max_dbs=8, map_size=MAP_BYTES).close()
    assert opened().groups == [0, 7]


# --- damage -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [40, 9000])
@pytest.mark.parametrize("at", [-HEAD_BYTES, 1 - HEAD_BYTES, -12, -8, -3, 0, 30])
def test_a_flipped_bit_is_named_at_opening(
    opened: Open, tmp_path: Path, size: int, at: int
) -> None:
    store = opened()
    fill(store, 7, 9, size=size)
    store.close()
    flip(tmp_path, b"1/6;.", at)
    with pytest.raises(CorruptRecord, match=r"entry 6 of group 7.*empty directory") as caught:
        opened()
    assert (caught.value.group, caught.value.index) == (7, 6)


def test_a_flipped_bit_in_an_old_entry_is_named_when_it_is_read(
    opened: Open, tmp_path: Path
) -> None:
    store = opened()
    entries = fill(store, 7, TAIL_ENTRIES + 20)
    store.close()
    flip(tmp_path, b"1/6;.", 3)
    store = opened()
    for read in (
        lambda: store.entry(7, 6),
        lambda: store.group(7).term(6),
        lambda: store.group(7).entries(2, 9, 1 << 20),
        lambda: store.verify(7),
    ):
        with pytest.raises(CorruptRecord) as caught:
            read()
        assert (caught.value.group, caught.value.index) == (7, 6)
    assert store.group(7).entries(2, 6, 1 << 20) == entries[1:5]


def test_a_lost_suffix_is_noticed(opened: Open, tmp_path: Path) -> None:
    store = opened()
    fill(store, 7, 9)
    store.close()
    on_disk(tmp_path, lambda txn, db: txn.delete(entry_key(7, 1, 9), db=db["log"]) and None)
    with pytest.raises(CorruptRecord, match="missing") as caught:
        opened()
    assert (caught.value.group, caught.value.index) == (7, 9)


def test_a_lost_old_entry_is_noticed(opened: Open, tmp_path: Path) -> None:
    store = opened()
    fill(store, 7, TAIL_ENTRIES + 20)
    store.close()
    on_disk(tmp_path, lambda txn, db: txn.delete(entry_key(7, 1, 5), db=db["log"]) and None)
    with pytest.raises(CorruptRecord, match="missing") as caught:
        opened()
    assert (caught.value.group, caught.value.index) == (7, 5)


def test_a_record_too_many_is_noticed(opened: Open, tmp_path: Path) -> None:
    store = opened()
    fill(store, 0, 3)
    store.close()
    key = entry_key(0, 1, 5)
    record, _ = encode_record(key, Entry(5, 1, 0, b"stranger"), 0)
    on_disk(tmp_path, lambda txn, db: txn.put(key, record, db=db["log"]) and None)
    with pytest.raises(CorruptRecord, match="should end at 3") as caught:
        opened()
    assert (caught.value.group, caught.value.index) == (0, 5)


def test_an_entry_of_another_history_is_noticed(opened: Open, tmp_path: Path) -> None:
    """Whole, with a checksum that fits, under the right key: but not what was written there."""
    store = opened()
    fill(store, 0, 6)
    store.close()
    key = entry_key(0, 1, 4)
    record, _ = encode_record(key, Entry(4, 1, 0, b"another"), 12345)
    on_disk(tmp_path, lambda txn, db: txn.put(key, record, db=db["log"]) and None)
    with pytest.raises(CorruptRecord, match="another history") as caught:
        opened()
    assert (caught.value.group, caught.value.index) == (0, 4)


def test_a_damaged_state_is_named(opened: Open, tmp_path: Path) -> None:
    opened().close()

    def damage(txn: lmdb.Transaction, db: dict[str, object]) -> None:
        record = bytearray(txn.get(b"\x00\x07", db=db["state"]))
        record[-1] ^= 1
        txn.put(b"\x00\x07", bytes(record), db=db["state"])

    on_disk(tmp_path, damage)
    with pytest.raises(CorruptRecord, match="the state of group 7") as caught:
        opened()
    assert (caught.value.group, caught.value.index) == (7, None)


@pytest.mark.parametrize("turns", [2, 3, 6])
@pytest.mark.parametrize("page", [0, 1])
@pytest.mark.parametrize("bit", [0, 1, 2, 17, 63])
def test_a_meta_page_that_would_take_the_store_back_is_noticed(
    opened: Open, tmp_path: Path, page: int, bit: int, turns: int
) -> None:
    """LMDB itself would show the state before the last write, as if that had never been."""
    store = opened()
    for turn in range(2, turns + 1):
        store.write([GroupWrite(0, None, log(turn - 1, turn - 1))])
    store.close()
    file = tmp_path / "data" / "data.mdb"
    data = bytearray(file.read_bytes())
    data[page * PAGE_BYTES + 144 + bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)
    with pytest.raises(StoreCorrupt, match=r"the meta pages of .* are damaged"):
        opened()
    assert file.read_bytes() == data


def test_a_meta_page_put_back_by_a_failed_commit_is_believed_of_that_commit_alone(
    opened: Open, tmp_path: Path
) -> None:
    """LMDB takes back the turn of a meta page that it could not write, and leaves the new root."""
    store = opened()
    for index in range(1, 6):
        store.write([GroupWrite(0, None, log(index, index))])
    store.close()
    directory = tmp_path / "data"
    file, note = directory / "data.mdb", directory / "commit.failed"
    data = bytearray(file.read_bytes())
    turns = [int.from_bytes(data[p * PAGE_BYTES + 144 :][:8], sys.byteorder) for p in (0, 1)]
    newest = max(turns)
    at = turns.index(newest) * PAGE_BYTES + 144
    data[at : at + 8] = (newest - 2).to_bytes(8, sys.byteorder)
    file.write_bytes(data)
    for noted in (None, newest - 2, newest - 1, newest + 1, newest + 2, "rubbish"):
        if noted is not None:
            note.write_text(str(noted))
        with pytest.raises(StoreCorrupt, match=r"the meta pages of .* are damaged"):
            opened()
    note.write_text(str(newest))
    store = opened()
    assert store.group(0).last_index() == 4  # without the commit that failed
    assert not note.exists()
    store.write([GroupWrite(0, None, log(5, 5))])
    store.close()
    assert opened().group(0).last_index() == 5


def test_an_older_tree_under_the_newest_meta_page_is_noticed(opened: Open, tmp_path: Path) -> None:
    store = opened()
    fill(store, 0, 3)
    store.close()
    on_disk(
        tmp_path,
        lambda txn, db: txn.put(b"x/boot", b"no turn", db=db["meta"]) and None,
        keep_turn=False,
    )
    with pytest.raises(StoreCorrupt, match=r"that of turn 3 names page .* not of that turn"):
        opened()


def test_the_bytes_of_a_record_do_not_change() -> None:
    """A change here is a new format: old directories must still open, or be refused."""
    key = entry_key(7, 1, 258)
    assert key.hex() == "0007000000010000000000000102"
    record, chain = encode_record(key, Entry(258, 3, EntryKind.NORMAL, b"data"), 0x01020304)
    assert record.hex() == f"0100000000000000000301020304{chain:08x}" + b"data".hex()
    assert f"{chain:08x}" == "3cab8aee"
    assert seal(b"format", b"\x01").hex() == "0115c0a19801"


# --- a disk that has had enough -----------------------------------------------------------


def test_a_full_map_fails_the_store_and_keeps_what_was_acknowledged(opened: Open) -> None:
    store = opened(map_bytes=256 << 10)
    written = 0
    with pytest.raises(StoreFailed, match="262144 bytes: raise store_bytes_max"):  # noqa: PT012 - which write fails is LMDB's affair
        while True:
            store.write(
                [GroupWrite(0, HardState(1, 1, 0), log(written + 1, written + 1, size=3000))]
            )
            written += 1
    assert 10 < written < 90
    with pytest.raises(StoreFailed, match="an earlier write failed"):
        store.write([GroupWrite(7, HardState(1, 1, 0))])
    with pytest.raises(StoreFailed, match="an earlier write failed"):
        store.write_meta("boot", b"1")
    assert store.group(0).last_index() == written
    store.close()
    store = opened()
    assert store.group(0).entries(1, written + 1, 1 << 30) == log(1, written, size=3000)
    assert store.verify(0) == written
    store.write([GroupWrite(0, None, log(written + 1, written + 1))])


def run_writer(path: Path, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.raftlog.store_writer", str(path), mode],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )


def assert_durable(path: Path, written: int) -> int:
    """All that was reported, perhaps one turn more, the same in each group; returns the last."""
    with store_writer.open_store(path) as store:
        last = store.group(0).last_index()
        assert last in (written, written + 1)
        for group in range(store_writer.GROUPS):
            assert store.group(group).last_index() == last
            assert store.verify(group) == last
            for entry in store.group(group).entries(1, last + 1, 1 << 30):
                assert entry.data == store_writer.body(group, entry.index)
        return last


def test_a_write_that_the_disk_refuses_fails_the_store(tmp_path: Path) -> None:
    with run_writer(tmp_path / "data", "limit") as writer:
        assert writer.stdout is not None
        lines = writer.stdout.read().splitlines()
        assert writer.wait(timeout=60) == 0
    assert lines[-1].startswith("failed writing to")
    assert assert_durable(tmp_path / "data", len(lines)) == len(lines)


def test_what_a_killed_process_reported_is_there(tmp_path: Path) -> None:
    written = 0
    for kill_after in (1, 25, 60):
        with run_writer(tmp_path / "data", "kill") as writer:
            assert writer.stdout is not None
            for _ in range(kill_after):
                written = int(writer.stdout.readline())
            writer.kill()
            for line in writer.stdout.read().splitlines():
                written = int(line)
        written = assert_durable(tmp_path / "data", written)


@pytest.mark.parametrize("kill_after", [1, 14, 27, 40, 53, 66, 78, 79, 80, 81])
def test_a_write_of_any_kind_is_there_whole_or_not_at_all(tmp_path: Path, kill_after: int) -> None:
    """Killed in the middle: the disk is as after the last write told, or after the next."""
    with run_writer(tmp_path / "data", "cycle") as writer:
        assert writer.stdout is not None
        for _ in range(kill_after):
            told = int(writer.stdout.readline())
        writer.kill()
        told = int((writer.stdout.read().splitlines() or [told])[-1])
    with store_writer.open_store(tmp_path / "data") as store:
        matches = []
        for number in (told, told + 1):
            twin = MemoryStore(dict.fromkeys(range(store_writer.GROUPS), (1, 2, 3)))
            for each in range(1, number + 1):
                twin.write([store_writer.cycle_write(each, group) for group in twin.storages])
            highest = twin.storages[0].last_index()
            matches.append(
                all(
                    view(store.group(group), highest) == view(twin.storages[group], highest)
                    for group in twin.storages
                )
            )
        assert any(matches)
        for group in range(store_writer.GROUPS):
            store.verify(group)
    assert verify_directory(tmp_path / "data").damages == []


# --- against a model ----------------------------------------------------------------------


class StoreMachine(RuleBasedStateMachine):
    """Writes, truncations and reopenings; a dict of lists is what should be there."""

    def __init__(self) -> None:
        super().__init__()
        self.store: LmdbStore | None = None

    @initialize(cache_bytes=st.sampled_from([0, 3000, 1 << 20]))
    def begin(self, cache_bytes: int) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.cache_bytes = cache_bytes
        self.logs: dict[int, list[Entry]] = {0: [], 1: [], 2: []}
        self.states = {group: HardState() for group in self.logs}
        self.open()

    def open(self) -> None:
        self.store = LmdbStore.open(
            self.directory.name,
            IDENTITY,
            dict.fromkeys(self.logs, (1,)),
            map_bytes=MAP_BYTES,
            cache_bytes=self.cache_bytes,
        )

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        batch = []
        for group in data.draw(st.lists(st.sampled_from([0, 1, 2]), unique=True, max_size=3)):
            log, state = self.logs[group], self.states[group]
            first = data.draw(st.integers(state.commit + 1, len(log) + 1))
            term = state.term + data.draw(st.integers(0, 2))
            entries = [
                Entry(index, term, data.draw(st.integers(0, 1)), bytes([group, index % 256]) * size)
                for index, size in enumerate(
                    data.draw(st.lists(st.sampled_from([0, 1, 50, 3000]), max_size=4)), first
                )
            ]
            if entries:
                log[first - 1 :] = entries
            commit = data.draw(st.integers(state.commit, len(log)))
            new = HardState(term, data.draw(st.integers(0, 3)), commit)
            if new == state and data.draw(st.booleans()):
                batch.append(GroupWrite(group, None, entries))
            else:
                batch.append(GroupWrite(group, new, entries))
            self.states[group] = new
        assert self.store is not None
        self.store.write(batch)

    @rule()
    def reopen(self) -> None:
        assert self.store is not None
        self.store.close()
        self.open()

    @precondition(lambda self: any(self.logs.values()))
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        assert self.store is not None
        group = data.draw(st.sampled_from([group for group, log in self.logs.items() if log]))
        log = self.logs[group]
        low = data.draw(st.integers(1, len(log)))
        high = data.draw(st.integers(low + 1, len(log) + 1))
        max_bytes = data.draw(st.sampled_from([0, 100, 6000, 1 << 20]))
        found = self.store.group(group).entries(low, high, max_bytes)
        assert found
        assert found == log[low - 1 : low - 1 + len(found)]
        size = sum(len(entry.data) for entry in found)
        assert len(found) == 1 or size <= max_bytes
        if low - 1 + len(found) < high - 1:
            assert size + len(log[low - 1 + len(found)].data) > max_bytes
        assert self.store.entry(group, low) == log[low - 1]
        assert self.store.group(group).term(low) == log[low - 1].term

    @invariant()
    def agrees(self) -> None:
        if self.store is None:
            return
        for group, log in self.logs.items():
            storage = self.store.group(group)
            assert storage.last_index() == len(log)
            assert storage.initial_state()[0] == self.states[group]
        assert self.store.tail.bytes + self.store.reads.bytes <= self.cache_bytes

    def teardown(self) -> None:
        if self.store is not None:
            for group, log in self.logs.items():
                assert self.store.verify(group) == len(log)
                if log:
                    found = self.store.group(group).entries(1, len(log) + 1, 1 << 30)
                    assert found == log
            self.store.close()
            self.directory.cleanup()


TestAgainstModel = StoreMachine.TestCase
TestAgainstModel.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
