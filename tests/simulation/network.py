"""One-way links between named ends, as TCP and ZeroMQ behave, and how they can be bad.

    blocked    frames are dropped, those under way too
    clogged    frames wait, and come all at once when it is over
    lossy      between nodes a whole frame may be lost; a client's link breaks instead
    reset      what was under way is lost, or comes after what is sent on the new connection

Each trouble has an end in virtual time; of two on one link the later end counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tests.simulation.world import World

CALM_MS = (0.1, 1.0)
FOR_EVER = float("inf")
LATE_MS = 300.0
"""How late a frame of an old connection may come after the new one's first."""

Link = tuple[str, str]


class Network:
    """In order on each link, unless a connection is made anew."""

    def __init__(self, world: World) -> None:
        self.lost = 0
        self.carried = 0
        self._world = world
        self._chance = world.chance("network")
        self._arrival: dict[tuple[Link, bool], float] = {}
        self._blocked: dict[Link, float] = {}  #: until when
        self._clogged: dict[Link, float] = {}
        self._resets: dict[Link, int] = {}
        self._loss, self._loss_until = 0.0, 0.0
        self._latency_ms, self._latency_until = CALM_MS, 0.0

    # --- carrying -------------------------------------------------------------------------

    def send(
        self,
        source: str,
        target: str,
        deliver: Callable[[], None],
        cut: Callable[[], None] | None = None,
        *,
        parts: bool = False,
    ) -> None:
        """Deliver after a while, unless the link says otherwise now or then.

        parts: over the second connection between two nodes, which has an order of its own.

        Between nodes whole frames are lost, as when a socket that is not connected drops them.
        A client's link is one TCP connection: it loses nothing, or it is `cut`.
        """
        world, link, now = self._world, (source, target), self._world.now
        if self._blocked.get(link, 0.0) > now or (
            now < self._loss_until and self._chance.random() < self._loss
        ):
            self.lost += 1
            if cut is not None:
                cut()
            return
        low, high = self._latency_ms if now < self._latency_until else CALM_MS
        arrival = max(
            now + low + (high - low) * self._chance.random(),
            self._arrival.get((link, parts), 0.0) + 1e-6,
            self._clogged.get(link, 0.0),
        )
        self._arrival[link, parts] = arrival
        connection = self._resets.get(link, 0)

        def arrive() -> None:
            if self._blocked.get(link, 0.0) > world.now:
                self.lost += 1
            elif self._resets.get(link, 0) != connection:
                self._came_late(deliver)
            else:
                self.carried += 1
                deliver()

        world.at(arrival, arrive)

    def _came_late(self, deliver: Callable[[], None]) -> None:
        """A frame of a connection that is no more."""
        if self._chance.random() < 0.5:
            self.lost += 1
        else:
            self.carried += 1
            self._world.after(self._chance.uniform(0, LATE_MS), deliver)

    # --- troubles -------------------------------------------------------------------------

    def block(self, links: Iterable[Link], for_ms: float) -> None:
        """These links, in this direction, drop everything."""
        until = self._world.now + for_ms
        for link in links:
            self._blocked[link] = max(until, self._blocked.get(link, 0.0))

    def clog(self, link: Link, for_ms: float) -> None:
        """What is sent on this link waits until it is over."""
        until = self._world.now + for_ms
        self._clogged[link] = max(until, self._clogged.get(link, 0.0))

    def reset(self, one: str, other: str) -> None:
        """The connections between two nodes are made anew, in both directions."""
        for link in ((one, other), (other, one)):
            self._resets[link] = self._resets.get(link, 0) + 1
            for parts in (False, True):
                self._arrival.pop((link, parts), None)

    def lose(self, share: float, for_ms: float) -> None:
        """Each frame is lost with this probability."""
        self._loss, self._loss_until = share, self._world.now + for_ms

    def slow(self, low_ms: float, high_ms: float, for_ms: float) -> None:
        """Latency is drawn between these."""
        self._latency_ms, self._latency_until = (low_ms, high_ms), self._world.now + for_ms

    def heal(self) -> None:
        """All links work again."""
        self._blocked.clear()
        self._clogged.clear()
        self._loss_until = self._latency_until = 0.0


def between(*sides: Iterable[str]) -> list[Link]:
    """Every link from one side to another."""
    return [
        (a, b)
        for i, side in enumerate(sides)
        for j, other in enumerate(sides)
        if i != j
        for a in side
        for b in other
    ]
