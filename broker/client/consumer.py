"""What a session consumes and holds: shards, queues, consumers, deliveries.

ShardView  --1:n-->  QueueHand  --1:n-->  Delivery (held by the application)
Channel    --1:n-->  Consumer   --n:1-->  QueueHand (known once the broker has replied)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

from broker.client.calls import Call
from broker.client.window import ChannelWindow, Seat
from broker.machines.commands import Outcome
from broker.protocol import Content, Fetched, decode_content
from broker.protocol import Delivery as DeliveryAnswer

if TYPE_CHECKING:
    from broker.client.channel import Channel

NO_ACK_WINDOW = 1_000
"""How far a queue may run ahead of a consumer that acknowledges nothing, in messages."""

FETCHER = 0
"""The id of whoever fetches single messages; consumers count from 1."""


@dataclass(slots=True, eq=False)
class QueueHand:
    """The messages of one queue that this session has to do with."""

    shard: int
    queue: int
    held: dict[int, Delivery] = field(default_factory=dict)  #: by message id
    settling: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Settled but not confirmed: (outcome, delivery count)."""
    doubtful: set[int] = field(default_factory=set)
    """Came again while their release was not confirmed: perhaps truly ours again."""
    lost: bool = False  #: the queue's content went with its node; settling it is idle


@dataclass(slots=True, eq=False)
class ShardView:
    """What this session knows of a shard. A delivery of a term below `term` is void."""

    number: int
    term: int = 0
    hands: dict[int, QueueHand] = field(default_factory=dict)  #: by queue id
    held_seq: int = 0  #: the `Held` that is not answered yet


@dataclass(slots=True, eq=False)
class Consumer:
    """A consumer of one queue; made by `Channel.consume`, ended by `Channel.cancel`.

    `on_delivery` and `on_cancel` are the caller's: the client keeps them and calls neither
    but in `Client.dispatch`.
    """

    id: int
    queue: str
    channel: Channel | None
    tag: str
    window: ChannelWindow
    no_ack: bool = False
    exclusive: bool = False
    priority: int = 0
    arguments: dict[str, Any] | None = None
    on_delivery: Callable[[Delivery], object] | None = None
    on_cancel: Callable[[Consumer], object] | None = None

    # The session's own from here on.
    hand: QueueHand | None = None
    seat: Seat | None = None
    window_seq: int = 0  #: the `SetWindow` that is not answered yet
    doubted: bool = False  #: its `Consume` was repeated: deliveries may have been lost
    deaf: bool = False  #: what still comes goes back
    cancel: Call | None = None  #: wanted; sent once the consumer's shard is known


class Delivery:
    """A message in the application's hands until it is settled.

    Settle it once, with `ack`, `reject` or `requeue`, from any thread; what comes after that
    is passed over. Messages of a `no_ack` consumer are settled already.
    """

    __slots__ = ("_content", "consumer", "hand", "message")

    def __init__(
        self, consumer: Consumer, hand: QueueHand, message: DeliveryAnswer | Fetched
    ) -> None:
        self.consumer = consumer
        self.hand = hand
        self.message = message
        self._content: Content | None = None

    @property
    def queue(self) -> str:
        return self.consumer.queue

    @property
    def exchange(self) -> str:
        return self.message.exchange

    @property
    def routing_key(self) -> str:
        return self.message.routing_key

    @property
    def priority(self) -> int:
        return self.message.priority

    @property
    def count(self) -> int:
        """Deliveries so far, this one included."""
        return self.message.count

    @property
    def redelivered(self) -> bool:
        return self.message.count > 1

    @property
    def ready(self) -> int | None:
        """Messages that were left in the queue, if this one was fetched with `get`."""
        return self.message.ready if isinstance(self.message, Fetched) else None

    @property
    def payload(self) -> bytes:
        """The bytes as published."""
        return self.message.payload

    @property
    def content(self) -> Content:
        """The payload opened. `ProtocolError` when it is no `Content`."""
        if self._content is None:
            self._content = decode_content(self.message.payload)
        return self._content

    @property
    def fencing(self) -> tuple[int, int, int]:
        """(shard, message id, count): names this delivery among all; count grows with each."""
        return self.message.shard, self.message.id, self.message.count

    def ack(self) -> None:
        """Done: the broker removes the message."""
        self._settle(Outcome.ACK)

    def reject(self) -> None:
        """Not wanted: the broker does not deliver it again."""
        self._settle(Outcome.DROP)

    def requeue(self) -> None:
        """Back to its place in the queue, to be delivered again."""
        self._settle(Outcome.REQUEUE)

    def _settle(self, outcome: Outcome) -> None:
        channel = self.consumer.channel
        assert channel is not None, "only a session core without a client has no channels"
        channel.settle((self,), outcome)

    def __repr__(self) -> str:
        return f"<Delivery {self.message.id} of {self.queue!r}, count {self.count}>"


@dataclass(slots=True, frozen=True)
class ConsumerCancelled:
    """The broker ended a consumer: its queue is gone."""

    consumer: Consumer


Event: TypeAlias = Delivery | ConsumerCancelled
