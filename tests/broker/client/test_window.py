"""The channel window over shards that act late: never beyond the limit, never stuck.

The model: a shard per consumer with its own queue of ready messages. It knows the window it was
told last, and delivers as long as it has room. Commands to the shards and what they send back
travel in order but take as long as Hypothesis likes; shards are independent of each other.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.client.window import UNLIMITED, ChannelWindow, Seat


@dataclass
class Shard:
    seat: Seat
    window: int = 0
    ready: int = 0
    checked_out: int = 0
    to: deque[tuple[str, int]] = field(default_factory=deque)
    back: deque[tuple[str, int]] = field(default_factory=deque)
    refills: bool = False

    def apply(self) -> None:
        what, value = self.to.popleft()
        if what == "window":
            self.window = value
        elif what == "ack":
            self.checked_out -= value
        else:
            self.checked_out -= value
            self.ready += value
        self.back.append((what, value))
        self.deliver()

    def deliver(self) -> None:
        while self.ready and self.checked_out < self.window:
            self.ready -= 1
            self.checked_out += 1
            self.back.append(("delivery", 1))


class World:
    def __init__(self, limit: int, consumers: int) -> None:
        self.window = ChannelWindow(limit)
        self.shards: list[Shard] = []
        self.commands = 0
        self.served: list[int] = []
        for _ in range(consumers):
            self.join()

    def join(self) -> None:
        seat = self.window.join()
        shard = Shard(seat)
        shard.to.append(("window", seat.window))
        self.shards.append(shard)

    def hear(self, number: int, *, whole: bool = True) -> None:
        """The client reads what one shard sent."""
        shard = self.shards[number]
        released = 0
        for _ in range(len(shard.back) if whole else min(1, len(shard.back))):
            what, value = shard.back.popleft()
            if what == "delivery":
                if self.window.arrive(shard.seat):
                    self.served.append(number)
                else:
                    released += 1
                assert self.window.in_hand <= self.window.limit
            elif what == "ack":
                self.window.settle_confirmed(shard.seat, value)
            else:
                later = any(command == "window" for command, _ in shard.to)
                if not later and value == shard.seat.window:
                    self.window.window_confirmed(shard.seat)
        self.steer()
        if released:
            shard.to.append(("release", released))

    def settle(self, number: int) -> None:
        shard = self.shards[number]
        if shard.seat.held:
            self.window.settle(shard.seat)
            self.steer()
            shard.to.append(("ack", 1))

    def steer(self) -> None:
        for seat in self.window.steer():
            shard = next(shard for shard in self.shards if shard.seat is seat)
            shard.to.append(("window", seat.window))
            self.commands += 1

    def quiesce(self) -> None:
        """Everything under way arrives, with nobody settling or publishing."""
        for _ in range(10_000):
            busy = False
            for number, shard in enumerate(self.shards):
                while shard.to:
                    shard.apply()
                    busy = True
                if shard.back:
                    self.hear(number)
                    busy = True
            if not busy:
                return
        raise AssertionError("the steering does not come to rest")

    def check(self) -> None:
        assert self.window.in_hand == sum(shard.seat.held for shard in self.shards)
        if self.window.in_hand < self.window.limit:
            assert not any(shard.ready for shard in self.shards), "a place is free, and not used"


STEP = st.tuples(
    st.sampled_from(["publish", "apply", "hear", "hear one", "settle", "rest", "resize"]),
    st.integers(0, 5),
    st.integers(1, 8),
)


@settings(max_examples=300)
@given(st.integers(1, 9), st.integers(1, 5), st.lists(STEP, max_size=80))
def test_never_beyond_the_limit_and_never_stuck(
    limit: int, consumers: int, steps: list[tuple[str, int, int]]
) -> None:
    world = World(limit, consumers)
    for what, which, amount in steps:
        number = which % consumers
        shard = world.shards[number]
        if what == "publish":
            shard.ready += amount
            shard.deliver()
        elif what == "apply" and shard.to:
            shard.apply()
        elif what == "hear":
            world.hear(number)
        elif what == "hear one":
            world.hear(number, whole=False)
        elif what == "settle":
            world.settle(number)
        elif what == "rest":
            world.quiesce()
            world.check()
        elif what == "resize":
            world.window.resize(max(amount, world.window.in_hand))
            world.steer()
            for each in world.shards:
                each.to.append(("window", each.seat.window))
                each.seat.raising = True
    world.quiesce()
    world.check()
    total = sum(shard.ready for shard in world.shards)
    for _ in range(total + limit + 100):
        for number in range(consumers):
            world.settle(number)
        world.quiesce()
        world.check()
    assert not any(shard.ready or shard.checked_out for shard in world.shards)


def _run_loaded(limit: int, consumers: int, backlog: list[int], rounds: int) -> World:
    """The application settles its oldest message again and again; a round trip after each."""
    world = World(limit, consumers)
    for shard, ready in zip(world.shards, backlog, strict=True):
        shard.ready = ready
    world.quiesce()
    hand = deque(world.served)
    for _ in range(rounds):
        world.served.clear()
        world.settle(hand.popleft())
        world.quiesce()
        hand.extend(world.served)
    return world


def test_one_consumer_is_never_steered() -> None:
    world = _run_loaded(10, 1, [1000], 500)
    assert world.commands == 0
    assert world.window.bounces == 0


def test_one_busy_queue_among_idle_ones_uses_everything_and_costs_nothing() -> None:
    world = _run_loaded(8, 4, [1000, 0, 0, 0], 500)
    assert world.shards[0].seat.held == 8
    assert world.commands <= 4
    assert world.window.bounces == 0


def test_two_busy_queues_come_to_share_and_then_cost_nothing() -> None:
    world = _run_loaded(8, 2, [1000, 1000], 100)
    assert [shard.seat.held for shard in world.shards] == [4, 4]
    commands, bounces = world.commands, world.window.bounces
    world = _run_loaded(8, 2, [1000, 1000], 900)
    assert (world.commands, world.window.bounces) == (commands, bounces)


def test_a_late_queue_gets_its_share_from_one_with_a_backlog() -> None:
    world = _run_loaded(8, 2, [1000, 0], 50)
    assert world.shards[0].seat.held == 8
    late = world.shards[1]
    late.ready = 500
    late.deliver()
    world.quiesce()
    for _ in range(8):
        world.settle(0)
        world.quiesce()
    assert [shard.seat.held for shard in world.shards] == [4, 4]


def test_prefetch_one_takes_turns() -> None:
    world = _run_loaded(1, 3, [100, 100, 100], 60)
    left = [shard.ready for shard in world.shards]
    assert max(left) - min(left) <= 2, left
    assert world.commands <= 60 * 3


def test_a_queue_that_runs_dry_gives_its_places_up() -> None:
    world = _run_loaded(8, 2, [1000, 4], 50)
    assert [shard.seat.held for shard in world.shards] == [8, 0]


def test_a_long_task_in_a_small_share_does_not_shut_its_queue_out() -> None:
    world = World(2, 2)
    for shard in world.shards:
        shard.ready = 10
    world.quiesce()
    world.window.resize(3)  # as Celery does for a task that is to run later
    world.steer()
    world.quiesce()
    assert world.window.in_hand == 3


def test_what_a_cancelled_consumer_holds_counts_until_it_is_settled() -> None:
    world = World(2, 1)
    world.shards[0].ready = 2
    world.quiesce()
    first = world.shards[0]
    world.window.leave(first.seat)
    world.steer()
    world.join()
    second = world.shards[1]
    second.ready = 2
    world.quiesce()
    assert second.seat.held == 0
    for _ in range(2):
        world.settle(0)
        world.quiesce()
    assert second.seat.held == 2


def test_no_prefetch_means_a_large_one() -> None:
    window = ChannelWindow()
    assert window.resize(0) == []
    assert window.limit == UNLIMITED
    seat = window.join()
    assert seat.window == UNLIMITED
    assert window.resize(5) == [seat]
    assert seat.window == 5
    assert window.resize(7) == [seat]
    assert seat.window == 7


def test_a_full_channel_leaves_the_idle_no_more_than_their_share() -> None:
    world = _run_loaded(8, 4, [1000, 0, 0, 0], 1)
    assert [shard.window for shard in world.shards] == [8, 2, 2, 2]
