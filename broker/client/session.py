"""A client's session without its sockets: what to send, and what the answers mean.

    link up ----> hello() --Welcome--> in service --link_lost()--> waiting for the next link
                     \\--Denied (fatal)--> error                     (hello() resumes)

    publish, request, consume, ... --> unanswered, fresh --take()--> on the wire
       ^                                  |   |    ^                      |
       |                         answered |   |    +---- not answered in repeat_ms, Resync,
    the caller's Call <-------------------+   |          a new link: sent again, in order
                                              +--> `floor`, the lowest seq that is unanswered

Everything is driven by one thread (or a simulation): calls and answers go in, `finish_turn`
closes a turn, `take` gives what is to be sent, `events` collects what the application gets.
Times are given in ms of any clock that does not go back.

What may come twice is told apart by what is in hand. A delivery is passed over when its term
is old, when the message is in the application's hands, or when it was settled and that is not
confirmed yet: it was sent before the settlement was seen. The exception is a requeue: a higher
count shows that the message is truly ours again. After a release the count does not grow, so
such a delivery stays in doubt until the release is confirmed; then `Held` lets the broker
say, and it sends again what is ours.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

from broker.client.calls import Barrier, Call, Group
from broker.client.consumer import (
    FETCHER,
    NO_ACK_WINDOW,
    Consumer,
    ConsumerCancelled,
    Delivery,
    Event,
    QueueHand,
    ShardView,
)
from broker.client.window import ChannelWindow
from broker.errors import Code, RaftMQError, SessionExpired, refusal
from broker.machines.commands import Outcome
from broker.protocol import (
    VERSION,
    VOLATILE_SHARD,
    AnyAnswer,
    AnyOperation,
    Beat,
    Cancel,
    Cancelled,
    Confirmed,
    Consume,
    Denied,
    Fetched,
    Get,
    Goodbye,
    Held,
    Hello,
    Publish,
    RefusedAnswer,
    Replied,
    Resync,
    SettleMessages,
    SetWindow,
    Welcome,
)
from broker.protocol import Delivery as DeliveryAnswer

REPEAT_MS = 2_000
FRAME_OPERATIONS_MAX = 4_096
FRAME_BYTES_MAX = 1 << 20
"""Of payloads in one frame; a single larger one has a frame of its own."""
IDS_MAX = 4_096
"""Message ids in one `SettleMessages`."""

_ACK, _REQUEUE, _RELEASE = int(Outcome.ACK), int(Outcome.REQUEUE), int(Outcome.RELEASE)
_OTHER_LINK = (Code.COMMAND_INVALID, Code.INTERNAL_ERROR, Code.MALFORMED_FRAME)
"""`Denied` with these says something about the link, not about the session."""

Entry: TypeAlias = "tuple[AnyOperation, Call | None, Consumer | None]"


class SessionCore:
    """One session. `token` is the random secret by which it is resumed."""

    def __init__(
        self,
        *,
        token: bytes,
        vhost: str = "/",
        user: str = "guest",
        credentials: dict[str, bytes] | None = None,
        grace_ms: int = 5_000,
        about: dict[str, str] | None = None,
        repeat_ms: int = REPEAT_MS,
    ) -> None:
        self.session = 0
        self.token = token
        self.epoch = 0
        self.node = ""
        self.boot = 0
        self.nodes: list[str] = []
        self.body_bytes_max: int | None = None
        self.in_service = False  #: this link has been welcomed
        self.denied: Denied | None = None  #: this link will not do; try another
        self.serving = True  #: the node's last beat said so
        self.error: RaftMQError | None = None  #: the session is over
        self.events: deque[Event] = deque()
        self.consumers: dict[int, Consumer] = {}
        self.duplicates = 0  #: deliveries passed over: for tests and for looking
        self.news = False  #: `events` has grown; whoever looks resets it
        self._hello = (vhost, user, credentials or {}, grace_ms, about or {})
        self._repeat_ms = repeat_ms
        self._seq = 1
        self._unanswered: dict[int, Entry] = {}
        self._fresh: list[AnyOperation] = []
        self._fresh_bytes = 0
        self._sent: deque[tuple[int, Iterable[int]]] = deque()  #: (due to be repeated, seqs)
        self._shards: dict[int, ShardView] = {}
        self._resync: dict[int, None] = {}  #: shards that want `Held`, in order
        self._repeat_all = False
        self._settling: dict[tuple[Consumer | None, QueueHand, int], list[int]] = {}
        self._steered: dict[ChannelWindow, None] = {}

    # --- the link -------------------------------------------------------------------------

    def hello(self) -> Hello:
        """The first operation on a new link; nothing else goes out before the `Welcome`."""
        vhost, user, credentials, grace_ms, about = self._hello
        self.denied = None
        return Hello(VERSION, self.session, self.token, vhost, user, credentials, grace_ms, about)

    def link_lost(self) -> None:
        """Nothing is sent until the next link is in service."""
        self.in_service = False
        self.serving = True
        self.denied = None

    @property
    def floor(self) -> int:
        """Every operation below is answered."""
        for seq in self._unanswered:
            return seq
        return self._seq

    @property
    def unanswered(self) -> int:
        """Operations that the broker has not answered."""
        return len(self._unanswered) + len(self._settling)

    def take(self, now_ms: int) -> list[AnyOperation]:
        """The next frame's operations, or nothing. Call again until it is empty."""
        if not self.in_service or self.error is not None:
            return []
        sent = self._sent
        while sent and sent[0][0] <= now_ms:
            due = [seq for seq in sent.popleft()[1] if seq in self._unanswered]
            again = [self._unanswered[seq][0] for seq in due]
            self._doubt_consumers(self._unanswered[seq] for seq in due)
            self._fresh_bytes += sum(len(op.payload) for op in again if type(op) is Publish)
            self._fresh[:0] = again
        fresh = self._fresh
        if not fresh:
            return []
        if len(fresh) <= FRAME_OPERATIONS_MAX and self._fresh_bytes <= FRAME_BYTES_MAX:
            taken, self._fresh, self._fresh_bytes = fresh, [], 0
        else:
            taken = self._bounded()
        seqs = [op.seq for op in taken]  # type: ignore[union-attr]
        sent.append((now_ms + self._repeat_ms, seqs))
        return taken

    def repeat_due_ms(self) -> int | None:
        """When `take` will have something to repeat."""
        return self._sent[0][0] if self._sent else None

    def has_fresh(self) -> bool:
        return self.in_service and bool(self._fresh)

    def _bounded(self) -> list[AnyOperation]:
        size = count = 0
        for op in self._fresh:
            bytes_ = len(op.payload) if type(op) is Publish else 0
            if count and (size + bytes_ > FRAME_BYTES_MAX or count >= FRAME_OPERATIONS_MAX):
                break
            size += bytes_
            count += 1
        taken = self._fresh[:count]
        del self._fresh[:count]
        self._fresh_bytes -= size
        return taken

    # --- calls of the application ---------------------------------------------------------

    def publish(
        self,
        call: Call,
        exchange: str,
        routing_key: str,
        mandatory: bool,
        priority: int,
        options: dict[str, Any] | None,
        payload: bytes,
    ) -> None:
        group = call.group
        if group is not None:
            group.under_way += 1
            group.bytes_under_way += len(payload)
        seq = self._seq
        self._seq = seq + 1
        op = Publish(seq, exchange, routing_key, mandatory, priority, options, payload)
        self._unanswered[seq] = (op, call, None)
        self._fresh.append(op)
        self._fresh_bytes += len(payload)

    def request(self, call: Call, build: Callable[[int], AnyOperation]) -> None:
        """An operation that has one answer; `build` is given its seq."""
        self._flush_settlements()
        self._submit(build, call)

    def flush(self, call: Call, group: Group) -> None:
        """Resolve `call` once all publishes of this group that came before are answered."""
        Barrier(
            call,
            [
                each
                for _, each, _ in self._unanswered.values()
                if each is not None and each.group is group and not each.done
            ],
        )

    def withdraw(self, call: Call) -> None:
        """Nobody waits for this any more: do not repeat it. It may have been done."""
        for seq, (op, each, _) in self._unanswered.items():
            if each is call:
                self._forget(seq)
                self._leave_group(op, call)
                return

    def consume(self, call: Call, consumer: Consumer) -> None:
        """The call resolves with None once the consumer is known to its queue."""
        self._flush_settlements()
        assert consumer.id not in self.consumers
        self.consumers[consumer.id] = consumer
        if not consumer.no_ack:
            consumer.seat = consumer.window.join()
        self._subscribe(consumer, call)

    def cancel(self, call: Call, consumer: Consumer) -> None:
        """The call resolves after the last delivery; one that is over resolves at once."""
        self._flush_settlements()
        if consumer.id not in self.consumers:
            call.resolve()
            return
        self._leave(consumer)
        if consumer.cancel is not None:
            Barrier(call, [] if consumer.cancel.done else [consumer.cancel])
            return
        consumer.cancel = call
        if consumer.hand is not None:
            self._send_cancel(consumer, call)

    def get(self, call: Call, fetcher: Consumer) -> None:
        """Fetch one message of `fetcher.queue`: the call's value is a Delivery or None."""
        self._flush_settlements()
        self._submit(lambda seq: Get(seq, fetcher.queue), call, fetcher)

    def abandon(self, call: Call, error: RaftMQError) -> None:
        """Nobody waits for this fetch any more: what it brings goes back."""
        if call.done and isinstance(call.value, Delivery):
            self.settle((call.value,), _RELEASE)
        call.fail(error)

    def set_prefetch(self, window: ChannelWindow, count: int) -> None:
        """0: no limit. Effective for running consumers too."""
        changed = window.resize(count)
        self._steered[window] = None
        for consumer in self._consumers_of(window):
            if consumer.seat in changed:
                self._tell_window(consumer)

    def settle(self, deliveries: Iterable[Delivery], outcome: int) -> None:
        """Those that are not in hand any more are passed over."""
        settling = self._settling
        for delivery in deliveries:
            hand = delivery.hand
            id = delivery.message.id
            if hand.held.get(id) is not delivery:
                continue
            del hand.held[id]
            consumer = delivery.consumer
            seat = consumer.seat
            if seat is not None:
                window = consumer.window
                window.settle(seat)
                self._steered[window] = None
            if hand.lost:
                if seat is not None:
                    consumer.window.settle_confirmed(seat, 1)
                continue
            hand.settling[id] = (outcome, delivery.message.count)
            key = (consumer, hand, outcome)
            ids = settling.get(key)
            if ids is None:
                settling[key] = [id]
            else:
                ids.append(id)

    def recover(self, window: ChannelWindow) -> None:
        """Everything that a channel holds goes back to its place."""
        self.settle(self._held_by(window), _REQUEUE)

    def close_channel(self, call: Call, window: ChannelWindow) -> None:
        """Cancel its consumers and requeue what it holds; resolves when that is done."""
        calls: list[Call] = []
        for consumer in self._consumers_of(window):
            consumer.deaf = True
            ended = Call()
            self.cancel(ended, consumer)
            calls.append(ended)
        self.recover(window)
        self._flush_settlements()
        Barrier(call, [each for each in calls if not each.done])

    def goodbye(self) -> Goodbye:
        """The last operation on the link; send it once nothing is unanswered, or in a hurry."""
        self._flush_settlements()
        return Goodbye()

    def fail(self, error: RaftMQError) -> None:
        """The session is over: everything that is not answered fails with this."""
        if self.error is None:
            self.error = error
        self.in_service = False
        entries = list(self._unanswered.values())
        self._unanswered.clear()
        self._fresh.clear()
        for op, call, _ in entries:
            if call is not None:
                call.fail(self.error)
                self._leave_group(op, call)
        for consumer in self.consumers.values():
            if consumer.cancel is not None:
                consumer.cancel.fail(self.error)

    def calls(self) -> list[Call]:
        """Those that are not answered."""
        return [call for _, call, _ in list(self._unanswered.values()) if call is not None]

    # --- turns ----------------------------------------------------------------------------

    def finish_turn(self) -> None:
        """After the calls and answers of a turn, before `take`."""
        if self._steered:
            steered, self._steered = self._steered, {}
            for window in steered:
                if window.dirty and (changed := window.steer()):
                    self._tell_windows(window, changed)
        if self._settling:
            self._flush_settlements()
        if self._repeat_all:
            self._repeat_all = False
            self._send_all_again()
        if self._resync:
            shards, self._resync = self._resync, {}
            for shard in shards:
                self._send_held(shard)

    # --- answers --------------------------------------------------------------------------

    def receive(self, answers: list[AnyAnswer]) -> None:
        """What one frame said."""
        for answer in answers:
            kind = type(answer)
            if kind is DeliveryAnswer:
                self._delivered(answer)  # type: ignore[arg-type]
            elif kind is Confirmed:
                for seq in answer.seqs:  # type: ignore[union-attr]
                    self._answered(seq, None)
            else:
                self._receive_rare(answer)

    def _receive_rare(self, answer: AnyAnswer) -> None:
        match answer:
            case Replied():
                self._answered(answer.seq, answer.value)
            case RefusedAnswer():
                self._refused(answer)
            case Fetched():
                self._fetched(answer)
            case Cancelled():
                consumer = self.consumers.get(answer.consumer)
                if consumer is not None:
                    self._ended(consumer)
            case Resync():
                self._resynced(answer)
            case Beat():
                self.serving = answer.serving
            case Welcome():
                self._welcomed(answer)
            case Denied():
                self._denied(answer)
            case _:
                raise AssertionError(f"{answer} is handled before")

    def _delivered(self, message: DeliveryAnswer) -> None:
        view = self._shards.get(message.shard)
        if view is None:
            view = self._shards[message.shard] = ShardView(message.shard)
        if message.term < view.term:
            self.duplicates += 1
            return
        view.term = message.term
        hand = view.hands.get(message.queue)
        if hand is None:
            hand = view.hands[message.queue] = QueueHand(message.shard, message.queue)
        id = message.id
        if id in hand.held or (id in hand.settling and not self._is_ours_again(hand, message)):
            self.duplicates += 1
            return
        consumer = self.consumers.get(message.consumer)
        if consumer is None or consumer.deaf:
            if message.consumer != FETCHER:
                self._release(hand, message)
            return
        seat = consumer.seat
        if seat is not None:
            window = consumer.window
            if not window.arrive(seat):
                self._steered[window] = None
                self._release(hand, message)
                return
            if window.dirty:
                self._steered[window] = None
        delivery = Delivery(consumer, hand, message)
        hand.held[id] = delivery
        self.events.append(delivery)
        self.news = True

    def _is_ours_again(self, hand: QueueHand, message: DeliveryAnswer) -> bool:
        outcome, count = hand.settling[message.id]
        if outcome == _RELEASE:
            hand.doubtful.add(message.id)
        return outcome == _REQUEUE and message.count > count

    def _release(self, hand: QueueHand, message: DeliveryAnswer) -> None:
        """Send it back; it never was in the application's hands, nor in a window."""
        hand.settling[message.id] = (_RELEASE, message.count)
        self._settling.setdefault((None, hand, _RELEASE), []).append(message.id)

    def _answered(self, seq: int, value: Any) -> None:
        entry = self._unanswered.pop(seq, None)
        if entry is None:
            return
        op, call, consumer = entry
        kind = type(op)
        if kind is Publish:
            assert call is not None
            group = call.group
            if group is not None:
                group.under_way -= 1
                group.bytes_under_way -= len(op.payload)  # type: ignore[union-attr]
            call.resolve()
            return
        if kind is SettleMessages:
            self._settled(op, consumer)  # type: ignore[arg-type]
        elif kind is Consume:
            assert consumer is not None
            self._consumes(op, consumer, value)  # type: ignore[arg-type]
        elif kind is Cancel:
            assert consumer is not None
            self._forget_consumer(consumer)
        elif kind is SetWindow:
            assert consumer is not None
            self._window_told(consumer, seq)
        elif kind is Held:
            view = self._shards.get(op.shard)  # type: ignore[union-attr]
            if view is not None and view.held_seq == seq:
                view.held_seq = 0
        if call is not None:
            call.resolve(value)

    def _refused(self, answer: RefusedAnswer) -> None:
        error = refusal(answer.code, answer.text)
        if answer.code == Code.SESSION_EXPIRED:
            self.fail(SessionExpired(answer.text))
            return
        if answer.seq == 0:
            self.fail(error)  # a frame of ours could not be read: repeating it will not help
            return
        entry = self._unanswered.get(answer.seq)
        if entry is None:
            return
        op, call, consumer = entry
        if isinstance(op, SettleMessages | Cancel | SetWindow | Held):
            self._answered(answer.seq, None)  # what it was about is gone: as good as done
            return
        del self._unanswered[answer.seq]
        if isinstance(op, Consume):
            assert consumer is not None
            if call is None:
                self._ended(consumer)
            else:
                self._forget_consumer(consumer)
        if call is not None:
            self._leave_group(op, call)
            call.fail(error)

    def _fetched(self, answer: Fetched) -> None:
        entry = self._unanswered.pop(answer.seq, None)
        if entry is None:
            return
        _, call, fetcher = entry
        assert call is not None and fetcher is not None
        hand = self._hand(answer.shard, answer.queue)
        delivery = Delivery(fetcher, hand, answer)
        hand.held[answer.id] = delivery
        if call.done:  # its caller has gone
            self.settle((delivery,), _RELEASE)
        else:
            call.resolve(delivery)
            if fetcher.no_ack:
                self.settle((delivery,), _ACK)

    def _resynced(self, answer: Resync) -> None:
        view = self._view(answer.shard)
        if answer.term < view.term:
            return
        view.term = answer.term
        self._repeat_all = True
        if view.held_seq or any(
            consumer.hand is not None and consumer.hand.shard == answer.shard
            for consumer in self.consumers.values()
        ):
            self._resync[answer.shard] = None

    def _welcomed(self, answer: Welcome) -> None:
        resumed = self.session != 0
        moved = resumed and (answer.node, answer.boot) != (self.node, self.boot)
        assert not resumed or answer.session == self.session
        self.session, self.token, self.epoch = answer.session, answer.token, answer.epoch
        self.node, self.boot = answer.node, answer.boot
        self.nodes, self.body_bytes_max = answer.nodes, answer.body_bytes_max
        self.in_service = True
        self._flush_settlements()
        self._repeat_all = resumed
        for consumer in self.consumers.values():
            if consumer.hand is not None:
                self._resync[consumer.hand.shard] = None
        for view in self._shards.values():
            if view.held_seq:
                self._resync[view.number] = None  # it was done perhaps, and what it brought lost
        if moved:
            self._resync.pop(VOLATILE_SHARD, None)
            self._lose_volatile()

    def _denied(self, answer: Denied) -> None:
        if answer.code in _OTHER_LINK:
            self.denied = answer
        elif answer.code == Code.SESSION_EXPIRED:
            self.fail(SessionExpired(answer.text))
        else:
            self.fail(refusal(answer.code, answer.text))

    # --- settlements ----------------------------------------------------------------------

    def _flush_settlements(self) -> None:
        """Give what was settled since the last time its operations: one per queue and outcome."""
        if not self._settling:
            return
        settling, self._settling = self._settling, {}
        for (consumer, hand, outcome), ids in settling.items():
            for start in range(0, len(ids), IDS_MAX):
                self._submit_settle(consumer, hand, outcome, tuple(ids[start : start + IDS_MAX]))

    def _submit_settle(
        self, consumer: Consumer | None, hand: QueueHand, outcome: int, ids: tuple[int, ...]
    ) -> None:
        shard, queue = hand.shard, hand.queue
        self._submit(lambda seq: SettleMessages(seq, shard, queue, outcome, ids), None, consumer)

    def _settled(self, op: SettleMessages, consumer: Consumer | None) -> None:
        hand = self._hand(op.shard, op.queue)
        settling = hand.settling
        for id in op.ids:
            mark = settling.get(id)
            if mark is not None and mark[0] == op.outcome:
                del settling[id]
        if hand.doubtful and not hand.doubtful.isdisjoint(op.ids):
            hand.doubtful.difference_update(op.ids)
            self._resync[op.shard] = None
        self._settled_by(consumer, len(op.ids))
        if consumer is None or consumer.id not in self.consumers:
            self._drop_idle(hand)

    def _settled_by(self, consumer: Consumer | None, count: int) -> None:
        if consumer is not None and consumer.seat is not None:
            consumer.window.settle_confirmed(consumer.seat, count)
            self._steered[consumer.window] = None

    def _drop_idle(self, hand: QueueHand) -> None:
        """Queues come and go; one that nobody consumes from or holds is forgotten."""
        if hand.held or hand.settling or hand.doubtful:
            return
        view = self._shards.get(hand.shard)
        if (
            view is not None
            and view.hands.get(hand.queue) is hand
            and all(consumer.hand is not hand for consumer in self.consumers.values())
        ):
            del view.hands[hand.queue]

    # --- consumers ------------------------------------------------------------------------

    def _subscribe(self, consumer: Consumer, call: Call | None) -> None:
        window = consumer.seat.window if consumer.seat is not None else NO_ACK_WINDOW
        self._submit(
            lambda seq: Consume(
                seq,
                consumer.id,
                consumer.queue,
                window,
                consumer.exclusive,
                consumer.priority,
                consumer.arguments,
            ),
            call,
            consumer,
        )

    def _consumes(self, op: Consume, consumer: Consumer, value: Any) -> None:
        shard, queue = value
        consumer.hand = self._hand(shard, queue)
        if consumer.doubted:
            consumer.doubted = False
            self._resync[shard] = None
        seat = consumer.seat
        if seat is not None and not seat.left:
            if seat.window == op.window:
                consumer.window.window_confirmed(seat)
                self._steered[consumer.window] = None
            else:
                self._tell_window(consumer)  # steered before it was known where to
        if consumer.cancel is not None:
            self._send_cancel(consumer, consumer.cancel)

    def _send_cancel(self, consumer: Consumer, call: Call) -> None:
        assert consumer.hand is not None
        shard = consumer.hand.shard
        self._submit(lambda seq: Cancel(seq, shard, consumer.id), call, consumer)

    def _ended(self, consumer: Consumer) -> None:
        """The broker ended it; what it holds stays in the application's hands."""
        self._forget_consumer(consumer)
        if consumer.cancel is None:
            self.events.append(ConsumerCancelled(consumer))
            self.news = True
        else:
            consumer.cancel.resolve()

    def _forget_consumer(self, consumer: Consumer) -> None:
        self.consumers.pop(consumer.id, None)
        self._leave(consumer)
        if consumer.window_seq:
            self._forget(consumer.window_seq)
        if consumer.hand is not None:
            self._drop_idle(consumer.hand)

    def _leave(self, consumer: Consumer) -> None:
        if consumer.seat is not None:
            consumer.window.leave(consumer.seat)
            self._steered[consumer.window] = None

    def _tell_windows(self, window: ChannelWindow, changed: list[Any]) -> None:
        by_seat = {id(consumer.seat): consumer for consumer in self._consumers_of(window)}
        for seat in changed:
            consumer = by_seat.get(id(seat))
            if consumer is not None:
                self._tell_window(consumer)

    def _tell_window(self, consumer: Consumer) -> None:
        """The latest window alone counts: an older one is not repeated after it."""
        hand, seat = consumer.hand, consumer.seat
        assert seat is not None
        if hand is None or seat.left:
            return
        if consumer.window_seq:
            self._forget(consumer.window_seq)
        shard, window = hand.shard, seat.window
        consumer.window_seq = self._seq
        self._submit(lambda seq: SetWindow(seq, shard, consumer.id, window), None, consumer)

    def _window_told(self, consumer: Consumer, seq: int) -> None:
        if consumer.window_seq == seq:
            consumer.window_seq = 0
            if consumer.seat is not None:
                consumer.window.window_confirmed(consumer.seat)
                self._steered[consumer.window] = None

    def _lose_volatile(self) -> None:
        """The queues that lived in the old home are empty now: consume from them again."""
        view = self._shards.pop(VOLATILE_SHARD, None)
        if view is None:
            return
        for hand in view.hands.values():
            hand.lost = True
        for seq, (op, call, consumer) in list(self._unanswered.items()):
            if not isinstance(op, SettleMessages | SetWindow | Held | Cancel):
                continue
            if op.shard != VOLATILE_SHARD:
                continue
            self._forget(seq)
            if isinstance(op, Cancel):
                assert consumer is not None
                self._forget_consumer(consumer)
            elif isinstance(op, SetWindow):
                assert consumer is not None
                consumer.window_seq = 0
            elif isinstance(op, SettleMessages):
                self._settled_by(consumer, len(op.ids))
            if call is not None:
                call.resolve()
        for consumer in self.consumers.values():
            if consumer.hand is not None and consumer.hand.lost:
                consumer.hand = None
                if consumer.seat is not None:
                    consumer.seat.raising = True
                self._subscribe(consumer, None)

    # --- sending --------------------------------------------------------------------------

    def _submit(
        self,
        build: Callable[[int], AnyOperation],
        call: Call | None,
        consumer: Consumer | None = None,
    ) -> None:
        seq = self._seq
        self._seq = seq + 1
        op = build(seq)
        self._unanswered[seq] = (op, call, consumer)
        self._fresh.append(op)

    def _forget(self, seq: int) -> None:
        """Neither repeat an operation nor wait for its answer."""
        entry = self._unanswered.pop(seq, None)
        if entry is not None:
            op = entry[0]
            for place, fresh in enumerate(self._fresh):
                if fresh is op:
                    del self._fresh[place]
                    if type(op) is Publish:
                        self._fresh_bytes -= len(op.payload)
                    break

    @staticmethod
    def _leave_group(op: AnyOperation, call: Call) -> None:
        if type(op) is Publish and call.group is not None:
            call.group.under_way -= 1
            call.group.bytes_under_way -= len(op.payload)

    def _send_all_again(self) -> None:
        self._sent.clear()
        self._doubt_consumers(self._unanswered.values())
        self._fresh = [op for op, _, _ in self._unanswered.values()]
        self._fresh_bytes = sum(len(op.payload) for op in self._fresh if type(op) is Publish)

    @staticmethod
    def _doubt_consumers(entries: Iterable[Entry]) -> None:
        """What came between a `Consume` and its lost answer may be lost as well."""
        for op, _, consumer in entries:
            if type(op) is Consume and consumer is not None:
                consumer.doubted = True

    def _send_held(self, shard: int) -> None:
        """Name what is in hand; the shard sends again what else is checked out to us."""
        view = self._shards.get(shard)
        if view is None:
            return
        if view.held_seq:
            self._forget(view.held_seq)
        held = tuple((hand.queue, id) for hand in view.hands.values() for id in hand.held)
        view.held_seq = self._seq
        self._submit(lambda seq: Held(seq, shard, held), None)

    # --- small views ----------------------------------------------------------------------

    def _view(self, shard: int) -> ShardView:
        view = self._shards.get(shard)
        if view is None:
            view = self._shards[shard] = ShardView(shard)
        return view

    def _hand(self, shard: int, queue: int) -> QueueHand:
        hands = self._view(shard).hands
        hand = hands.get(queue)
        if hand is None:
            hand = hands[queue] = QueueHand(shard, queue)
        return hand

    def _consumers_of(self, window: ChannelWindow) -> list[Consumer]:
        return [each for each in self.consumers.values() if each.window is window]

    def _held_by(self, window: ChannelWindow) -> list[Delivery]:
        return [
            delivery
            for view in self._shards.values()
            for hand in view.hands.values()
            for delivery in hand.held.values()
            if delivery.consumer.window is window
        ]
