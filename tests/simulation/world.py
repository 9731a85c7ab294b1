"""Virtual time, a network and disks: everything that a cluster of engines stands on.

    World     an event queue in virtual milliseconds, one source of chance, a trace
    Disk      a node's groups; what was not written when it crashed is gone
    Network   FIFO links like TCP's, with latency, loss of whole frames, and partitions

One seed gives one history, to the last bit.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from raftlog.memory_store import MemoryStore


class World:
    """Time, chance and what happens next."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        self.now = 0.0  #: virtual milliseconds
        self.events = 0
        self.trace: list[str] = []
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def after(self, delay_ms: float, act: Callable[[], None]) -> None:
        """Have something happen later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now + delay_ms, self._count, act))

    def run_until(self, time_ms: float) -> None:
        """Let everything happen up to a moment."""
        while self._queue and self._queue[0][0] <= time_ms:
            self.now, _, act = heapq.heappop(self._queue)
            self.events += 1
            act()
        self.now = time_ms

    def note(self, text: str) -> None:
        """A line of the trace."""
        self.trace.append(f"{self.now:10.2f} {text}")


class Disk(MemoryStore):
    """What survives a crash of its node."""


@dataclass
class Faults:
    """How bad the network is just now."""

    loss: float = 0.0
    latency_ms: tuple[float, float] = (0.1, 1.0)
    blocked: set[tuple[str, str]] = field(default_factory=set)


class Network:
    """One-way FIFO links between named ends; a blocked or lossy link drops whole frames."""

    def __init__(self, world: World) -> None:
        self.faults = Faults()
        self.lost = 0
        self.carried = 0
        self._world = world
        self._arrival: dict[tuple[str, str], float] = {}

    def send(
        self,
        source: str,
        target: str,
        deliver: Callable[[], None],
        cut: Callable[[], None] | None = None,
    ) -> None:
        """Deliver after a while, unless the link says otherwise now or then.

        Between nodes whole frames are lost, as when a socket that is not connected drops them.
        A client's link is one TCP connection: it loses nothing, or it is `cut`.
        """
        world, faults = self._world, self.faults
        link = (source, target)
        if link in faults.blocked or (faults.loss and world.random.random() < faults.loss):
            self.lost += 1
            if cut is not None:
                cut()
            return
        arrival = world.now + world.random.uniform(*faults.latency_ms)
        arrival = max(arrival, self._arrival.get(link, 0.0) + 1e-6)
        self._arrival[link] = arrival

        def arrive() -> None:
            if link in faults.blocked:
                self.lost += 1
            else:
                self.carried += 1
                deliver()

        world.after(arrival - world.now, arrive)

    def partition(self, *sides: set[str]) -> None:
        """Cut every link between different sides."""
        self.faults.blocked = {
            (a, b)
            for i, side in enumerate(sides)
            for j, other in enumerate(sides)
            if i != j
            for a in side
            for b in other
        }

    def heal(self) -> None:
        """All links work again."""
        self.faults.blocked = set()
