"""Virtual time, chance and the trace: what every simulation stands on.

One seed gives one history, to the last bit. Each part draws from a stream of chance of its own,
so that a fault left out changes as little as possible of all the rest.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from random import Random

TRACE_LINES = 5000


class World:
    """An event queue in virtual milliseconds."""

    def __init__(self, seed: int, tell: Callable[[str], None] | None = None) -> None:
        """`tell` is given every line of the trace, the small ones too."""
        self.seed = seed
        self.now = 0.0  #: virtual milliseconds
        self.events = 0
        self.trace: deque[str] = deque(maxlen=TRACE_LINES)
        self.tracing = tell is not None
        self._tell = tell
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def chance(self, name: str) -> Random:
        """A stream of chance for one part: the same for this seed and name."""
        return Random(f"{self.seed}/{name}")

    def after(self, delay_ms: float, act: Callable[[], None]) -> None:
        """Have something happen later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._count, act))

    def at(self, time_ms: float, act: Callable[[], None]) -> None:
        """Have something happen at a moment that is not past."""
        self._count += 1
        heapq.heappush(self._queue, (max(time_ms, self.now), self._count, act))

    def run_until(self, time_ms: float) -> None:
        """Let everything happen up to a moment."""
        queue, pop = self._queue, heapq.heappop
        while queue and queue[0][0] <= time_ms:
            self.now, _, act = pop(queue)
            self.events += 1
            act()
        self.now = time_ms

    def note(self, text: str) -> None:
        """A line of the trace that is always kept."""
        line = f"{self.now:11.2f} {text}"
        self.trace.append(line)
        if self._tell is not None:
            self._tell(line)

    def detail(self, text: str) -> None:
        """A line that is only told; ask `tracing` before making it."""
        if self._tell is not None:
            self._tell(f"{self.now:11.2f}   {text}")
