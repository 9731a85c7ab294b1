"""What a leader gives of a snapshot: the living bodies in order, in parts, and its checkpoint."""

from __future__ import annotations

import msgspec
import pytest

from broker import protocol as p
from broker.config import Config
from broker.machines.commands import Enqueue, decode
from broker.peer_protocol import Bodies, PullBodies, PullState, State
from broker.peers import Peer
from broker.snapshots.sender import Sender
from broker.snapshots.transfer import last_id
from raftlog.messages import Membership
from raftlog.write import GroupWrite, Mark
from tests.broker.test_engine import LoneNode, hello

SHARD = 1


class Giver:
    """A node with a queue, and a replica that pulls from it by hand."""

    def __init__(self, **settings: int) -> None:
        self.node = LoneNode(Config(shards=2, **settings))  # type: ignore[arg-type]
        self.node.say(hello(0))
        self.node.say(p.DeclareQueue(1, "q"))
        self.shard = self.node.engine.shards[SHARD]
        self.sender: Sender = self.node.engine._sender
        self.peer = Peer("n2", 2)
        self.seq = 1

    def publish(self, *payloads: bytes) -> None:
        first = self.seq + 1
        self.seq += len(payloads)
        self.node.say(
            *(p.Publish(first + n, "", "q", False, 0, None, x) for n, x in enumerate(payloads))
        )

    def pull(self, index: int, after: int) -> Bodies:
        self.sender.pull_bodies(self.peer, PullBodies(SHARD, 1, index, after))
        part = self.peer.parts.pop()
        assert isinstance(part, Bodies)
        return part

    def pull_all(self, index: int) -> list[Bodies]:
        parts = [self.pull(index, 0)]
        while parts[-1].to < last_id(index):
            assert parts[-1].to > parts[-1].after
            parts.append(self.pull(index, parts[-1].to))
        return parts

    def state(self, index: int, number: int) -> State:
        self.sender.pull_state(self.peer, PullState(SHARD, 1, index, number))
        part = self.peer.parts.pop()
        assert isinstance(part, State)
        return part


def payloads(parts: list[Bodies]) -> list[bytes]:
    commands = [decode(body) for part in parts for _, body in part.bodies]
    assert all(isinstance(command, Enqueue) for command in commands)
    return [command.payload for command in commands if isinstance(command, Enqueue)]


@pytest.mark.parametrize("ids_max", [1, 3, 16_384])
def test_all_that_is_alive_comes_once_and_in_order(
    monkeypatch: pytest.MonkeyPatch, ids_max: int
) -> None:
    monkeypatch.setattr("broker.snapshots.sender.IDS_MAX", ids_max)
    giver = Giver()
    bodies = [b"%d" % n for n in range(40)]
    for n in range(0, 40, 8):
        giver.publish(*bodies[n : n + 8])
    parts = giver.pull_all(giver.shard.applied)
    assert payloads(parts) == bodies
    assert [part.after for part in parts[1:]] == [part.to for part in parts[:-1]]


def test_what_came_behind_the_checkpoint_is_not_part_of_it() -> None:
    giver = Giver()
    giver.publish(b"a")
    index = giver.shard.applied
    giver.publish(b"b")
    assert payloads(giver.pull_all(index)) == [b"a"]


def test_what_died_since_is_not_sent() -> None:
    giver = Giver()
    giver.publish(b"a", b"b", b"c")
    index = giver.shard.applied
    (_, replied) = giver.node.say(p.Get(90, "q"), p.Get(91, "q"))
    assert isinstance(replied, p.Fetched)
    giver.node.say(p.SettleMessages(92, SHARD, replied.queue, 0, (replied.id,)))
    assert payloads(giver.pull_all(index)) == [b"a", b"c"], "what is checked out is alive"


def test_a_part_is_bounded_and_one_body_always_fits() -> None:
    part_bytes = 1000
    giver = Giver(snapshot_part_bytes=part_bytes)
    third, huge = b"x" * (part_bytes // 3), b"y" * (2 * part_bytes)
    giver.publish(third, third, third, huge, b"last")
    sizes = [[len(x) for x in payloads([part])] for part in giver.pull_all(giver.shard.applied)]
    assert sizes == [[len(third)] * 2, [len(third)], [len(huge)], [4]]


def test_wide_stretches_without_a_message_cost_no_pulls() -> None:
    giver = Giver()
    giver.publish(b"a")
    for _ in range(50):
        giver.node.say(p.PurgeQueue(giver.seq + 1, "nothing"), p.PurgeQueue(giver.seq + 2, "q"))
        giver.seq += 2
    giver.publish(b"b")
    assert payloads([giver.pull(giver.shard.applied, 0)]) == [b"b"]


def test_only_a_leader_gives_and_nothing_beyond_what_it_has_applied() -> None:
    giver = Giver()
    giver.publish(b"a")
    giver.sender.pull_bodies(giver.peer, PullBodies(SHARD, 1, giver.shard.applied + 1, 0))
    giver.sender.pull_bodies(giver.peer, PullBodies(SHARD, 2, giver.shard.applied, 0))
    giver.sender.pull_bodies(giver.peer, PullBodies(99, 1, 1, 0))
    assert giver.peer.parts == []
    giver.shard.raft._raft.become_follower(giver.shard.raft.term + 1, 0)
    giver.sender.pull_bodies(giver.peer, PullBodies(SHARD, 1, giver.shard.applied, 0))
    giver.sender.pull_state(giver.peer, PullState(SHARD, 1, giver.shard.applied, 0))
    assert giver.peer.parts == []


def test_it_gives_the_checkpoint_it_has_and_says_which_when_it_is_another() -> None:
    giver = Giver()
    assert giver.state(1, 0).index == 0
    giver.publish(b"a")
    us, index = Membership(voters=(1,)), giver.shard.applied
    mark = Mark(index, giver.shard.storage.term(index), us, 2)
    chunks = [(index, 0, b"first"), (index, 1, b"second")]
    giver.node.disk.write([GroupWrite(SHARD, chunks=chunks, mark=mark)])
    first, second = giver.state(index, 0), giver.state(index, 1)
    assert (first.data, second.data) == (b"first", b"second")
    assert (first.index, first.term, first.membership, first.chunks) == msgspec.structs.astuple(
        mark
    )
    assert giver.state(index, 2).data == b""
    other = giver.state(index - 1, 0)
    assert (other.index, other.data) == (index, b"")


def test_a_checkpoint_is_held_while_it_is_pulled() -> None:
    giver = Giver()
    giver.publish(b"a")
    giver.node.engine.tick(giver.node.now_ms + 50)
    giver.pull(giver.shard.applied, 0)
    assert giver.shard.pulled_ms == giver.node.engine.now_ms
