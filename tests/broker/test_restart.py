"""A node that begins with a checkpoint knows what one that has applied every entry knows."""

from __future__ import annotations

import copy

import pytest

from broker import protocol as p
from broker.config import Config
from broker.errors import Code
from tests.broker.test_engine import CLIENT, LoneNode, hello

CONFIG = Config(shards=2, replay_commands_max=2, log_bytes_max=1 << 10)


def wait(node: LoneNode, ticks: int = 60) -> list[p.AnyAnswer]:
    """Let so many ticks pass; what the client is told."""
    told: list[p.AnyAnswer] = []
    for _ in range(ticks):
        node.now_ms += CONFIG.tick_ms
        node.engine.tick(node.now_ms)
        told += node.turns()
    return told


def welcome(answers: list[p.AnyAnswer]) -> p.Welcome:
    (found,) = [answer for answer in answers if isinstance(answer, p.Welcome)]
    return found


@pytest.fixture(autouse=True)
def checkpoints_whenever_something_was_applied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.checkpointer.LOG_PER_STATE", 0)


def filled() -> LoneNode:
    """A node with a checkpoint of each shard, ten messages, and an exclusive queue."""
    node = LoneNode(CONFIG)
    welcome(node.say(hello(0)))
    node.say(p.DeclareQueue(1, "q"))
    node.say(p.DeclareQueue(2, "mine", exclusive=True))
    for number in range(10):
        node.say(p.Publish(10 + number, "", "q", False, 0, None, b"%d" % number + bytes(200)))
    wait(node)
    for storage in node.disk.storages.values():
        assert storage.checkpoint is not None
        assert storage.checkpoint.index == storage.last_index() == storage.first_index() - 1
    return node


def test_it_serves_old_and_new_messages_and_has_the_same_state() -> None:
    node = filled()
    node.say(p.Publish(20, "", "q", False, 0, None, b"last"))
    states = {n: shard.machine.state_hash() for n, shard in node.engine.shards.items()}
    applied = {n: shard.applied for n, shard in node.engine.shards.items()}

    again = LoneNode(CONFIG, node.disk)
    for number, shard in again.engine.shards.items():
        # Its own first entry is empty, and its limits stand in the checkpoint already.
        assert shard.applied == applied[number] + 1
        assert shard.machine.state_hash() == states[number]
    say = p.Hello(p.VERSION, 0, b"another secret!!", "/", "guest", {}, 0, {})
    welcome(again.say(say))
    deliveries = [
        answer.payload[:4].rstrip(b"\0")
        for answer in again.say(p.Consume(1, 1, "q", 100))
        if isinstance(answer, p.Delivery)
    ]
    assert deliveries == [b"%d" % number for number in range(10)] + [b"last"]


def test_it_starts_at_every_moment_of_a_checkpoint_and_a_compaction() -> None:
    node = filled()
    node.say(p.Publish(20, "", "q", False, 0, None, b"last"))
    state = node.engine.shards[1].machine.state_hash()
    between = 0
    for _ in range(40):
        disk = copy.deepcopy(node.disk)
        mark = disk.storages[1].checkpoint
        assert mark is not None
        between += mark.index > disk.storages[1].first_index() - 1
        again = LoneNode(CONFIG, disk)
        assert again.engine.shards[1].machine.state_hash() == state
        wait(node, 1)
    assert 0 < between < 40


def test_its_memory_only_queues_are_there_before_their_session_comes_back() -> None:
    node = filled()
    again = LoneNode(CONFIG, node.disk)
    say = p.Hello(p.VERSION, 0, b"another secret!!", "/", "guest", {}, 0, {})
    welcome(again.say(say))
    again.say(p.Publish(1, "", "mine", True, 0, None, b"reply"))
    assert [queue.ready for queue in again.engine.status().queues if queue.name == "mine"] == [1]


def test_a_session_that_ended_while_the_node_was_behind_is_told_so() -> None:
    """A snapshot takes the place of the entries that would have said it."""
    node = LoneNode(CONFIG)
    zero = node.engine.shards[0].machine
    without = zero.snapshot()
    welcome(node.say(hello(0)))
    node.say(p.DeclareQueue(1, "mine", exclusive=True))
    zero.restore(without)
    node.engine._learner.restored()
    assert [a.code for a in node.turns() if isinstance(a, p.Denied)] == [Code.SESSION_EXPIRED]
    assert not node.engine._homes.by_session
    assert not list(node.engine._reception._volatile.machine.queues())


def test_a_session_that_moved_on_meanwhile_is_not_at_home_here_any_more() -> None:
    node = LoneNode(CONFIG)
    session = welcome(node.say(hello(0))).session
    zero = node.engine.shards[0].machine
    record = zero.registry.get(session)
    assert record is not None
    with_it = zero.snapshot()
    zero.restore(with_it.replace(b"\xa2n1", b"\xa2n9"))
    node.engine._learner.restored()
    node.engine.client_frames()
    assert session not in node.engine._homes.by_session
    assert CLIENT not in node.engine._homes.by_identity
