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
from broker.errors import RaftMQError
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

STEP_MS = 10.0
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
        publish_share: float,
        consumes: bool,
        prefetch: int = 5,
    ) -> None:
        self.name = name
        self.history = history
        self.publish_share = publish_share
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
        self._hold: list[tuple[float, Delivery]] = []
        self._settling: list[tuple[Call, list[bytes]]] = []
        self._consumers: list[Consumer] = []
        self._declared: list[Call] = []
        self._open_session()
        self._step()

    # --- the process ----------------------------------------------------------------------

    def _open_session(self) -> None:
        self.sessions += 1
        self.core = SessionCore(token=self._chance.randbytes(16), grace_ms=5000)
        self._hold, self._consumers, self._declared = [], [], []
        self._node = None
        for queue in self._queues:
            self._declared.append(Call())
            self.core.request(self._declared[-1], lambda seq, queue=queue: DeclareQueue(seq, queue))  # type: ignore[misc]
        if self.consuming:
            window = ChannelWindow()
            self.core.set_prefetch(window, self._prefetch)
            for number, queue in enumerate(self._queues, start=1):
                consumer = Consumer(number, queue, None, str(number), window)
                self._consumers.append(consumer)
                self.core.consume(Call(), consumer)

    def kill(self) -> None:
        """kill -9: its deliveries come back to others after the grace."""
        self._world.note(f"{self.name} is killed")
        self._identity = b""
        self._open_session()

    def unplug(self) -> None:
        """Its link breaks."""
        self._world.note(f"{self.name} loses its link")
        self.cut(self._identity)

    def _step(self) -> None:
        if self.stopped:
            return
        if self.core.error is not None:
            self._world.note(f"{self.name}: {self.core.error}")
            self._open_session()
        self._keep_link()
        self._work()
        self._transmit()
        self._world.after(STEP_MS, self._step)

    def _work(self) -> None:
        world, random = self._world, self._chance
        declared = all(call.done for call in self._declared)
        if declared and self.core.unanswered < 50 and random.random() < self.publish_share:
            for _ in range(random.randrange(1, 4)):
                self._publish(random.choice(self._queues))
        if self._hold:
            due = [delivery for at, delivery in self._hold if at <= world.now]
            self._hold = [item for item in self._hold if item[0] > world.now]
            for delivery in due:
                requeue = random.random() < 0.05
                self._settle(delivery, Outcome.REQUEUE if requeue else Outcome.ACK)

    def _publish(self, queue: str) -> None:
        self._count += 1
        payload = f"{self.name}/{self.sessions}/{self._count}".encode()
        self.history.published[payload] = queue
        call = Call()
        call.waiters.append(_Confirmed(self.history, payload, call))
        self.core.publish(call, "", queue, False, 0, None, payload)

    def _settle(self, delivery: Delivery, outcome: Outcome) -> None:
        self.core.settle((delivery,), outcome)
        if outcome is Outcome.ACK:
            hand, id, payload = delivery.hand, delivery.message.id, delivery.payload
            self._watch_ack(self.core, hand.settling, id, payload)

    def _watch_ack(
        self, core: SessionCore, settling: dict[int, tuple[int, int]], id: int, payload: bytes
    ) -> None:
        """The settlement is confirmed when the core forgets it while its session lives."""
        if core is not self.core or core.error is not None:
            return
        if id not in settling:
            self.history.acked.add(payload)
        else:
            self._world.after(STEP_MS, lambda: self._watch_ack(core, settling, id, payload))

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
        random = self._chance
        while self.core.events:
            event = self.core.events.popleft()
            if isinstance(event, Delivery):
                self._took(event)
                self._hold.append((self._world.now + random.uniform(1, self.hold_ms), event))
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
