"""A client in the simulation: the real session core, a simple application, and its own memory.

The application publishes numbered messages and remembers which were confirmed; it consumes,
holds each delivery for a while, and acknowledges or requeues it; it remembers what the broker
confirmed as settled. Links fail as sockets do: silence, or a node that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from broker.client.calls import Call
from broker.client.consumer import Consumer, Delivery
from broker.client.session import SessionCore
from broker.client.window import ChannelWindow
from broker.errors import RaftMQError, SessionExpired
from broker.machines.commands import Outcome
from broker.protocol import (
    AnyAnswer,
    AnyOperation,
    DeclareQueue,
    decode_answers,
    encode_operations,
)
from tests.simulation.book import Book
from tests.simulation.network import Network
from tests.simulation.node import SimNode
from tests.simulation.world import World

LOOK_MS = 100.0
"""How often it looks after its link, and repeats what has no answer."""
HELLO_TIMEOUT_MS = 1500.0
SILENCE_MS = 3500.0


@dataclass
class History:
    """What all clients together know: the checkers compare it with the queues."""

    published: dict[bytes, str] = field(default_factory=dict)  #: payload -> queue
    confirmed: set[bytes] = field(default_factory=set)
    delivered: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    """payload -> (message id, count) of each delivery into an application's hands."""
    acked: set[bytes] = field(default_factory=set)  #: the broker confirmed the settlement
    books: Mapping[int, Book] = field(default_factory=dict)  #: of all shards
    faults: list[tuple[str, str]] = field(default_factory=list)
    """(checker, what is wrong), found by the clients themselves."""


class SimClient:
    """One client process; after a failed session it begins a new one, as Celery does."""

    def __init__(
        self,
        name: str,
        world: World,
        network: Network,
        nodes: dict[str, SimNode],
        history: History,
        *,
        queues: list[str],
        publishes_per_s: float,
        consumes: bool,
        prefetch: int = 5,
    ) -> None:
        self.name = name
        self.history = history
        self.publishes_per_s = publishes_per_s
        self.publishing = publishes_per_s > 0
        self.consuming = consumes
        self.stopped = False
        self.hold_ms = 200.0
        self.sessions = 0
        self.core = SessionCore(token=b"")
        self._world, self._network, self._nodes = world, network, nodes
        self._chance = world.chance(name)
        self._queues, self._prefetch = queues, prefetch
        self._count = 0
        self._links = 0
        self._identity = b""
        self._node: SimNode | None = None
        self._heard_ms = 0.0
        self._connected_ms = 0.0
        self._acking: list[tuple[dict[int, tuple[int, int]], int, bytes]] = []
        """What the core knows of settlements, a message and its payload, until it is confirmed."""
        self._consumers: list[Consumer] = []
        self._declared: list[Call] = []
        self._open_session()
        self._look()
        self._publish_later()

    # --- the process ----------------------------------------------------------------------

    def _open_session(self) -> None:
        self.sessions += 1
        self.core = SessionCore(token=self._chance.randbytes(16), grace_ms=5000)
        self._acking, self._consumers, self._declared = [], [], []
        self._node = None
        for queue in self._queues:
            self._declared.append(Call())
            self.core.request(self._declared[-1], lambda seq, queue=queue: DeclareQueue(seq, queue))  # type: ignore[misc]

    def _consume_declared(self) -> None:
        """Consume, once the queues are there: from its reply on a declared queue counts."""
        if self._consumers or not self.consuming or not all(c.done for c in self._declared):
            return
        window = ChannelWindow()
        self.core.set_prefetch(window, self._prefetch)
        for number, queue in enumerate(self._queues, start=1):
            consumer = Consumer(number, queue, None, str(number), window)
            self._consumers.append(consumer)
            call = Call()
            call.waiters.append(_Consumes(self.history, queue, call))
            self.core.consume(call, consumer)

    def kill(self) -> None:
        """kill -9: its deliveries come back to others after the grace."""
        self._world.note(f"{self.name} is killed")
        self._identity = b""
        self._open_session()

    def unplug(self) -> None:
        """Its link breaks."""
        self._world.note(f"{self.name} loses its link")
        self.cut(self._identity)

    def _look(self) -> None:
        if self.stopped:
            return
        if self.core.error is not None:
            self._world.note(f"{self.name}: {self.core.error}")
            self._open_session()
        self._keep_link()
        self._consume_declared()
        self._note_acks()
        self._transmit()
        self._world.after(LOOK_MS, self._look)

    def _publish_later(self) -> None:
        if self.publishes_per_s and not self.stopped:
            delay_ms = self._chance.expovariate(self.publishes_per_s / 1000)
            self._world.after(delay_ms, self._publish_some)

    def _publish_some(self) -> None:
        chance, core = self._chance, self.core
        if not self.publishes_per_s or self.stopped:
            return
        if core.unanswered < 50 and self.may_publish:
            for _ in range(chance.randrange(1, 4)):
                self.publish(chance.choice(self._queues), chance.choice((0, 0, 0, 5, 9)))
            self._transmit()
        self._publish_later()

    @property
    def may_publish(self) -> bool:
        """Whether its session lives, and the queues are declared."""
        return self.core.error is None and all(call.done for call in self._declared)

    def publish(self, queue: str, priority: int = 0) -> bytes:
        """One message; its payload."""
        self._count += 1
        payload = f"{self.name}/{self.sessions}/{self._count}".encode()
        self.history.published[payload] = queue
        call = Call()
        call.waiters.append(_Confirmed(self.history, payload, call))
        self.core.publish(call, "", queue, False, priority, None, payload)
        return payload

    def _work_off(self, core: SessionCore, delivery: Delivery) -> None:
        """The application has done with a delivery, unless its process was killed meanwhile."""
        if core is not self.core or core.error is not None or self.stopped:
            return
        if self._chance.random() < 0.05:
            core.settle((delivery,), Outcome.REQUEUE)
        else:
            core.settle((delivery,), Outcome.ACK)
            id, payload = delivery.message.id, delivery.payload
            self._acking.append((delivery.hand.settling, id, payload))
        self._transmit()

    def _note_acks(self) -> None:
        """A settlement is confirmed when the core forgets it while its session lives."""
        if not self._acking or self.core.error is not None:
            return
        acking, self._acking = self._acking, []
        for each in acking:
            settling, id, payload = each
            if id in settling:
                self._acking.append(each)
            else:
                self.history.acked.add(payload)

    # --- the link -------------------------------------------------------------------------

    def has(self, identity: bytes) -> bool:
        """Whether a node that speaks to this identity still has somebody there."""
        return identity == self._identity

    def cut(self, identity: bytes) -> None:
        """The link broke; both ends notice when they look next."""
        if identity == self._identity:
            self._identity = b""
            self._node = None

    def receive(self, identity: bytes, frame: bytes) -> None:
        """A frame of the node."""
        if identity != self._identity or self.stopped:
            return
        self._heard_ms = self._world.now
        answers: list[AnyAnswer] = decode_answers(frame)
        self.core.receive(answers)
        core = self.core
        self._consume_declared()
        self._note_acks()
        while core.events:
            event = core.events.popleft()
            if isinstance(event, Delivery):
                self._took(event)
                hold_ms = self._chance.uniform(1, self.hold_ms)
                self._world.after(hold_ms, lambda event=event: self._work_off(core, event))  # type: ignore[misc]
        self._transmit()

    def _took(self, delivery: Delivery) -> None:
        payload, history = delivery.payload, self.history
        message = delivery.message
        history.delivered.setdefault(payload, []).append((message.id, message.count))
        if payload in history.acked:
            text = f"{payload!r} was delivered after its ack was confirmed"
            history.faults.append(("nothing comes after its settlement", text))
        if payload not in history.published:
            history.faults.append(("nothing unexpected", f"{payload!r} was never published"))

    def _keep_link(self) -> None:
        now, core, node = self._world.now, self.core, self._node
        lost = (
            node is None
            or node.engine is None
            or core.denied is not None
            or now - self._heard_ms > SILENCE_MS
            or (not core.in_service and now - self._connected_ms > HELLO_TIMEOUT_MS)
            or not core.serving
        )
        if not lost:
            return
        core.link_lost()
        self._links += 1
        self._identity = f"{self.name}-{self._links}".encode()
        choice = self._chance.choice(sorted(self._nodes))
        self._node = self._nodes[choice]
        self._heard_ms = self._connected_ms = now
        if self._node.connect(self, self._identity):
            self._transmit_operations([core.hello()])
        else:
            self._node = None

    def _transmit(self) -> None:
        self.core.finish_turn()
        while operations := self.core.take(int(self._world.now)):
            self._transmit_operations(operations)

    def _transmit_operations(self, operations: list[AnyOperation]) -> None:
        node, identity = self._node, self._identity
        if node is None:
            return
        frame = encode_operations(self.core.floor, operations)

        def deliver() -> None:
            if node.clients.get(identity) is self:
                node.take(lambda engine: engine.client_frame(identity, frame))

        self._network.send(self.name, node.name, deliver, lambda: self.cut(identity))


class _Consumes:
    """Notes a consumer that was refused though its queue is declared."""

    def __init__(self, history: History, queue: str, call: Call) -> None:
        self._history, self._queue, self._call = history, queue, call

    def set(self) -> None:
        error: RaftMQError | None = self._call.error
        if error is not None and not isinstance(error, SessionExpired):
            text = f"a consumer of {self._queue} is refused: {error}"
            self._history.faults.append(("what is declared is there", text))


class _Confirmed:
    """Notes a confirmed publish."""

    def __init__(self, history: History, payload: bytes, call: Call) -> None:
        self._history, self._payload, self._call = history, payload, call

    def set(self) -> None:
        error: RaftMQError | None = self._call.error
        if error is not None:
            return
        history, payload = self._history, self._payload
        history.confirmed.add(payload)
        if not any(payload in book.payloads for book in history.books.values()):
            text = f"{payload!r} is confirmed, and no node has applied it"
            history.faults.append(("conservation", text))
