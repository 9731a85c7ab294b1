"""Replicas compare their states: who differs from a majority stops, and nobody else."""

from __future__ import annotations

from broker import protocol as p
from broker.config import raft_id
from broker.errors import StateDiffers
from broker.machines import machine as machines
from broker.peer_protocol import StateHash, decode_peer_frame, encode_peer_frame
from tests.broker.trio import NODES, Trio, hello

QUEUES = 1  # the shard with the queues
PERIOD = 30  # ticks, more than an audit's period


def trio_with_messages() -> Trio:
    trio = Trio()
    trio.say(hello())
    trio.say(p.DeclareQueue(1, "q"))
    trio.say(*(p.Publish(2 + n, "", "q", False, 0, None, b"x") for n in range(10)))
    trio.run(2 * PERIOD)  # everything so far is audited
    return trio


def audits(trio: Trio, name: str) -> tuple[int, int, int]:
    counters = trio.engines[name].counters
    return counters.audits, counters.audits_equal, counters.audits_different


def publish(trio: Trio) -> None:
    trio.say(p.Publish(50, "", "q", False, 0, None, b"y"))


def lose_a_message(trio: Trio, name: str) -> None:
    """A bit flips in this node's memory."""
    machine = trio.engines[name].shards[QUEUES].machine
    (queue,) = machine._queues.values()
    queue.lanes[0].take()  # type: ignore[union-attr]


def test_replicas_in_the_same_state_compare_and_agree() -> None:
    trio = trio_with_messages()
    before = {name: audits(trio, name) for name in NODES}
    assert min(before.values()) >= (2, 4, 0)  # two shards, two peers
    publish(trio)
    trio.run(2 * PERIOD)
    assert not trio.ended
    for name, (hashed, equal, different) in before.items():
        assert audits(trio, name) == (hashed + 1, equal + 2, different)


def test_without_anything_new_nothing_is_audited() -> None:
    trio = trio_with_messages()
    before = [audits(trio, name) for name in NODES]
    commits = {n: s.raft.commit for n, s in trio.engines["n1"].shards.items()}
    trio.run(4 * PERIOD)
    assert [audits(trio, name) for name in NODES] == before
    assert {n: s.raft.commit for n, s in trio.engines["n1"].shards.items()} == commits


def test_0_ms_is_never() -> None:
    trio = Trio(audit_ms=0)
    trio.run(10 * PERIOD)
    assert audits(trio, "n1") == (0, 0, 0)


def stops_alone(odd: str) -> None:
    trio = trio_with_messages()
    lose_a_message(trio, odd)
    publish(trio)
    trio.run(2 * PERIOD)
    assert list(trio.ended) == [odd]
    error = trio.ended[odd]
    assert isinstance(error, StateDiffers)
    assert error.shard == QUEUES
    text = str(error)
    assert f"shard {QUEUES} on node {odd} after entry {error.index}" in text
    assert "under a new name" in text and "keep its directory" in text
    others = [name for name in NODES if name != odd]
    trio.run(100)
    if "n1" in others:
        answers = trio.say(p.Publish(51, "", "q", False, 0, None, b"y"))
        trio.run(5)
        assert p.Confirmed((51,)) in answers + trio.told
    assert all(trio.engines[name].readiness()[0] for name in others)


def test_a_follower_that_differs_stops_alone() -> None:
    trio = trio_with_messages()
    leader = trio.engines["n1"].shards[QUEUES].raft.leader
    stops_alone(next(n for n in NODES if raft_id(n) != leader))


def test_a_leader_that_differs_stops_alone() -> None:
    trio = trio_with_messages()
    leader = trio.engines["n1"].shards[QUEUES].raft.leader
    stops_alone(next(n for n in NODES if raft_id(n) == leader))


def test_without_a_majority_nobody_stops_and_it_is_told_and_counted() -> None:
    trio = trio_with_messages()
    del trio.engines["n3"]
    trio.run(60)
    lose_a_message(trio, "n2")
    publish(trio)
    trio.run(2 * PERIOD)
    assert not trio.ended
    assert audits(trio, "n1")[2] == audits(trio, "n2")[2] == 1
    lines = [line for line in trio.logs if "differ after entry" in line]
    assert len(lines) == 2 and all("somebody must look" in line for line in lines)


def test_hashes_of_another_format_are_not_compared() -> None:
    """Nodes of two versions, as in a rolling upgrade, must not find one another damaged."""

    def by_a_later_version(source: str, target: str, data: bytes) -> bytes:
        frame = decode_peer_frame(data)
        for at, record in enumerate(frame.records):
            if isinstance(record, StateHash):
                later = machines.HASH_FORMAT + 1
                frame.records[at] = StateHash(
                    record.group, record.incarnation, record.index, later, b"another hash"
                )
        return encode_peer_frame(frame)

    trio = trio_with_messages()
    before = [audits(trio, name) for name in NODES]
    trio.on_frame = by_a_later_version
    publish(trio)
    trio.run(2 * PERIOD)
    assert not trio.ended
    assert [audits(trio, name) for name in NODES] == [(n + 1, e, d) for n, e, d in before]


def test_what_was_applied_before_a_start_is_not_compared_again() -> None:
    trio = trio_with_messages()
    del trio.engines["n3"]
    trio.start("n3")
    trio.run(1)
    engine = trio.engines["n3"]
    trio.run_until(lambda: engine.readiness()[0])
    leader = trio.engines["n1"].shards[QUEUES]
    trio.run_until(lambda: engine.shards[QUEUES].applied == leader.applied)
    assert engine.counters.audits == 0
    publish(trio)
    trio.run(2 * PERIOD)
    assert engine.counters.audits == 1 and engine.counters.audits_equal == 2
