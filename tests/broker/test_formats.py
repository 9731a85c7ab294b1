"""What a later version has written or says is refused in a sentence, and nothing is changed.

The directory itself, and each of its records, are in tests/raftlog/test_lmdb_store.py.
"""

from __future__ import annotations

import msgspec
import pytest

from broker import protocol as p
from broker.batch import encode_batch
from broker.config import Config
from broker.errors import FormatTooNew
from broker.groups import new_machine
from broker.machines import machine as machines
from broker.machines.commands import (
    Bind,
    Enqueue,
    Fetch,
    QueueCreate,
    QueueDeclare,
    SessionOpen,
    Subscribe,
    encode,
)
from broker.machines.machine import FORMAT, format_of
from broker.peer_protocol import PeerFrame, State, decode_peer_frame, encode_peer_frame
from raftlog.memory_store import FIRST_INCARNATION, MemoryGroup
from raftlog.messages import Entry
from tests.broker.trio import CLIENT, Trio, hello

HASHES = ["13ec473c3082e51fb9cf18858e54fd79", "4cad4333d31263c7fa9c0df2fba1c777"]


class AnotherGroup(MemoryGroup):
    """One that was made anew under the same number."""

    __slots__ = ()
    incarnation = FIRST_INCARNATION + 1


def later(snapshot: bytes) -> bytes:
    """What a version might write that has changed a type and added a field."""
    fields = msgspec.msgpack.decode(snapshot)
    fields[0] = FORMAT + 1
    fields[4] = {"queues": "otherwise"}
    return msgspec.msgpack.encode([*fields, "more"])


def test_the_format_of_a_snapshot_can_be_told_from_its_beginning() -> None:
    snapshot = new_machine(Config(), 1).snapshot()
    assert format_of(snapshot[:16]) == FORMAT
    assert format_of(later(snapshot)[:16]) == FORMAT + 1
    assert format_of(msgspec.msgpack.encode([200] * 20)) == 200
    assert format_of(b"") == format_of(b"\x91") == 0


def test_a_later_checkpoint_is_refused_and_changes_nothing() -> None:
    machine = new_machine(Config(), 1)
    machine.apply(1, 1000, [QueueCreate(5, 0, None)])
    before = machine.snapshot()
    with pytest.raises(FormatTooNew, match=rf"shard 1 has format {FORMAT + 1}.*knows {FORMAT}"):
        machine.restore(later(before))
    assert machine.snapshot() == before


@pytest.mark.parametrize("is_later", [False, True])
def test_a_snapshot_of_a_later_version_is_not_installed(is_later: bool) -> None:
    """Its receiver goes on as it is, and gets it when it is of that version, too."""
    trio = Trio(replay_commands_max=20, log_bytes_max=1 << 10)
    trio.say(hello())
    trio.say(p.DeclareQueue(1, "q"))
    del trio.engines["n3"]
    leader = trio.engines["n1"].shards[1].raft.leader
    for number in range(250):
        trio.say(p.Publish(2 + number, "", "q", False, 0, None, b"x" * 40_000))
        trio.run(1)
    trio.run(200)
    assert trio.engines["n1"].shards[1].storage.first_index() > 20, leader

    def by_a_later_version(source: str, target: str, data: bytes) -> bytes:
        frame = decode_peer_frame(data)
        for at, record in enumerate(frame.records):
            if isinstance(record, State) and record.number == 0 and record.data:
                frame.records[at] = msgspec.structs.replace(record, data=later(record.data))
        return encode_peer_frame(frame)

    if is_later:
        trio.on_frame = by_a_later_version
    n3 = trio.start("n3")
    trio.run(200)
    assert n3 is trio.engines.get("n3")
    assert (n3.counters.snapshots_received == 0) == is_later
    said = f"its state has format {FORMAT + 1}, and this version knows {FORMAT}"
    assert any(said in line for line in trio.logs) == is_later
    trio.on_frame = lambda source, target, data: data
    trio.run(400)
    assert n3.counters.snapshots_received
    assert n3.shards[1].machine.state_hash() == trio.engines["n1"].shards[1].machine.state_hash()


@pytest.mark.parametrize(
    "data",
    [
        b"\x02" + encode_batch(1, [encode(QueueCreate(5, 0, None))])[1:],  # another batch
        encode_batch(1, [msgspec.msgpack.encode([9999, 1])]),  # an unknown command
    ],
)
def test_an_entry_of_a_later_version_is_refused(data: bytes) -> None:
    trio = Trio()
    shard = trio.engines["n1"].shards[1]
    with pytest.raises(FormatTooNew, match=r"entry \d+ of shard 1 cannot be read by this version"):
        shard.apply(Entry(shard.applied + 1, 1, 0, data))


def test_peer_frames_of_a_later_version_are_dropped_named_and_counted() -> None:
    trio = Trio()
    engine = trio.engines["n1"]
    before = engine.counters.malformed_frames
    frame = encode_peer_frame(PeerFrame(trio.configs["n1"].cluster_id, "n2", 1, 1, 0, "", []))
    engine.peer_frame(bytes([frame[0] + 1]) + frame[1:])
    assert engine.counters.malformed_frames == before + 1
    assert "a peer frame of version 2, and this one is 1" in trio.logs[-1]
    with pytest.raises(ValueError, match="version 2"):
        decode_peer_frame(bytes([frame[0] + 1]) + frame[1:])


def test_client_frames_of_a_later_version_are_answered() -> None:
    trio = Trio()
    engine = trio.engines["n1"]
    frame = p.encode_operations(1, [hello()])
    engine.client_frame(CLIENT, bytes([frame[0] + 1]) + frame[1:])
    ((_, answer),) = engine.client_frames()
    (refused,) = p.decode_answers(answer)
    assert isinstance(refused, p.RefusedAnswer)
    assert (refused.code, "version 2, and this one is 1" in refused.text) == (501, True)


def test_a_hello_of_a_later_version_is_denied() -> None:
    trio = Trio()
    newer = msgspec.structs.replace(hello(), version=p.VERSION + 1)
    (denied,) = trio.say(newer)
    assert isinstance(denied, p.Denied)
    assert denied.code == 530 and "version" in denied.text


def test_raft_messages_of_another_incarnation_are_dropped_and_counted() -> None:
    """A group that has had the same number: what it says is nothing to this one."""
    trio = Trio()
    trio.run(5)
    n1 = trio.engines["n1"]
    before = {name: engine.counters.other_incarnation for name, engine in trio.engines.items()}
    assert set(before.values()) == {0}
    terms = {number: shard.raft.term for number, shard in n1.shards.items()}
    # n3 has a disk on which group 1 is another one.
    trio.disks["n3"].storages[1].__class__ = AnotherGroup  # type: ignore[assignment]
    trio.run(100)
    assert n1.counters.other_incarnation > 0
    assert trio.engines["n3"].counters.other_incarnation > 0
    # The two whose group is the same go on: n3 can neither disturb them nor take part.
    assert n1.shards[1].raft.term == terms[1] or n1.shards[1].raft.leader
    assert n1.shards[1].raft.leader != trio.engines["n3"].shards[1].raft.id
    assert trio.engines["n3"].shards[1].raft.leader == 0
    assert trio.engines["n3"].shards[0].raft.leader != 0


def test_the_hash_of_a_state_does_not_change_unnoticed() -> None:
    """If this fails, what `state_hash` covers has changed: raise HASH_FORMAT, then the values.

    Else nodes of the version before and of this one would stop one another.
    """
    queues = new_machine(Config(), 1)
    queues.apply(1, 1000, [QueueCreate(5, 0, None)])
    queues.apply(2, 2000, [Enqueue(9, n, 1, (5,), "", "q", n % 3, None, b"") for n in range(5)])
    queues.apply(3, 3000, [Subscribe(9, 7, 2, 1, 5, 2), Fetch(9, 8, 2, 5), Fetch(9, 9, 2, 6)])
    topology = new_machine(Config(), 0)
    opened = SessionOpen("n1", 1, 1, b"token", "/", "guest", 0, {"product": "x"})
    topology.apply(1, 1000, [opened])
    (session,) = topology.registry
    topology.apply(2, 2000, [QueueDeclare(session.id, 1, 1, "q", 1, False, {"x-a": 1})])
    topology.apply(3, 3000, [Bind(session.id, 2, 1, "q", "amq.topic", "a.*", None)])
    hashes = [machine.state_hash().hex() for machine in (queues, topology)]
    assert (machines.HASH_FORMAT, hashes) == (1, HASHES)
