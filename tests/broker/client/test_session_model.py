"""A session core against real machines, over a network that loses what it can.

Whatever happens, a message comes into the application's hands once (again only after it was
requeued), never more than the prefetch is in its hands, and in the end everything has come.
Long runs from seeds: what goes wrong needs dozens of round trips to go wrong.
"""

from __future__ import annotations

import random

import pytest

from broker.machines.commands import Outcome
from tests.broker.client.model import Broker

STEPS = 400
WEIGHTS = {
    "publish": 12,
    "turn": 25,
    "apply": 25,
    "hear": 25,
    "events": 15,
    "ack": 10,
    "requeue": 5,
    "time": 3,
    "lose leader": 1,
    "lose commands": 1,
    "lose link": 1,
    "cancel": 1,
    "consume": 1,
    "prefetch": 1,
}


def step(broker: Broker, what: str, chance: random.Random) -> None:
    number = chance.randrange(len(broker.shards))
    amount = chance.choice((1, 2, 100))
    match what:
        case "publish":
            broker.publish(number)
        case "turn":
            broker.turn()
        case "apply":
            broker.shards[number].apply(amount)
        case "hear":
            broker.hear(number, amount)
        case "ack":
            broker.settle(chance.randrange(100), Outcome.ACK)
        case "requeue":
            broker.settle(chance.randrange(100), Outcome.REQUEUE)
        case "events":
            broker.take_events()
        case "time":
            broker.now_ms += 1000
        case "lose leader":
            broker.lose_leader(number)
        case "lose commands":
            broker.lose_commands(number)
        case "lose link":
            broker.lose_link()
        case "cancel":
            broker.cancel(chance.randrange(100))
        case "consume":
            broker.consume(number)
        case "prefetch":
            in_hand = len(broker.hands) + len(broker.core.events)
            broker.core.set_prefetch(broker.window, max(chance.randrange(1, 6), in_hand))
        case _:
            raise AssertionError(what)


@pytest.mark.parametrize("block", range(6))
def test_every_message_comes_once(block: int) -> None:
    for seed in range(block * 25, block * 25 + 25):
        run(seed)


def run(seed: int) -> None:
    chance = random.Random(seed)
    shards = chance.randrange(1, 4)
    broker = Broker(shards, prefetch=chance.randrange(1, 6))
    for number in range(shards):
        broker.consume(number)
    names, weights = list(WEIGHTS), list(WEIGHTS.values())
    try:
        for what in chance.choices(names, weights, k=STEPS):
            step(broker, what, chance)
        for number in range(shards):
            broker.consume(number)
        for _ in range(3 * broker.published + 60):
            broker.settle_down()
            broker.settle(0, Outcome.ACK)
        assert all(call.done and call.error is None for _, call in broker.confirmed)
        assert set(broker.seen) == {payload for payload, _ in broker.confirmed}
        for shard in broker.shards:
            assert shard.machine.counts(broker.uid(shard.number))[:2] == (0, 0)
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}") from error
