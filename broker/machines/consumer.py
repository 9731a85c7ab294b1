"""A consumer of a queue: a window, and the messages that it holds.

    in rotation  <=>  fewer messages held than the window is wide

One that is unsubscribed keeps what it holds, with a window of 0, until that is settled. So
does the hand that takes a session's fetched messages, which never was subscribed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import msgspec

from broker.machines.commands import Arguments

FETCHED = -1
"""The consumer id under which a session holds what it fetched (clients choose ids >= 0)."""

PRIORITY_BITS = 4
PRIORITY_MASK = (1 << PRIORITY_BITS) - 1

Held: TypeAlias = dict[int, int]
"""Message id -> how often delivered << PRIORITY_BITS | priority: one small int per message."""


@dataclass(slots=True, eq=False)  # compared by identity: a rotation is searched for the object
class Consumer:
    session: int
    id: int
    queue: int
    window: int
    exclusive: bool = False
    priority: int = 0  #: kept and shown; the rotation does not heed it
    arguments: Arguments | None = None
    held: Held = field(default_factory=dict)
    waiting: bool = False  #: it stands in its queue's rotation


class ConsumerState(msgspec.Struct, frozen=True, array_like=True):
    """A consumer as a checkpoint has it; its queue is the one that lists it."""

    session: int
    id: int
    window: int
    exclusive: bool
    priority: int
    arguments: Arguments | None
    held: list[int]  #: message ids, ascending ...
    counts: list[int]  #: ... and the values of `Held` to them: flat, for there may be a million


def consumer_state(consumer: Consumer) -> ConsumerState:
    held = sorted(consumer.held)
    if held == list(consumer.held):  # mostly, and far quicker
        counts = list(consumer.held.values())
    else:
        counts = [consumer.held[id] for id in held]
    return ConsumerState(
        session=consumer.session,
        id=consumer.id,
        window=consumer.window,
        exclusive=consumer.exclusive,
        priority=consumer.priority,
        arguments=consumer.arguments,
        held=held,
        counts=counts,
    )


def consumer_from(state: ConsumerState, queue: int) -> Consumer:
    return Consumer(
        session=state.session,
        id=state.id,
        queue=queue,
        window=state.window,
        exclusive=state.exclusive,
        priority=state.priority,
        arguments=state.arguments,
        held=dict(zip(state.held, state.counts, strict=True)),
    )
