"""Links between the nodes of one group, as bad as Raft must bear: in no order, twice, or never.

    lost, doubled        each message by chance
    late                 each message has its own delay, so one may overtake another
    blocked              dropped when sent or when it would arrive
    clogged              waits until it is over

Of two troubles of one kind the later end counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from raftlog.messages import Message, SnapshotRequest
from tests.simulation.world import World

CALM_MS = (0.2, 2.0)
FOR_EVER = float("inf")

Link = tuple[int, int]


class Links:
    """Carries messages to `deliver`. `snapshot_ms`: how much longer a snapshot takes, at most."""

    def __init__(
        self, world: World, deliver: Callable[[Message], None], snapshot_ms: float = 50.0
    ) -> None:
        self.lost = self.doubled = self.carried = 0
        self._world, self._deliver = world, deliver
        self._chance = world.chance("links")
        self._snapshot_ms = snapshot_ms
        self._blocked: dict[Link, float] = {}  #: until when
        self._clogged: dict[Link, float] = {}
        self._loss, self._loss_until = 0.0, 0.0
        self._doubling, self._doubling_until = 0.0, 0.0
        self._late_ms, self._late_until = CALM_MS, 0.0

    def send(self, message: Message) -> None:
        """Deliver it, perhaps."""
        now, link = self._world.now, (message.sender, message.target)
        if link in self._blocked and self._blocked[link] > now:
            self.lost += 1
            return
        if now < self._loss_until and self._chance.random() < self._loss:
            self.lost += 1
            return
        self._carry(message, link, now)
        if now < self._doubling_until and self._chance.random() < self._doubling:
            self.doubled += 1
            self._carry(message, link, now)

    def _carry(self, message: Message, link: Link, now: float) -> None:
        low, high = self._late_ms if now < self._late_until else CALM_MS
        delay = low + (high - low) * self._chance.random()
        if type(message) is SnapshotRequest:
            delay += self._snapshot_ms * self._chance.random()
        arrival = now + delay
        if link in self._clogged:
            arrival = max(arrival, self._clogged[link])

        def arrive() -> None:
            if link in self._blocked and self._blocked[link] > arrival:
                self.lost += 1
            else:
                self.carried += 1
                self._deliver(message)

        self._world.at(arrival, arrive)

    # --- troubles -------------------------------------------------------------------------

    def block(self, links: Iterable[Link], for_ms: float = FOR_EVER) -> None:
        """These links, in this direction, drop everything."""
        until = self._world.now + for_ms
        for link in links:
            self._blocked[link] = max(until, self._blocked.get(link, 0.0))

    def clog(self, link: Link, for_ms: float) -> None:
        """What is sent on this link waits until it is over."""
        until = self._world.now + for_ms
        self._clogged[link] = max(until, self._clogged.get(link, 0.0))

    def lose(self, share: float, for_ms: float) -> None:
        """Each message is lost with this probability."""
        self._loss, self._loss_until = share, self._world.now + for_ms

    def double(self, share: float, for_ms: float) -> None:
        """Each message comes twice with this probability."""
        self._doubling, self._doubling_until = share, self._world.now + for_ms

    def delay(self, low_ms: float, high_ms: float, for_ms: float) -> None:
        """Each message takes a time between these."""
        self._late_ms, self._late_until = (low_ms, high_ms), self._world.now + for_ms

    def heal(self) -> None:
        """All links work again."""
        self._blocked.clear()
        self._clogged.clear()
        self._loss_until = self._doubling_until = self._late_until = 0.0
