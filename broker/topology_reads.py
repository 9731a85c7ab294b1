"""Operations that wait for a read of the newest topology.

wait --> begin (a read of shard 0, for all that wait) --> granted at an index
             ^                                                |
             +-- again: nobody led, or the answer was lost    +--> served once that is applied
"""

from __future__ import annotations

from typing import TypeAlias

from broker.router import Routed
from broker.shard import Shard
from raftlog.errors import ReadRefused

Waiting: TypeAlias = tuple[int, Routed]
"""(session, operation)"""


class TopologyReads:
    """What the copy of shard 0 at hand could not answer."""

    def __init__(self, shard_zero: Shard) -> None:
        self._shard = shard_zero
        self._waiting: list[Waiting] = []
        self._begun: dict[int, list[Waiting]] = {}  # read context -> who waits
        self._granted: list[tuple[int, int]] = []  # (context, index to be applied)
        self._count = 0

    def __bool__(self) -> bool:
        """Whether there is something to begin or to serve."""
        return bool(self._waiting or self._granted)

    def wait(self, session: int, operation: Routed) -> None:
        """Behind the next read."""
        self._waiting.append((session, operation))

    def begin(self) -> None:
        """Ask for a read on behalf of all that wait."""
        if self._waiting:
            self._count += 1
            self._begun[self._count], self._waiting = self._waiting, []
            try:
                self._shard.raft.read_index(self._count)
            except ReadRefused:
                pass  # nobody leads: `again` is called before long

    def grant(self, context: object, index: int) -> None:
        """A read counts once this index is applied."""
        assert isinstance(context, int)
        self._granted.append((context, index))

    def served(self) -> list[Waiting]:
        """Those who may look now."""
        served: list[Waiting] = []
        later = []
        for context, index in self._granted:
            if index > self._shard.applied:
                later.append((context, index))
            else:
                served += self._begun.pop(context, ())
        self._granted = later
        return served

    def again(self) -> None:
        """Forget the reads begun: those who wait for them wait for the next."""
        waiting = [item for items in self._begun.values() for item in items]
        self._begun.clear()
        self._waiting = waiting + self._waiting
