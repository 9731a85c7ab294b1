"""One queue: what is ready, what is checked out to whom, and who is next to be served.

                 put                     deliver, fetch
    (nothing) ---------> READY ------------------------------> CHECKED OUT ---> (nothing)
                           ^                                        |   ack, drop
                           +----------------------------------------+
                              requeue, release, end of the session

    ready         a lane per priority of packed ids; nothing else is kept of a message that
                  was never delivered
    counts        of the messages that came back: how often they have been delivered
    checked_out   message id -> the consumer that holds it (which knows the count)
    rotation      the consumers with room in their windows; the first is served next, one
                  that gets room joins at the end

Between two commands either nothing is ready or nobody is in the rotation.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from broker.machines.commands import Arguments, Outcome, QueueFlag
from broker.machines.consumer import (
    FETCHED,
    PRIORITY_BITS,
    PRIORITY_MASK,
    Consumer,
    ConsumerState,
    consumer_from,
    consumer_state,
)
from broker.machines.effects import Deliver, Effect
from broker.machines.lane import Lane, lane_from

PRIORITY_MAX = 9
_REQUEUE, _RELEASE = int(Outcome.REQUEUE), int(Outcome.RELEASE)


def _lanes() -> list[Lane | None]:
    return [None] * (PRIORITY_MAX + 1)


@dataclass(slots=True, eq=False)
class Queue:
    id: int
    flags: int
    arguments: Arguments | None
    consumers: dict[tuple[int, int], Consumer] = field(default_factory=dict)
    """By (session, consumer). An exclusive one is the only one."""
    checked_out: dict[int, Consumer] = field(default_factory=dict)
    rotation: deque[Consumer] = field(default_factory=deque)
    counts: dict[int, int] = field(default_factory=dict)
    """Exactly the ids that stand in some lane's `returned`."""
    lanes: list[Lane | None] = field(default_factory=_lanes)  #: made when first used
    filled: int = 0  #: bit p is set when lane p is not empty
    used: bool = False  #: it has had a consumer; without one it may then be deleted

    # --- messages -------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """The number of messages that wait."""
        if not self.filled:
            return 0
        return sum(len(lane) for lane in self.lanes if lane is not None)

    def put(self, id: int, priority: int, effects: list[Effect]) -> None:
        """A new message, which goes to a consumer at once when one has room."""
        if self.rotation:
            assert not self.filled
            self._hand_over(id, priority, 1, effects)
            return
        self._lane(priority).ids.append(id)
        self.filled |= 1 << priority

    def deliver(self, effects: list[Effect]) -> None:
        """Serve the rotation as long as there is something to serve."""
        while self.filled and self.rotation:
            id, priority = self._take()
            self._hand_over(id, priority, self.counts.pop(id, 0) + 1, effects)

    def fetch(self, hand: Consumer) -> tuple[int, int] | None:
        """Check the first message out to this hand: (id, count), or None when all is empty."""
        if not self.filled:
            return None
        id, priority = self._take()
        count = self.counts.pop(id, 0) + 1
        hand.held[id] = count << PRIORITY_BITS | priority
        self.checked_out[id] = hand
        return id, count

    def settle(self, session: int, outcome: int, ids: Iterable[int]) -> None:
        """Settle those of the messages that this session holds. Deliver afterwards."""
        checked_out = self.checked_out
        for id in ids:
            consumer = checked_out.get(id)
            if consumer is None or consumer.session != session:
                continue
            del checked_out[id]
            held = consumer.held
            packed = held.pop(id)
            if not consumer.waiting and len(held) < consumer.window:
                consumer.waiting = True
                self.rotation.append(consumer)
            if outcome == _REQUEUE:
                self._put_back(id, packed & PRIORITY_MASK, packed >> PRIORITY_BITS)
            elif outcome == _RELEASE:
                self._put_back(id, packed & PRIORITY_MASK, (packed >> PRIORITY_BITS) - 1)

    def purge(self) -> int:
        """Remove what is ready, and say how much it was."""
        count = self.ready
        self.lanes, self.filled = _lanes(), 0
        self.counts.clear()
        return count

    def holds(self, id: int) -> bool:
        """Is this message here, ready or checked out?"""
        return (
            id in self.checked_out
            or id in self.counts
            or any(lane.holds_new(id) for lane in self.lanes if lane is not None)
        )

    def messages(self) -> Iterator[int]:
        """The ids of all messages here, in no particular order."""
        yield from self.checked_out
        for lane in self.lanes:
            if lane is not None:
                yield from lane

    def between(self, low: int, high: int, found: list[array[int]]) -> None:
        """Add the ids of [low, high] that are here to `found`, in ascending parts."""
        parts = (lane.new_between(low, high) for lane in self.lanes if lane is not None)
        found.extend(part for part in parts if part)
        if out := self._been_out(low, high):
            found.append(array("Q", sorted(out)))

    def count_between(self, low: int, high: int) -> int:
        """How many messages of [low, high] are here."""
        new = sum(lane.count_new_between(low, high) for lane in self.lanes if lane is not None)
        return new + len(self._been_out(low, high))

    def _been_out(self, low: int, high: int) -> list[int]:
        """Those that are, or were, checked out: they have left the lanes' packed order."""
        if not self.checked_out and not self.counts:
            return []
        return [id for each in (self.checked_out, self.counts) for id in each if low <= id <= high]

    def _lane(self, priority: int) -> Lane:
        lane = self.lanes[priority]
        if lane is None:
            lane = self.lanes[priority] = Lane()
        return lane

    def _take(self) -> tuple[int, int]:
        priority = self.filled.bit_length() - 1
        lane = self._lane(priority)
        id = lane.take()
        if not lane.returned and lane.head == len(lane.ids):
            self.filled ^= 1 << priority
        return id, priority

    def _put_back(self, id: int, priority: int, count: int) -> None:
        self._lane(priority).put_back(id)
        self.filled |= 1 << priority
        self.counts[id] = count

    def _hand_over(self, id: int, priority: int, count: int, effects: list[Effect]) -> None:
        consumer = self.rotation.popleft()
        held = consumer.held
        held[id] = count << PRIORITY_BITS | priority
        self.checked_out[id] = consumer
        effects.append(Deliver(consumer.session, consumer.id, self.id, id, count))
        if len(held) < consumer.window:
            self.rotation.append(consumer)
        else:
            consumer.waiting = False

    # --- consumers ------------------------------------------------------------------------

    @property
    def auto_delete(self) -> bool:
        return bool(self.flags & QueueFlag.AUTO_DELETE)

    @property
    def taken(self) -> bool:
        """There is an exclusive consumer."""
        for first in self.consumers.values():
            return first.exclusive  # if it is, it is the only one
        return False

    def add(self, consumer: Consumer) -> None:
        """Deliver afterwards."""
        key = (consumer.session, consumer.id)
        assert key not in self.consumers
        assert not self.taken and not (consumer.exclusive and self.consumers)
        self.consumers[key] = consumer
        self.set_window(consumer, consumer.window)

    def set_window(self, consumer: Consumer, window: int) -> None:
        """Deliver afterwards. What a consumer holds beyond its window stays with it."""
        consumer.window = window
        free = len(consumer.held) < window
        if free and not consumer.waiting:
            self.rotation.append(consumer)
        elif consumer.waiting and not free:
            self.rotation.remove(consumer)
        consumer.waiting = free

    def remove(self, consumer: Consumer) -> None:
        """It is served no more; what it holds stays checked out to it."""
        del self.consumers[consumer.session, consumer.id]
        self.set_window(consumer, 0)

    def take_back(self, holder: Consumer) -> None:
        """All that it holds returns to its place, counted as delivered. Deliver afterwards."""
        assert holder.window == 0
        for id, packed in holder.held.items():
            del self.checked_out[id]
            self._put_back(id, packed & PRIORITY_MASK, packed >> PRIORITY_BITS)
        holder.held.clear()

    def keepers(self) -> list[Consumer]:
        """Those that hold messages without being consumers (any more), by session and id."""
        if sum(len(consumer.held) for consumer in self.consumers.values()) == len(self.checked_out):
            return []  # without going over a million checkouts
        seen = dict.fromkeys(self.checked_out.values())
        found = [holder for holder in seen if (holder.session, holder.id) not in self.consumers]
        return sorted(found, key=lambda holder: (holder.session, holder.id))

    def check(self) -> None:
        """Assert what must hold between two commands. Costs as much as the queue is long."""
        assert not (self.filled and self.rotation)
        returned: list[int] = []
        for priority, lane in enumerate(self.lanes):
            assert bool(lane) == bool(self.filled >> priority & 1)
            if lane is not None:
                returned += lane.returned
        assert sorted(returned) == sorted(self.counts)
        for id, holder in self.checked_out.items():
            assert id in holder.held and id not in self.counts
        holders = [*self.consumers.values(), *self.keepers()]
        assert sum(len(holder.held) for holder in holders) == len(self.checked_out)
        for holder in holders:
            assert holder.waiting == (len(holder.held) < holder.window)
            assert holder.waiting == (holder in self.rotation)
            assert holder.id != FETCHED or holder.window == 0


class LaneState(msgspec.Struct, frozen=True, array_like=True):
    priority: int
    packed: bytes
    returned: list[tuple[int, int]]  #: (id, count), in id order


class QueueState(msgspec.Struct, frozen=True, array_like=True):
    """A queue as a checkpoint has it, without bodies."""

    id: int
    flags: int
    arguments: Arguments | None
    lanes: list[LaneState]
    consumers: list[ConsumerState]
    keepers: list[ConsumerState]
    rotation: list[tuple[int, int]]
    used: bool = False


def queue_state(queue: Queue) -> QueueState:
    """Equal for queues that behave alike, whatever their past."""
    return QueueState(
        id=queue.id,
        flags=queue.flags,
        arguments=queue.arguments,
        lanes=[
            LaneState(
                priority, lane.packed(), [(id, queue.counts[id]) for id in sorted(lane.returned)]
            )
            for priority, lane in enumerate(queue.lanes)
            if lane
        ],
        consumers=[consumer_state(consumer) for consumer in queue.consumers.values()],
        keepers=[consumer_state(keeper) for keeper in queue.keepers()],
        rotation=[(consumer.session, consumer.id) for consumer in queue.rotation],
        used=queue.used,
    )


def queue_from(state: QueueState) -> tuple[Queue, list[Consumer]]:
    """The queue, and its keepers, which it knows only by what they hold."""
    queue = Queue(state.id, state.flags, state.arguments, used=state.used)
    for lane in state.lanes:
        queue.lanes[lane.priority] = lane_from(lane.packed, [id for id, _ in lane.returned])
        queue.filled |= 1 << lane.priority
        queue.counts.update(lane.returned)
    for each in state.consumers:
        queue.consumers[each.session, each.id] = consumer_from(each, queue.id)
    keepers = [consumer_from(each, queue.id) for each in state.keepers]
    for holder in (*queue.consumers.values(), *keepers):
        queue.checked_out.update(dict.fromkeys(holder.held, holder))
    for key in state.rotation:
        consumer = queue.consumers[key]
        consumer.waiting = True
        queue.rotation.append(consumer)
    return queue, keepers
