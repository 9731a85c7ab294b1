"""What clients and nodes say to each other: frames, operations and answers.

A frame is one ZeroMQ message part:

    client -> node   0x01, msgpack [floor, [operation, ...]]
    node -> client   0x01, msgpack [answer, ...]

The first byte is the protocol's version. A client speaks to one node over a DEALER socket;
its first operation on every new link is `Hello`. Every operation with a `seq` is repeated
by the client until it is answered (`Confirm`, `Reply`, `Refuse`, `Fetched`), and is done
once however often it is repeated. `floor` is the lowest seq that is not answered yet.

Numbers of operations and answers are part of the protocol: never reuse one, add fields only
at the end and with a default. docs/protocol.md shows the bytes and the order of things.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Final, TypeAlias

import msgspec

from broker.machines.commands import Arguments

VERSION = 1
_VERSION_BYTE = bytes([VERSION])

VOLATILE_SHARD = 0xFFFF
"""The number of every node's own shard of memory-only queues (exclusive queues)."""

OPERATIONS_MAX: Final = 16_384
IDS_MAX: Final = 65_536
HELD_MAX: Final = 1 << 20
"""What one frame and one operation may list. One frame is decoded, and one operation applied
by every replica, in one go: meanwhile a node hears nobody, and must not be taken for dead."""

Ids: TypeAlias = Annotated[tuple[int, ...], msgspec.Meta(max_length=IDS_MAX)]
Pairs: TypeAlias = Annotated[tuple[tuple[int, int], ...], msgspec.Meta(max_length=HELD_MAX)]

_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class ProtocolError(ValueError):
    """These bytes are not a frame of this protocol version."""


class Operation(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Common ancestor of what a client says."""


# --- client -> node -----------------------------------------------------------------------


class Hello(Operation, frozen=True, tag=1):
    """First on every link: open a session (session 0), or resume one with its token."""

    version: int
    session: int
    token: bytes
    vhost: str
    user: str
    credentials: dict[str, bytes]  #: room for what authentication will need
    grace_ms: int  #: wish, 0: the node's `grace_ms`; the node's limit wins
    client: dict[str, str]  #: hostname, pid, product, version: for people to read


class Goodbye(Operation, frozen=True, tag=2):
    """A clean end of the session: its messages return at once."""


class Publish(Operation, frozen=True, tag=3):
    """Answered with `Confirm` once on every matching queue, or with `Refuse`.

    mandatory: a message that no queue takes is refused with NO_ROUTE instead of dropped.
    """

    seq: int
    exchange: str
    routing_key: str
    mandatory: bool
    priority: int
    options: dict[str, Any] | None
    payload: bytes


class Consume(Operation, frozen=True, tag=4):
    """Reply: (shard, queue id)."""

    seq: int
    consumer: int  #: chosen by the client, never reused in a session
    queue: str
    window: int
    exclusive: bool = False
    priority: int = 0
    arguments: Arguments | None = None


class Cancel(Operation, frozen=True, tag=5):
    """Confirmed after the last delivery to this consumer has been sent."""

    seq: int
    shard: int
    consumer: int


class SetWindow(Operation, frozen=True, tag=6):
    """How many messages a consumer may hold unsettled (absolute). Confirmed."""

    seq: int
    shard: int
    consumer: int
    window: int


class SettleMessages(Operation, frozen=True, tag=7):
    """Settle messages of one queue, see `Outcome`. Confirmed."""

    seq: int
    shard: int
    queue: int
    outcome: int
    ids: Ids


class Held(Operation, frozen=True, tag=8):
    """After `Resync` or a resume: the deliveries of this shard in the client's hands. Confirmed.

    The shard's leader sends again what is checked out to the session and not named here.
    """

    seq: int
    shard: int
    held: Pairs  #: (queue id, message id)


class Get(Operation, frozen=True, tag=9):
    """`Fetched`, or `Reply(None)` when nothing is ready."""

    seq: int
    queue: str


class DeclareExchange(Operation, frozen=True, tag=10):
    """Confirmed."""

    seq: int
    name: str
    kind: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    passive: bool = False
    arguments: Arguments | None = None


class DeleteExchange(Operation, frozen=True, tag=11):
    seq: int
    name: str
    if_unused: bool = False


class DeclareQueue(Operation, frozen=True, tag=12):
    """Reply: (name, ready messages, consumers). The client makes up names for unnamed queues."""

    seq: int
    name: str
    passive: bool = False
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    arguments: Arguments | None = None


class DeleteQueue(Operation, frozen=True, tag=13):
    """Reply: the number of ready messages that went with it; 0 when there was no such queue."""

    seq: int
    name: str
    if_unused: bool = False
    if_empty: bool = False


class BindQueue(Operation, frozen=True, tag=14):
    seq: int
    queue: str
    exchange: str
    routing_key: str
    arguments: Arguments | None = None


class UnbindQueue(Operation, frozen=True, tag=15):
    seq: int
    queue: str
    exchange: str
    routing_key: str
    arguments: Arguments | None = None


class PurgeQueue(Operation, frozen=True, tag=16):
    """Reply: the number of messages removed."""

    seq: int
    name: str


class Inspect(Operation, frozen=True, tag=17):
    """Reply: plain data about the cluster; `what` is "queues", "sessions" or "status"."""

    seq: int
    what: str
    arguments: Arguments | None = None


AnyOperation: TypeAlias = (
    Hello
    | Goodbye
    | Publish
    | Consume
    | Cancel
    | SetWindow
    | SettleMessages
    | Held
    | Get
    | DeclareExchange
    | DeleteExchange
    | DeclareQueue
    | DeleteQueue
    | BindQueue
    | UnbindQueue
    | PurgeQueue
    | Inspect
)


class ClientFrame(msgspec.Struct, frozen=True, array_like=True):
    floor: int
    operations: Annotated[list[AnyOperation], msgspec.Meta(max_length=OPERATIONS_MAX)]


# --- node -> client -----------------------------------------------------------------------


class Answer(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Common ancestor of what a node says."""


class Welcome(Answer, frozen=True, tag=1):
    """The link is in service. After a resume the client repeats what is not answered, then
    sends `Held` for each shard it consumes from; when (node, boot) is not what it was, what
    it consumed from the volatile shard is gone, and it consumes again."""

    session: int
    token: bytes
    epoch: int
    node: str
    boot: int
    grace_ms: int
    body_bytes_max: int
    nodes: list[str]  #: host:port of every node, for reconnecting


class Denied(Answer, frozen=True, tag=2):
    """No service on this link: SESSION_EXPIRED, ACCESS_REFUSED, NOT_ALLOWED (version)."""

    code: int
    text: str


class Confirmed(Answer, frozen=True, tag=3):
    seqs: tuple[int, ...]


class Replied(Answer, frozen=True, tag=4):
    seq: int
    value: Any


class RefusedAnswer(Answer, frozen=True, tag=5):
    seq: int
    code: int
    text: str


class Delivery(Answer, frozen=True, tag=6):
    """A message for a consumer. One whose term is below the shard's highest is void."""

    shard: int
    term: int
    consumer: int
    queue: int
    id: int
    count: int  #: deliveries so far, this one included: > 1 means redelivered
    exchange: str
    routing_key: str
    priority: int
    payload: bytes


class Fetched(Answer, frozen=True, tag=7):
    seq: int
    shard: int
    queue: int
    id: int
    count: int
    ready: int
    exchange: str
    routing_key: str
    priority: int
    payload: bytes


class Cancelled(Answer, frozen=True, tag=8):
    """The broker ended this consumer: its queue is gone."""

    consumer: int


class Resync(Answer, frozen=True, tag=9):
    """The shard has a new leader, or frames were lost: repeat what is not answered, then send
    `Held` for this shard. Deliveries of earlier terms are void."""

    shard: int
    term: int


class Beat(Answer, frozen=True, tag=10):
    """Sent to every client at each beat interval. A client hears none for three: it moves on.

    serving: the node reaches a leader of shard 0; where it is false for long, move to another.
    """

    serving: bool


AnyAnswer: TypeAlias = (
    Welcome
    | Denied
    | Confirmed
    | Replied
    | RefusedAnswer
    | Delivery
    | Fetched
    | Cancelled
    | Resync
    | Beat
)

_encoder = msgspec.msgpack.Encoder()
_client_frame = msgspec.msgpack.Decoder(ClientFrame)
_answers: msgspec.msgpack.Decoder[list[AnyAnswer]] = msgspec.msgpack.Decoder(list[AnyAnswer])


def encode_operations(floor: int, operations: list[AnyOperation]) -> bytes:
    """One frame from client to node."""
    return _VERSION_BYTE + _encoder.encode(ClientFrame(floor, operations))


def decode_operations(frame: bytes) -> ClientFrame:
    """Raise `ProtocolError` for anything that is not such a frame."""
    try:
        return _client_frame.decode(_body(frame))
    except _UNDECODABLE as error:
        raise ProtocolError(str(error)) from error


def encode_answer(answer: AnyAnswer) -> bytes:
    """One answer; several make a frame with `join_answers`."""
    return _encoder.encode(answer)


def join_answers(answers: Iterable[bytes]) -> bytes:
    """One frame from node to client, of answers encoded before."""
    parts = list(answers)
    return b"".join((_VERSION_BYTE, b"\xdd", len(parts).to_bytes(4, "big"), *parts))


def decode_answers(frame: bytes) -> list[AnyAnswer]:
    """Raise `ProtocolError` for anything that is not such a frame."""
    try:
        return _answers.decode(_body(frame))
    except _UNDECODABLE as error:
        raise ProtocolError(str(error)) from error


def _body(frame: bytes) -> memoryview:
    if not frame or frame[0] != VERSION:
        version = frame[0] if frame else "none"
        raise ProtocolError(f"a frame of protocol version {version}, and this one is {VERSION}")
    return memoryview(frame)[1:]


class Content(msgspec.Struct, array_like=True):
    """A message as applications see it: the payload of `Publish`, opaque to the broker."""

    properties: dict[str, Any]  #: content_type, content_encoding, correlation_id, reply_to, ...
    headers: dict[str, Any]
    body: bytes


_content = msgspec.msgpack.Decoder(Content)


def encode_content(content: Content) -> bytes:
    """Raise TypeError for values that are not plain data."""
    return _encoder.encode(content)


def decode_content(payload: bytes) -> Content:
    """Raise `ProtocolError` when the payload was not made by `encode_content`."""
    try:
        return _content.decode(payload)
    except _UNDECODABLE as error:
        raise ProtocolError(str(error)) from error
