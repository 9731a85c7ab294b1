"""Commands that wait to be proposed to a shard: each session's in its order, sessions by turns.

    upkeep     the broker's own, before everything else, in order
    turns      session -> its commands, in order
               +-> first: takes its share of an entry, goes to the end if it has more
               |   ...
               +-- last

So a session waits for its own commands and for a share of each other session's, however much
those have sent. One whose next command waits for this node's copy of the topology is passed
over. Session 0, the nodes themselves, is one among the others.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

SHARE_BYTES: Final = 64 << 10
"""Of an entry, for one session at a time."""
COMMAND_BYTES: Final = 256
"""What each command counts for at least: many small ones cost as much as few large ones."""
_UPKEEP: Final = -1


class Waiting(NamedTuple):
    """A command in an inbox."""

    topology: int  #: applied index of shard 0 that must be reached first
    session: int
    command: bytes


@dataclass(slots=True)
class _Lane:
    waiting: deque[Waiting] = field(default_factory=deque)
    size: int = 0  #: bytes of its commands


@dataclass(slots=True)
class Inbox:
    """What waits at one shard, and how much it weighs."""

    size: int = 0  #: bytes of all that waits
    _upkeep: deque[Waiting] = field(default_factory=deque)
    _lanes: dict[int, _Lane] = field(default_factory=dict)
    _turns: deque[int] = field(default_factory=deque)
    """The sessions that have something waiting, each once, the next one first."""

    def __bool__(self) -> bool:
        """Whether anything waits."""
        return bool(self._upkeep or self._turns)

    def size_of(self, session: int) -> int:
        """Bytes that wait of one session."""
        lane = self._lanes.get(session)
        return lane.size if lane is not None else 0

    def add(self, session: int, command: bytes, topology: int) -> None:
        """Behind everything else of this session."""
        lane = self._lanes.get(session)
        if lane is None:
            lane = self._lanes[session] = _Lane()
            self._turns.append(session)
        lane.waiting.append(Waiting(topology, session, command))
        lane.size += len(command)
        self.size += len(command)

    def add_first(self, command: bytes) -> None:
        """The broker's own upkeep goes before what clients ask."""
        self._upkeep.append(Waiting(0, _UPKEEP, command))
        self.size += len(command)

    def is_due(self, topology: int) -> bool:
        """Whether something may be proposed at this applied index of shard 0."""
        if self._upkeep:
            return True
        lanes = self._lanes
        return any(lanes[session].waiting[0].topology <= topology for session in self._turns)

    def take(
        self, topology: int, is_open: Callable[[int], bool], bytes_max: int, commands_max: int
    ) -> list[Waiting]:
        """The next entry's commands, without those of sessions that are over; one always fits."""
        taken: list[Waiting] = []
        size = 0
        while self._upkeep and len(taken) < commands_max:
            if taken and size + len(self._upkeep[0].command) > bytes_max:
                break
            taken.append(self._upkeep.popleft())
            size += len(taken[-1].command)
        turns, lanes, passed_over = self._turns, self._lanes, []
        total, full = size, False
        while turns and not full:
            session = turns[0]
            lane = lanes[session]
            waiting = lane.waiting
            if waiting[0].topology > topology:
                passed_over.append(turns.popleft())
                continue
            if session and not is_open(session):
                self._forget(session)
                continue
            share, weight = SHARE_BYTES, 0
            while waiting and waiting[0].topology <= topology and share > 0:
                length = len(waiting[0].command)
                if len(taken) >= commands_max or (taken and total + length > bytes_max):
                    full = True
                    break
                taken.append(waiting.popleft())
                weight += length
                total += length
                share -= max(length, COMMAND_BYTES)
            lane.size -= weight
            size += weight
            if not waiting:
                del lanes[turns.popleft()]
            elif weight:
                turns.rotate(-1)
        turns.extend(passed_over)
        self.size -= size
        return taken

    def put_back(self, taken: list[Waiting]) -> None:
        """They could not be proposed now: they are the next again."""
        turns = dict.fromkeys(item.session for item in taken if item.session != _UPKEEP)
        for item in reversed(taken):
            self.size += len(item.command)
            if item.session == _UPKEEP:
                self._upkeep.appendleft(item)
                continue
            lane = self._lanes.setdefault(item.session, _Lane())
            lane.waiting.appendleft(item)
            lane.size += len(item.command)
        self._turns = deque([*turns, *(each for each in self._turns if each not in turns)])

    def clear(self) -> None:
        """Forget everything: clients repeat it."""
        self.size = 0
        self._upkeep.clear()
        self._lanes.clear()
        self._turns.clear()

    def _forget(self, session: int) -> None:
        """What waits of the session whose turn it is."""
        self._turns.popleft()
        self.size -= self._lanes.pop(session).size
