"""What one shard knows of a session: the operations it has done, and its consumers.

    seq   ... 4  5  6 | 7  8  9  10  11
          forgotten   | floor: the lowest that the client still waits for
          no answer   | done: the same answer again      not done: do it

The client repeats an operation until it is answered; here it is done once. What is done is
remembered until the client's floor has passed it, and the floor comes with every command.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec

from broker.machines.consumer import Consumer
from broker.machines.effects import Confirm, Fetched, Refuse, Reply

Answer: TypeAlias = Reply | Refuse | Fetched
"""An answer worth keeping; None stands for a `Confirm`."""

NEW = object()
"""What `Session.recall` says of an operation that has not been done."""


@dataclass(slots=True)
class Session:
    id: int
    floor: int = 0
    done: dict[int, Answer | None] = field(default_factory=dict)
    order: deque[int] = field(default_factory=deque)
    """The keys of `done` as they came: popping a dict at its front gets slow, a deque does not."""
    consumers: dict[int, Consumer] = field(default_factory=dict)
    keepers: dict[tuple[int, int], Consumer] = field(default_factory=dict)
    """By (queue, consumer id): who holds messages without being a consumer (any more)."""

    def advance(self, floor: int) -> None:
        """Forget what is below the floor. A floor never goes back."""
        if floor <= self.floor:
            return
        self.floor = floor
        done, order = self.done, self.order
        # An early seq that came late hides behind later ones until they go: no harm, the
        # floor is asked first.
        while order and order[0] < floor:
            del done[order.popleft()]

    def remember(self, seq: int, answer: Answer | None) -> None:
        self.done[seq] = answer
        self.order.append(seq)

    def release_keepers(self) -> None:
        """Forget the keepers that keep nothing any more."""
        for key in [key for key, keeper in self.keepers.items() if not keeper.held]:
            del self.keepers[key]


class SessionState(msgspec.Struct, frozen=True, array_like=True):
    """A session as a checkpoint has it. Its consumers are in the states of their queues."""

    id: int
    floor: int
    done: list[int]  #: seqs, as they came: flat, for all sessions may remember very many ...
    answers: list[tuple[Any, ...]]  #: ... and (seq, kind, ...) where more was said than `Confirm`
    consumers: list[tuple[int, int]]  #: (queue, consumer)
    keepers: list[tuple[int, int]]


_REPLY, _REFUSE, _FETCHED = 1, 2, 3


def session_state(session: Session) -> SessionState:
    return SessionState(
        id=session.id,
        floor=session.floor,
        done=list(session.order),
        answers=[_pack(seq, answer) for seq, answer in session.done.items() if answer is not None],
        consumers=[(consumer.queue, consumer.id) for consumer in session.consumers.values()],
        keepers=list(session.keepers),
    )


def session_from(state: SessionState) -> Session:
    """The session without its consumers and keepers, for whoever has restored the queues."""
    session = Session(state.id, state.floor)
    for seq in state.done:
        session.remember(seq, None)
    for packed in state.answers:
        session.done[packed[0]] = _unpack(state.id, packed)
    return session


def again(session: Session, seq: int, answer: Answer | None) -> Answer | Confirm:
    """The remembered answer, as an effect."""
    return Confirm(session.id, seq) if answer is None else answer


def _pack(seq: int, answer: Answer) -> tuple[Any, ...]:
    match answer:
        case Reply():
            return (seq, _REPLY, answer.value)
        case Refuse():
            return (seq, _REFUSE, answer.code, answer.text)
        case Fetched():
            return (seq, _FETCHED, answer.queue, answer.id, answer.count, answer.ready)


def _unpack(session: int, packed: tuple[Any, ...]) -> Answer:
    match packed:
        case (seq, 1, value):
            # Replies are flat tuples or single values; the codec makes lists of tuples.
            return Reply(session, seq, tuple(value) if isinstance(value, list) else value)
        case (seq, 2, code, text):
            return Refuse(session, seq, code, text)
        case (seq, 3, queue, id, count, ready):
            return Fetched(session, seq, queue, id, count, ready)
    raise AssertionError(f"a remembered answer of no known kind: {packed!r}")
