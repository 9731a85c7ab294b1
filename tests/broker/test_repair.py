"""Healing a directory with copies that real engines lend, and refusing what is not proved."""

from __future__ import annotations

from pathlib import Path

import lmdb
import msgspec
import pytest

from broker import protocol as p
from broker.batch import Batch, command_id
from broker.cli.node_repair import heal, runs
from broker.machines.commands import Enqueue, decode
from broker.peer_protocol import (
    EntryPart,
    EntryPull,
    PeerFrame,
    decode_peer_frame,
    encode_peer_frame,
)
from raftlog.lmdb_repair import open_repair
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.lmdb_verify import verify_directory
from raftlog.memory_store import MemoryGroup
from raftlog.messages import Entry, HardState
from raftlog.record import body_key, entry_key, seal, turn_bytes
from raftlog.store_errors import CorruptRecord, Place
from raftlog.write import GroupWrite
from tests.broker.trio import Trio, hello

GROUP = 1
BODY_BYTES = 400_000
PUBLISHED = 8


@pytest.fixture
def trio() -> Trio:
    trio = Trio()
    trio.say(hello())
    trio.say(p.DeclareQueue(1, "q"))
    for number in range(PUBLISHED):
        payload = b"%d" % number * BODY_BYTES
        trio.say(p.Publish(2 + number, "", "q", False, 0, None, payload))
    trio.run(10)
    return trio


class Lent:
    """n1 and n3 as the directory of n2 sees them."""

    def __init__(self, trio: Trio) -> None:
        self.trio = trio
        self.nodes = ["n1", "n3"]
        self.number = 0
        self.parts: list[EntryPart] = []
        self.forge: set[str] = set()  #: who gives other data

    def ask(
        self, node: str, group: int, incarnation: int, *, entries: list[int], bodies: list[int]
    ) -> EntryPart | None:
        self.number += 1
        pull = EntryPull(self.number, group, incarnation, entries, bodies)
        engine = self.trio.engines[node]
        cluster = self.trio.configs[node].cluster_id
        disk = self.trio.disks["n2"].disk_id
        frame = PeerFrame(cluster, "n2", 99, self.number, 0, "", [pull], disk)
        before = [shard.raft.commit for shard in engine.shards.values()]
        engine.peer_frame(encode_peer_frame(frame))
        assert [shard.raft.commit for shard in engine.shards.values()] == before
        for target, data in engine.peer_frames():
            for record in decode_peer_frame(data).records:
                if isinstance(record, EntryPart) and target == "n2":
                    self.parts.append(record)
                    return self._given(node, record)
        return None

    def _given(self, node: str, part: EntryPart) -> EntryPart:
        if node not in self.forge:
            return part
        entries = [(index, term, kind, data + b"!") for index, term, kind, data in part.entries]
        bodies = [(id, data + b"!") for id, data in part.bodies]
        return msgspec.structs.replace(part, entries=entries, bodies=bodies)


@pytest.fixture
def path(trio: Trio, tmp_path: Path) -> Path:
    """What n2 has of the group, on a real disk, with a body of its own for each message."""
    source = trio.disks["n2"].storages[GROUP]
    entries = source.entries(1, source.last_index() + 1, 1 << 30)
    bodies = [
        (command_id(entry.index, offset), bytes(Batch(entry.data).command(offset)))
        for entry in entries
        if entry.data
        for offset in range(Batch(entry.data).count)
        if isinstance(decode(Batch(entry.data).command(offset)), Enqueue)
    ]
    assert len(bodies) == PUBLISHED
    members = source.initial_state()[1]
    groups = {GROUP: members.voters}
    with LmdbStore.open(tmp_path, Identity("00", "n2"), groups, 64 << 20, 1) as store:
        commit = HardState(entries[-1].term, 0, entries[-1].index)
        store.write([GroupWrite(GROUP, commit, entries, bodies=bodies)])
    assert not verify_directory(tmp_path).damages
    return tmp_path


def damage(path: Path, database: str, *keys: bytes) -> None:
    """One bit in the middle of the last part of each record."""
    with lmdb.open(str(path), max_dbs=8, map_size=64 << 20) as env:
        db = env.open_db(database.encode())
        with env.begin(write=True) as txn:
            for key in keys:
                with txn.cursor(db=db) as cursor:
                    assert cursor.set_range(key)
                    while cursor.key().startswith(key):
                        last, value = cursor.item()
                        if not cursor.next():
                            break
                record = bytearray(value)
                record[len(record) // 2] ^= 8
                txn.put(last, bytes(record), db=db)
            txn.put(b"turn", seal(b"turn", turn_bytes(txn.id())))


def messages_at(path: Path) -> list[int]:
    """The ids of all messages."""
    with LmdbStore.open(path, Identity("00", "n2"), {}, 64 << 20, 1) as store:
        return store.group(GROUP).body_ids(0, 100)


def healed(path: Path, lent: Lent) -> list[str]:
    said: list[str] = []
    places = [found.place for found in verify_directory(path).damages]
    with open_repair(path) as opened:
        heal(opened, lent, places, said.append)
    return said


def test_a_run_of_long_entries_comes_in_several_parts_and_is_proved_as_one(
    trio: Trio, path: Path
) -> None:
    indices = [id >> 20 for id in messages_at(path)][2:7]
    assert indices == list(range(indices[0], indices[0] + 5))
    damage(path, "log", *(entry_key(GROUP, 1, index) for index in indices))
    lent = Lent(trio)
    said = healed(path, lent)
    assert said == [
        f"entries {indices[0]} to {indices[-1]} of group {GROUP}: healed with the copy of node n1"
    ]
    assert len(lent.parts) > 1
    assert not verify_directory(path).damages


def test_a_body_is_healed_from_the_entry_that_brought_it(trio: Trio, path: Path) -> None:
    ids = messages_at(path)
    damage(path, "messages", body_key(GROUP, 1, ids[3]), body_key(GROUP, 1, ids[5]))
    said = healed(path, Lent(trio))
    assert said == [
        f"body {id} of group 1: healed with the copy of node n1" for id in (ids[3], ids[5])
    ]
    assert not verify_directory(path).damages


def test_what_is_not_proved_is_not_taken_and_the_next_node_is_asked(trio: Trio, path: Path) -> None:
    ids = messages_at(path)
    damage(path, "messages", body_key(GROUP, 1, ids[3]))
    damage(path, "log", entry_key(GROUP, 1, ids[1] >> 20))
    before = verify_directory(path).damages
    lent = Lent(trio)
    lent.forge = {"n1", "n3"}
    said = healed(path, lent)
    assert len(said) == 2 and all("not healed" in line for line in said)
    assert "its chain does not fit the entries around it" in "".join(said)
    assert verify_directory(path).damages == before

    lent.forge = {"n1"}
    said = healed(path, lent)
    assert len(said) == 2 and all(line.endswith("healed with the copy of node n3") for line in said)
    assert not verify_directory(path).damages


def test_another_incarnation_lends_nothing(trio: Trio, path: Path) -> None:
    lent = Lent(trio)
    assert lent.ask("n1", GROUP, 2, entries=[1], bodies=[]) is None
    assert trio.engines["n1"].counters.other_incarnation == 1


class DamagedGroup(MemoryGroup):
    """One whose second entry is damaged too."""

    __slots__ = ()

    def entry(self, index: int) -> Entry:
        if index == 2:
            raise CorruptRecord("here", Place("log", GROUP, 2), "its checksum is wrong")
        return super().entry(index)


def test_what_a_node_has_not_or_has_damaged_is_left_out_and_it_goes_on(trio: Trio) -> None:
    engine, lent = trio.engines["n1"], Lent(trio)
    trio.disks["n1"].storages[GROUP].__class__ = DamagedGroup  # type: ignore[assignment]
    last = trio.disks["n1"].storages[GROUP].last_index()
    part = lent.ask("n1", GROUP, 1, entries=[1, 2, last, last + 1, 1000], bodies=[1 << 40])
    assert part is not None
    assert [index for index, *_ in part.entries] == [1, last]
    assert part.bodies == []
    assert engine.counters.damaged_records == 1
    assert any("cannot lend entry 2 of shard 1" in line for line in trio.logs)


def test_runs_are_neighbours() -> None:
    assert list(runs([3, 4, 5, 9, 11, 12])) == [[3, 4, 5], [9], [11, 12]]
