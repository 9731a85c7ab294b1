"""Memory-only queues: what they hold of messages, and when they let go of it."""

from __future__ import annotations

from broker.machines.commands import Enqueue, Fetch, QueueCreate, Settle
from broker.machines.effects import Fetched
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.protocol import VOLATILE_SHARD
from broker.volatile import VolatileShard

QUEUE = 7
SESSION = 9


def volatile() -> VolatileShard:
    machine = Machine(shard=VOLATILE_SHARD, shards=2, limits=Limits(), place=lambda *name: 1)
    shard = VolatileShard(machine, messages_max=10)
    shard.apply(0, QueueCreate(QUEUE, 0, None))
    return shard


def enqueue(seq: int, floor: int = 1) -> Enqueue:
    return Enqueue(SESSION, seq, floor, (QUEUE,), "", "q", 0, None, b"body")


def bodies(shard: VolatileShard) -> int:
    return len(shard._bodies)


def test_a_repeat_leaves_no_body_behind() -> None:
    shard = volatile()
    for _ in range(50):
        shard.apply(0, enqueue(seq=1))
    assert bodies(shard) == 1
    shard.apply(0, enqueue(seq=2, floor=2))
    shard.apply(0, enqueue(seq=1, floor=2))  # below the floor: not done either
    assert bodies(shard) == 2


def test_a_body_stays_until_its_message_is_settled() -> None:
    shard = volatile()
    shard.apply(0, enqueue(seq=1))
    (fetched,) = shard.apply(0, Fetch(SESSION, 2, 1, QUEUE))
    assert isinstance(fetched, Fetched)
    assert shard.message(fetched.id).payload == b"body"
    shard.apply(0, Settle(SESSION, 3, 1, QUEUE, 0, (fetched.id,)))
    assert bodies(shard) == 0
