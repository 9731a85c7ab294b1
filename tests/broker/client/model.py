"""Real machines behind a session core, and a network between them that a test controls.

Each shard is a `Machine`; the home node is reduced to translating operations and effects, and
to the order it sends things in: confirms after everything else of a frame.

    core --operations--> to[shard] --(applied)--> back[shard] --frames--> core

Losing a leader loses what is under way to and from its shard, and says `Resync` in a new term;
losing the link loses everything under way, and the client says Hello again.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from broker.batch import command_id
from broker.client.calls import Call
from broker.client.consumer import Consumer, Delivery
from broker.client.session import SessionCore
from broker.client.window import ChannelWindow
from broker.machines import commands as cmd
from broker.machines import effects as fx
from broker.machines.commands import QueueFlag
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.protocol import (
    AnyAnswer,
    AnyOperation,
    Cancel,
    Cancelled,
    Confirmed,
    Consume,
    Fetched,
    Get,
    Held,
    Publish,
    RefusedAnswer,
    Replied,
    Resync,
    SettleMessages,
    SetWindow,
    Welcome,
    decode_answers,
    decode_operations,
    encode_answer,
    encode_operations,
    join_answers,
)
from broker.protocol import Delivery as DeliveryAnswer

SESSION = 7


@dataclass
class Shard:
    number: int
    machine: Machine
    term: int = 1
    index: int = 0
    bodies: dict[int, cmd.Enqueue] = field(default_factory=dict)
    to: deque[cmd.AnyCommand] = field(default_factory=deque)
    back: deque[AnyAnswer] = field(default_factory=deque)

    def apply(self, count: int) -> None:
        taken = [self.to.popleft() for _ in range(min(count, len(self.to)))]
        if not taken:
            return
        self.index += 1
        for offset, command in enumerate(taken):
            if isinstance(command, cmd.Enqueue):
                self.bodies[command_id(self.index, offset)] = command
        for effect in self.machine.apply(self.index, self.index, taken):
            self.back.append(self.answer(effect))

    def answer(self, effect: Any) -> AnyAnswer:
        match effect:
            case fx.Confirm():
                return Confirmed((effect.seq,))
            case fx.Reply():
                return Replied(effect.seq, effect.value)
            case fx.Refuse():
                return RefusedAnswer(effect.seq, effect.code, effect.text)
            case fx.Cancelled():
                return Cancelled(effect.consumer)
            case fx.Deliver():
                body = self.bodies[effect.id]
                return DeliveryAnswer(
                    self.number,
                    self.term,
                    effect.consumer,
                    effect.queue,
                    effect.id,
                    effect.count,
                    body.exchange,
                    body.routing_key,
                    body.priority,
                    body.payload,
                )
            case fx.Fetched():
                body = self.bodies[effect.id]
                return Fetched(
                    effect.seq,
                    self.number,
                    effect.queue,
                    effect.id,
                    effect.count,
                    effect.ready,
                    body.exchange,
                    body.routing_key,
                    body.priority,
                    body.payload,
                )
            case _:
                raise AssertionError(effect)


class Broker:
    """Queues q0, q1, ... one on each shard; and the client's core with one channel."""

    def __init__(self, shards: int, prefetch: int) -> None:
        self.now_ms = 0
        self.shards = [Shard(n, self._machine(n + 1)) for n in range(shards)]
        for shard in self.shards:
            shard.to.append(cmd.QueueCreate(self.uid(shard.number), int(QueueFlag.DURABLE), None))
            shard.apply(1)
        self.core = SessionCore(token=b"t")
        self.window = ChannelWindow()
        self.core.set_prefetch(self.window, prefetch)
        self.consumers: list[Consumer] = []
        self.inbox: deque[Delivery] = deque()
        self.hands: list[Delivery] = []
        self.seen: Counter[bytes] = Counter()  #: deliveries of each payload to the application
        self.requeued: Counter[bytes] = Counter()
        self.published = 0
        self.confirmed: list[tuple[bytes, Call]] = []
        self.connect()

    @staticmethod
    def _machine(number: int) -> Machine:
        return Machine(shard=number, shards=8, limits=Limits(), place=lambda vhost, name: 1)

    @staticmethod
    def uid(number: int) -> int:
        return 1000 + number

    def connect(self) -> None:
        decode_operations(encode_operations(self.core.floor, [self.core.hello()]))
        welcome = Welcome(SESSION, b"t", 1, "n", 1, 5000, 1 << 20, [])
        self.core.receive([welcome])

    # --- the application ------------------------------------------------------------------

    def consume(self, number: int) -> None:
        consumer = Consumer(len(self.consumers) + 1, f"q{number}", None, "", self.window)
        self.consumers.append(consumer)
        self.core.consume(Call(), consumer)

    def cancel(self, which: int) -> None:
        if self.consumers:
            self.core.cancel(Call(), self.consumers[which % len(self.consumers)])

    def publish(self, number: int) -> None:
        call, payload = Call(), b"%d" % self.published
        self.published += 1
        self.core.publish(call, "", f"q{number}", False, 0, None, payload)
        self.confirmed.append((payload, call))

    def take_events(self) -> None:
        events = self.core.events
        while events:
            event = events.popleft()
            if isinstance(event, Delivery):
                self.hands.append(event)
                payload = event.payload
                self.seen[payload] += 1
                assert self.seen[payload] <= 1 + self.requeued[payload], f"{payload!r} came twice"
        assert len(self.hands) <= self.window.limit

    def settle(self, which: int, outcome: int) -> None:
        if self.hands:
            delivery = self.hands.pop(which % len(self.hands))
            if outcome != cmd.Outcome.ACK:
                self.requeued[delivery.payload] += 1
            self.core.settle((delivery,), outcome)

    # --- the world ------------------------------------------------------------------------

    def turn(self) -> None:
        """The client's turn: what it wants to say is under way."""
        self.core.finish_turn()
        while operations := self.core.take(self.now_ms):
            frame = decode_operations(encode_operations(self.core.floor, operations))
            for op in frame.operations:
                self.route(frame.floor, op)

    def route(self, floor: int, op: AnyOperation) -> None:
        number: int
        command: cmd.AnyCommand
        match op:
            case Publish():
                number = int(op.routing_key[1:])
                uids = (self.uid(number),)
                command = cmd.Enqueue(
                    SESSION, op.seq, floor, uids, "", op.routing_key, 0, None, op.payload
                )
            case Consume():
                number = int(op.queue[1:])
                command = cmd.Subscribe(
                    SESSION, op.seq, floor, op.consumer, self.uid(number), op.window
                )
            case Get():
                number = int(op.queue[1:])
                command = cmd.Fetch(SESSION, op.seq, floor, self.uid(number))
            case Cancel():
                number = op.shard - 1
                command = cmd.Unsubscribe(SESSION, op.seq, floor, op.consumer)
            case SetWindow():
                number = op.shard - 1
                command = cmd.Credit(SESSION, op.seq, floor, op.consumer, op.window)
            case SettleMessages():
                number = op.shard - 1
                command = cmd.Settle(SESSION, op.seq, floor, op.queue, op.outcome, op.ids)
            case Held():
                number = op.shard - 1
                command = cmd.Attach(SESSION, op.seq, floor, op.held)
            case _:
                raise AssertionError(op)
        self.shards[number].to.append(command)

    def hear(self, number: int, count: int) -> None:
        """A frame with up to `count` answers of one shard reaches the client."""
        back = self.shards[number].back
        answers = [back.popleft() for _ in range(min(count, len(back)))]
        rest = [answer for answer in answers if not isinstance(answer, Confirmed)]
        confirms = tuple(
            seq for answer in answers if isinstance(answer, Confirmed) for seq in answer.seqs
        )
        if confirms:
            rest.append(Confirmed(confirms))
        numbered = [self._numbered(answer, number) for answer in rest]
        if numbered:
            self.core.receive(decode_answers(join_answers(map(encode_answer, numbered))))

    @staticmethod
    def _numbered(answer: AnyAnswer, number: int) -> AnyAnswer:
        """Machines are told that their shard is 1, 2, ...: so are deliveries."""
        if isinstance(answer, DeliveryAnswer):
            fields = [getattr(answer, name) for name in DeliveryAnswer.__struct_fields__]
            fields[0] = number + 1
            return DeliveryAnswer(*fields)
        if isinstance(answer, Fetched):
            fields = [getattr(answer, name) for name in Fetched.__struct_fields__]
            fields[1] = number + 1
            return Fetched(*fields)
        return answer

    def lose_leader(self, number: int) -> None:
        shard = self.shards[number]
        shard.to.clear()
        shard.back.clear()
        shard.term += 1
        self.core.receive([Resync(number + 1, shard.term)])

    def lose_commands(self, number: int) -> None:
        """Lost on the way to the leader, and nobody noticed: only time helps."""
        self.shards[number].to.clear()

    def lose_link(self) -> None:
        for shard in self.shards:
            shard.to.clear()
            shard.back.clear()
        self.core.link_lost()
        self.connect()

    def settle_down(self) -> None:
        """Until nothing is under way and nothing unanswered."""
        for _ in range(1000):
            self.turn()
            for shard in self.shards:
                shard.apply(1000)
                self.hear(shard.number, 1000)
            self.take_events()
            self.core.finish_turn()
            if not self.core.unanswered:
                if not self.core.has_fresh() and not any(s.to or s.back for s in self.shards):
                    return
            else:
                self.now_ms += 500
        raise AssertionError("the session does not come to rest")
