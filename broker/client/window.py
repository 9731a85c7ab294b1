"""One prefetch window for a channel, over shards that know only a window per consumer.

AMQP's prefetch is a limit on what the consumers of a channel hold together. Each consumer's
queue lives in a shard, and a shard knows nothing of the other consumers. So:

* Hard: a delivery that comes while `in_hand` is at `limit` is never handed over. It is
  released at once, which puts it back in its place, uncounted; a *bounce*.
* Soft: the consumers' windows are steered so that bounces are rare, and so that a free place
  never stays empty while some consumer's queue could fill it.

A consumer alone on its channel has the whole limit as its window, for ever: no steering. With
several, the client does not know whose queue has messages, so windows are overcommitted:

    join    the window of a new consumer is everything that is free, but at least 1
    full    when the channel fills up, the windows of the others are trimmed to their fair
            share (limit / consumers, at least 1), not to what they hold: were they shut, a
            queue with a long backlog would refill its places for ever and the others would
            never be heard of. The share is how they make themselves heard: by a bounce
    bounce  a consumer whose delivery bounced is shut (window = what it holds) before its
            message goes back, or it would be delivered again at once; it is *waiting* for a
            place. While any waits, the others are cut to limit / active consumers. Where that
            is 0 (more busy consumers than places: prefetch 1 on two queues) they are shut too
            and wait behind it, which makes them take turns
    raise   a place that is truly free goes to those that wait, first come first served, then
            to those at the end of their window, those who hold least first

*Truly free* is the hysteresis: a place that a consumer has just settled is reserved for that
consumer until the broker has confirmed the settlement, because its own queue usually refills
it in the same frame; a window that was raised is reserved until that is confirmed. So two
queues with backlogs come to rest at limit/2 each, with no steering at all per message, and
one that runs dry gives its places to the other after one round trip. With nothing under way,
every free place is truly free and `steer` leaves no consumer shut: nothing starves.

Never more than `limit` in the application's hands holds by construction, whatever the
shards do (they may act on an old window for a while).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

UNLIMITED = 10_000
"""Prefetch 0 means no limit in AMQP; the inbox of a client has one."""


@dataclass(slots=True, eq=False)
class Seat:
    """A consumer's part in its channel's window."""

    window: int  #: what its shard has been told, or is being told
    held: int = 0  #: handed to the application, not settled
    settling: int = 0  #: settled, not confirmed by the broker
    raising: bool = True  #: its window was raised, and the broker has not confirmed that
    waiting: bool = False  #: shut, in the queue for a place
    left: bool = False


@dataclass(slots=True, eq=False)
class ChannelWindow:
    """The window of one channel. Callers say what happens, then send what `steer` returns."""

    limit: int = UNLIMITED
    in_hand: int = 0
    seats: list[Seat] = field(default_factory=list)
    dirty: bool = False  #: `steer` may have something to say
    bounces: int = 0  #: ever: for tests and for looking
    _waiting: deque[Seat] = field(default_factory=deque)

    def join(self) -> Seat:
        """A new consumer; subscribe it with the seat's window."""
        seat = Seat(window=max(1, self.limit - self.in_hand))
        self.seats.append(seat)
        return seat

    def leave(self, seat: Seat) -> None:
        """No more deliveries are wanted for it. What it holds counts until it is settled."""
        if not seat.left:
            seat.left = True
            self.seats.remove(seat)
            self._stop_waiting(seat)
            self.dirty = True

    def arrive(self, seat: Seat) -> bool:
        """A delivery has come: True hands it over, False bounces it."""
        if self.in_hand >= self.limit:
            self._bounce(seat)
            return False
        self.in_hand += 1
        seat.held += 1
        if self.in_hand >= self.limit or seat.held >= seat.window:
            self.dirty = True
        return True

    def settle(self, seat: Seat) -> None:
        """The application has settled a message of this seat."""
        assert seat.held > 0 and self.in_hand > 0
        self.in_hand -= 1
        seat.held -= 1
        seat.settling += 1
        self.dirty = True

    def settle_confirmed(self, seat: Seat, count: int) -> None:
        assert seat.settling >= count
        seat.settling -= count
        self.dirty = True

    def window_confirmed(self, seat: Seat) -> None:
        """The broker works with the seat's latest window."""
        seat.raising = False
        self.dirty = True

    def resize(self, prefetch: int) -> list[Seat]:
        """Set the limit (0: none). Returns the seats whose window changed with it."""
        self.limit = prefetch if 0 < prefetch < UNLIMITED else UNLIMITED
        self.dirty = True
        changed = []
        alone = len(self.seats) == 1
        for seat in self.seats:
            window = seat.held + max(0, self.limit - self.in_hand)
            if alone and window > seat.window:
                seat.window, seat.raising = window, True
                changed.append(seat)
            elif seat.window > self.limit:
                self._cut(seat, self.limit)
                changed.append(seat)
        return changed

    def steer(self) -> list[Seat]:
        """The seats whose shard must be told their new window, each once, in this order."""
        self.dirty = False
        if len(self.seats) == 1 and not self._waiting and self.seats[0].held < self.seats[0].window:
            return []
        before = [(seat, seat.window) for seat in self.seats]
        if self._waiting:
            self._shut_bounced()
            self._make_room()
        elif self.in_hand >= self.limit:
            self._trim()
        told = {id(seat): window for seat, window in before}
        cut = [seat for seat in self.seats if seat.window != told[id(seat)]]
        raised = self._raise()
        return cut + [seat for seat in raised if seat not in cut]

    def _bounce(self, seat: Seat) -> None:
        self.bounces += 1
        self.dirty = True
        if not seat.left and not seat.waiting:
            seat.waiting = True
            self._waiting.append(seat)

    def _shut_bounced(self) -> None:
        for seat in self._waiting:
            if seat.window != seat.held:
                self._cut(seat, min(seat.window, seat.held))

    def _make_room(self) -> None:
        """Someone waits: the others may have their fair share and no more."""
        active = sum(
            1 for seat in self.seats if seat.held or seat.settling or seat.waiting or seat.raising
        )
        share = self.limit // active
        for seat in self.seats:
            # One whose queue is empty takes nobody's place. Were it shut as well, the consumers
            # of empty queues would take turns for ever.
            busy = seat.held or seat.settling
            if busy and not seat.waiting and not seat.raising and seat.window > share:
                self._cut(seat, share)
                if not share:
                    seat.waiting = True
                    self._waiting.append(seat)

    def _trim(self) -> None:
        share = max(1, self.limit // len(self.seats)) if self.seats else 1
        for seat in self.seats:
            fair = max(seat.held, share)
            if seat.window > fair:
                self._cut(seat, fair)

    def _raise(self) -> list[Seat]:
        spare = self.limit - self.in_hand - sum(map(_reserved, self.seats))
        raised: list[Seat] = []
        while spare > 0 and self._waiting:
            amount = max(1, spare // len(self._waiting))
            seat = self._waiting.popleft()
            seat.waiting = False
            spare -= self._open(seat, amount)
            raised.append(seat)
        if spare > 0:
            at_end = sorted(
                (seat for seat in self.seats if seat.held >= seat.window),
                key=lambda seat: seat.held,
            )
            for rank, seat in enumerate(at_end):
                if spare <= 0:
                    break
                spare -= self._open(seat, max(1, spare // (len(at_end) - rank)))
                raised.append(seat)
        return raised

    def _open(self, seat: Seat, amount: int) -> int:
        seat.window = seat.held + amount
        seat.raising = True
        return amount

    def _cut(self, seat: Seat, window: int) -> None:
        seat.window = window
        seat.raising = False

    def _stop_waiting(self, seat: Seat) -> None:
        if seat.waiting:
            seat.waiting = False
            self._waiting.remove(seat)


def _reserved(seat: Seat) -> int:
    """The places this seat is likely to fill with what is under way."""
    room = seat.window - seat.held
    if room <= 0:
        return 0
    return room if seat.raising else min(room, seat.settling)
