"""What a node answers its clients: one engine, a cluster of its own, in virtual time."""

from __future__ import annotations

import random
from functools import partial

import msgspec
import pytest

from broker import groups
from broker import protocol as p
from broker.config import Config, raft_id
from broker.engine import Engine
from broker.groups import founding_limits
from broker.homes import HELD_PER_SECOND
from broker.machines.limits import Limits, values_of
from raftlog.memory_store import MemoryStore

CLIENT = b"client"
TURNS_MAX = 100
TICKS_MAX = 200


class LoneNode:
    """An engine with its disk, driven turn by turn; `say` gives the answers of one client."""

    def __init__(self, config: Config, disk: MemoryStore | None = None) -> None:
        """disk: of a node that ran before."""
        me = [raft_id(config.node_id)]
        self.disk = disk or MemoryStore(dict.fromkeys(range(config.shards), me))
        self.engine = Engine(config, boot=1, now_ms=0, store=self.disk, random=random.Random(1))
        self.now_ms = 0
        while not self.engine.readiness()[0]:
            assert self.now_ms < TICKS_MAX * config.tick_ms, self.engine.readiness()
            self.now_ms += config.tick_ms
            self.engine.tick(self.now_ms)
            self.turns()

    def turns(self, client: bytes = CLIENT) -> list[p.AnyAnswer]:
        """Everything there is to do; what a client is told meanwhile."""
        told = self._told(client)
        for _ in range(TURNS_MAX):
            if not self.engine.has_work():
                return told
            self.disk.write(self.engine.begin(self.now_ms))
            self.engine.end()
            told += self._told(client)
        raise AssertionError("work without an end")

    def _told(self, client: bytes) -> list[p.AnyAnswer]:
        return [
            answer
            for identity, frame in self.engine.client_frames()
            if identity == client
            for answer in p.decode_answers(frame)
        ]

    def say(self, *operations: p.AnyOperation) -> list[p.AnyAnswer]:
        self.engine.client_frame(CLIENT, p.encode_operations(1, list(operations)))
        return self.turns()


def hello(grace_ms: int) -> p.Hello:
    return p.Hello(p.VERSION, 0, b"a secret token!!", "/", "guest", {}, grace_ms, {})


@pytest.mark.parametrize(
    ("wished", "granted"), [(0, 7000), (-1, 7000), (1, 1), (8000, 8000), (60_000, 9000)]
)
def test_a_wished_grace_is_granted_up_to_the_limit_and_none_is_the_nodes_own(
    wished: int, granted: int
) -> None:
    node = LoneNode(Config(grace_ms=7000, grace_ms_max=9000, shards=2))
    (welcome,) = [a for a in node.say(hello(wished)) if isinstance(a, p.Welcome)]
    assert welcome.grace_ms == granted


@pytest.mark.parametrize("full", [0, 1])
def test_a_publish_that_one_of_its_queues_refuses_is_not_confirmed(
    monkeypatch: pytest.MonkeyPatch, full: int
) -> None:
    """Whichever shard answers last: the queue that took it does not speak for the other."""
    monkeypatch.setattr(groups, "Limits", partial(Limits, ready_per_queue_max=1))
    node = LoneNode(Config())
    node.say(hello(0))
    names = [f"q{number}" for number in range(8)]
    node.say(*(p.DeclareQueue(1 + n, name) for n, name in enumerate(names)))
    shards = {status.name: status.shard for status in node.engine.status().queues}
    first, second = min(names, key=shards.__getitem__), max(names, key=shards.__getitem__)
    assert shards[first] < shards[second]
    node.say(*(p.BindQueue(20 + n, q, "amq.fanout", "") for n, q in enumerate((first, second))))

    target = (first, second)[full]
    assert p.Confirmed((30,)) in node.say(p.Publish(30, "", target, True, 0, None, b"1"))
    answers = node.say(p.Publish(31, "amq.fanout", "", False, 0, None, b"2"))
    assert [a.code for a in answers if isinstance(a, p.RefusedAnswer) and a.seq == 31] == [506]
    assert not any(isinstance(a, p.Confirmed) and 31 in a.seqs for a in answers)


def test_when_too_much_waits_publishes_are_refused_and_settlements_are_not() -> None:
    """A client counts a refused settlement as done: the message would stay checked out."""
    config = Config(
        unconfirmed_bytes_max=1 << 20, body_bytes_max=1 << 18, header_bytes_max=1 << 12, shards=2
    )
    node = LoneNode(config)
    node.say(hello(0))
    node.say(p.DeclareQueue(1, "q"))
    node.say(p.Consume(2, 1, "q", 1))
    (delivery,) = [
        answer
        for answer in node.say(p.Publish(3, "", "q", False, 0, None, b"a"))
        if isinstance(answer, p.Delivery)
    ]
    body = b"x" * (1 << 18)
    flood = [p.Publish(10 + n, "", "q", False, 0, None, body) for n in range(7)]
    settle = p.SettleMessages(20, delivery.shard, delivery.queue, 0, (delivery.id,))
    answers = node.say(*flood, settle)
    refused = [a.seq for a in answers if isinstance(a, p.RefusedAnswer)]
    assert refused == [14, 15, 16]
    confirmed = {seq for a in answers if isinstance(a, p.Confirmed) for seq in a.seqs}
    assert {10, 11, 12, 13, 20} <= confirmed


def test_who_floods_a_shard_is_refused_before_others_are() -> None:
    config = Config(session_bytes_max=1 << 20, shards=2)
    node = LoneNode(config)
    node.say(hello(0))
    node.say(p.DeclareQueue(1, "q"))
    other = p.encode_operations(1, [msgspec.structs.replace(hello(0), token=b"another secret!!")])
    node.engine.client_frame(b"calm", other)
    node.turns()
    body = b"x" * (1 << 18)
    flood = [p.Publish(10 + n, "", "q", False, 0, None, body) for n in range(7)]
    node.engine.client_frame(CLIENT, p.encode_operations(1, [*flood]))
    calm = [p.Publish(1, "", "q", False, 0, None, body)]
    node.engine.client_frame(b"calm", p.encode_operations(1, [*calm]))
    told = node.turns(b"calm")
    assert p.Confirmed((1,)) in told
    assert not any(isinstance(a, p.RefusedAnswer) for a in told)
    (shard,) = [s for s in node.engine.status().queues if s.name == "q"]
    assert shard.ready == 5  # 14, 15 and 16 came when more than the limit was waiting


def test_a_flood_of_held_is_not_a_flood_of_deliveries() -> None:
    node = LoneNode(Config(shards=2))
    node.say(hello(0))
    node.say(p.DeclareQueue(1, "q"))
    node.say(p.Consume(2, 1, "q", 1), p.Publish(3, "", "q", False, 0, None, b"a"))
    floods = [p.Held(10 + n, 1, ()) for n in range(100)]
    again = [a for a in node.say(*floods) if isinstance(a, p.Delivery)]
    assert len(again) == HELD_PER_SECOND
    node.engine.tick(node.now_ms + 1000)
    assert any(isinstance(a, p.Delivery) for a in node.say(p.Held(200, 1, ())))


def test_a_founding_nodes_limits_are_every_shards_and_an_operator_changes_them() -> None:
    node = LoneNode(Config(queues_max=2, consumers_per_session_max=3, shards=3))
    node.say(hello(0))

    def limits() -> set[Limits]:
        assert all(shard.machine.limits_index for shard in node.engine.shards.values())
        return {shard.machine.limits for shard in node.engine.shards.values()}

    founded = founding_limits(Config(queues_max=2, consumers_per_session_max=3))
    assert limits() == {founded}
    assert node.engine.change_limits({"queues_max": 3, "consumers_per_session_max": 1}) == ""
    node.turns()
    (changed,) = limits()
    assert (changed.queues_max, changed.consumers_per_session_max) == (3, 1)
    assert node.engine.limits() == values_of(changed)
    assert "queues_min" in node.engine.change_limits({"queues_min": 3})


def test_a_started_cluster_keeps_its_limits_whatever_a_node_is_set_up_with() -> None:
    first = LoneNode(Config(queues_max=2, shards=2))
    again = LoneNode(Config(queues_max=5, shards=2), first.disk)
    assert again.engine.limits()["queues_max"] == 2
