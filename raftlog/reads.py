"""Reads that wait for a leader to make sure that it still leads (thesis §6.4).

    add --> waiting for round n+1 --open_round--> heartbeats n+1 leave --majority--> answered

Rounds are numbered by the leader, from 1 in each term. All reads of a turn share one round,
and a reply to a later round confirms all earlier ones.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple


class PendingRead(NamedTuple):
    """A read: who asked, by what name, at which commit index, answered after which round."""

    requester: int
    context: bytes | int
    commit: int
    round: int


@dataclass(slots=True)
class ReadRounds:
    """A leader's reads. `round` is the last one whose heartbeats left."""

    round: int = 0
    wanted: bool = False  #: somebody waits for a round that has not begun
    waiting: deque[PendingRead] = field(default_factory=deque)
    #: who asked before the first commit of the term, when the commit index may be old
    postponed: list[tuple[int, bytes | int]] = field(default_factory=list)

    def count(self) -> int:
        return len(self.waiting) + len(self.postponed)

    def add(self, requester: int, context: bytes | int, index: int) -> None:
        """A read at this commit index waits for a round that begins after now."""
        self.waiting.append(PendingRead(requester, context, index, self.round + 1))
        self.wanted = True

    def postpone(self, requester: int, context: bytes | int) -> None:
        self.postponed.append((requester, context))

    def resume(self, index: int) -> None:
        """The first commit of the term is there: what was postponed begins now."""
        for requester, context in self.postponed:
            self.add(requester, context, index)
        self.postponed.clear()

    def open_round(self) -> None:
        if self.wanted:
            self.round += 1
            self.wanted = False

    def confirm(self, round: int) -> list[PendingRead]:
        """A majority answered this round: these reads are done."""
        done = []
        while self.waiting and self.waiting[0].round <= round:
            done.append(self.waiting.popleft())
        return done
