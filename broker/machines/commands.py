"""What an entry can ask of a shard's machine: the replicated commands.

A command is encoded once, by the node that received the client's frame, and the same
bytes travel to the leader, into the log and to every replica. Numbers below are part of
the storage format: never reuse one, add fields only at the end and with a default.

    10-29  queues and consumers       (every shard)
    30-39  upkeep of a shard          (every shard, proposed by its leader)
    40-49  sessions                   (shard 0)
    50-59  topology                   (shard 0)
    60-69  the cluster's nodes        (shard 0)
    70-89  locks, 90-109 cache        (reserved)

Identifiers
    session   int, the id of the `SessionOpen` command on shard 0 (see `batch.command_id`)
    queue     int, the id of the `QueueDeclare` command on shard 0; a queue that is deleted
              and declared again is another queue
    seq       int, numbers the operations of one session; the key of deduplication
    floor     int, every seq below it is known to be done by the client: forget it
    consumer  int, chosen by the client, never used twice in one session
"""

from __future__ import annotations

from enum import IntEnum, IntFlag
from typing import Any, TypeAlias

import msgspec

Arguments: TypeAlias = dict[str, Any]
"""AMQP's `x-` arguments as the application gave them: plain values, kept and shown."""


class Command(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Common ancestor of all commands."""


class Outcome(IntEnum):
    """How a consumer settles a message."""

    ACK = 0  #: done, remove it
    REQUEUE = 1  #: back to its place in the queue; the next delivery is a redelivery
    DROP = 2  #: rejected, not to be delivered again (a dead letter, once there are any)
    RELEASE = 3  #: never came into the application's hands: back as if not delivered


class QueueFlag(IntFlag):
    DURABLE = 1
    EXCLUSIVE = 2
    AUTO_DELETE = 4


# --- queues and consumers -----------------------------------------------------------------


class Enqueue(Command, frozen=True, tag=10):
    """Put one message on some queues of this shard (at least one)."""

    session: int
    seq: int
    floor: int
    queues: tuple[int, ...]
    exchange: str
    routing_key: str
    priority: int  #: 0..9, higher first
    options: dict[str, Any] | None  #: rare envelope fields: ttl_ms, not_before_ms, dedup_id, ...
    payload: bytes  #: opaque to the broker


class Subscribe(Command, frozen=True, tag=11):
    """A consumer of a queue, with a window of messages it may hold unsettled at a time."""

    session: int
    seq: int
    floor: int
    consumer: int
    queue: int
    window: int  #: at least 0
    exclusive: bool = False
    priority: int = 0
    arguments: Arguments | None = None


class Unsubscribe(Command, frozen=True, tag=12):
    """End a consumer. What it holds stays checked out by its session until settled."""

    session: int
    seq: int
    floor: int
    consumer: int


class Credit(Command, frozen=True, tag=13):
    """Set a consumer's window (an absolute number, effective at once)."""

    session: int
    seq: int
    floor: int
    consumer: int
    window: int


class Settle(Command, frozen=True, tag=14):
    """Settle messages of one queue that this session holds; others are passed over."""

    session: int
    seq: int
    floor: int
    queue: int
    outcome: int
    ids: tuple[int, ...]


class Attach(Command, frozen=True, tag=15):
    """Name the deliveries of this shard that the client holds; the others are sent again."""

    session: int
    seq: int
    floor: int
    held: tuple[tuple[int, int], ...]  #: (queue, message id)


class Fetch(Command, frozen=True, tag=16):
    """Check out one message without a consumer (basic.get). A repeat gets the same one."""

    session: int
    seq: int
    floor: int
    queue: int


class Purge(Command, frozen=True, tag=17):
    """Remove what is ready in a queue; what is checked out stays. Replies the count."""

    session: int
    seq: int
    floor: int
    queue: int


class QueueDrop(Command, frozen=True, tag=18):
    """Delete a queue's content and consumers. Session 0: the broker itself asks."""

    session: int
    seq: int
    floor: int
    queue: int
    if_unused: bool = False
    if_empty: bool = False


class Count(Command, frozen=True, tag=19):
    """Reply (ready, consumers) of a queue, in order with the session's other operations."""

    session: int
    seq: int
    floor: int
    queue: int


# --- upkeep -------------------------------------------------------------------------------


class QueueCreate(Command, frozen=True, tag=30):
    """Make a queue known to its shard. Nothing happens when it is known already."""

    queue: int
    flags: int
    arguments: Arguments | None


class SessionDown(Command, frozen=True, tag=31):
    """A session is over: its consumers go, what it holds returns to its place.

    topology: an index of shard 0 by which the session had ended. A later leader proposes nothing
    before it has applied that too: it must know who is gone, or a late command of the session
    would be taken for a new one.
    """

    session: int
    topology: int = 0


class Tick(Command, frozen=True, tag=32):
    """Only time passes."""


class Audit(Command, frozen=True, tag=33):
    """Each replica tells the others the hash of its state after this entry; nothing changes."""


class SetLimits(Command, frozen=True, tag=34):
    """From here on the machine's limits are others.

    topology: on shards other than 0 the entry of shard 0 that this one follows, and older than
    what is in force here it changes nothing. On shard 0 it is 0.
    """

    changes: dict[str, int]  #: by name; what is not named stays
    founding: bool = False  #: nothing, if limits have been set before
    topology: int = 0


# --- sessions (shard 0) -------------------------------------------------------------------


class SessionOpen(Command, frozen=True, tag=40):
    """A new session, at home on `node`. Chance and names are the proposer's."""

    node: str
    boot: int  #: of the node: a restarted node is another home
    link: int  #: the node's number for the client's link: where the answer goes
    token: bytes  #: the secret by which the client resumes
    vhost: str
    user: str
    grace_ms: int
    client: dict[str, str]  #: hostname, pid, product, ...: for people to read


class SessionResume(Command, frozen=True, tag=41):
    """The client is back, perhaps at another node; its epoch grows."""

    session: int
    token: bytes
    node: str
    boot: int
    link: int


class SessionClose(Command, frozen=True, tag=42):
    """The end: a clean close (epoch 0), or an expiry that is void if the epoch has grown."""

    session: int
    epoch: int
    reason: str


# --- topology (shard 0) -------------------------------------------------------------------


class ExchangeDeclare(Command, frozen=True, tag=50):
    session: int
    seq: int
    floor: int
    name: str
    kind: str  #: direct, fanout, topic
    durable: bool
    auto_delete: bool
    internal: bool
    passive: bool
    arguments: Arguments | None


class ExchangeDelete(Command, frozen=True, tag=51):
    session: int
    seq: int
    floor: int
    name: str
    if_unused: bool


class QueueDeclare(Command, frozen=True, tag=52):
    """Replies a `QueueRecord` (see topology). An existing equivalent queue is returned."""

    session: int
    seq: int
    floor: int
    name: str
    flags: int
    passive: bool
    arguments: Arguments | None


class QueueRemove(Command, frozen=True, tag=53):
    """Take a queue and its bindings out of the topology; its content was dropped before."""

    session: int
    seq: int
    floor: int
    queue: int


class Bind(Command, frozen=True, tag=54):
    session: int
    seq: int
    floor: int
    queue: str
    exchange: str
    routing_key: str
    arguments: Arguments | None


class Unbind(Command, frozen=True, tag=55):
    session: int
    seq: int
    floor: int
    queue: str
    exchange: str
    routing_key: str
    arguments: Arguments | None


# --- the cluster's nodes (shard 0) --------------------------------------------------------

# `version` is that of the list on which the proposer judged: on another one nothing happens.


class ClusterFound(Command, frozen=True, tag=60):
    """The nodes with which the cluster begins. Nothing happens when there is a list already."""

    nodes: tuple[tuple[str, str, int], ...]  #: (name, host, peer port)


class NodeAdd(Command, frozen=True, tag=61):
    """A new node gets a copy of shard 0, and no vote yet."""

    version: int
    name: str
    host: str
    port: int


class NodePromote(Command, frozen=True, tag=62):
    """A node that joined becomes a member: it votes, and takes its share of the shards."""

    version: int
    name: str


class NodeRemove(Command, frozen=True, tag=63):
    """A node is to give away what it has, and never to come back under this name."""

    version: int
    name: str


class NodeSeen(Command, frozen=True, tag=64):
    """A node was in contact: which disk it has, and where it listens to peers.

    A disk that is known already never changes. An empty host or port 0: as it was.
    """

    name: str
    disk: bytes
    host: str
    port: int


class ClusterSettle(Command, frozen=True, tag=65):
    """All groups are where this version of the list wants them."""

    version: int


QueueCommand: TypeAlias = (
    Enqueue
    | Subscribe
    | Unsubscribe
    | Credit
    | Settle
    | Attach
    | Fetch
    | Purge
    | QueueDrop
    | Count
    | QueueCreate
    | SessionDown
    | Tick
    | SetLimits
    | Audit
)
SessionCommand: TypeAlias = SessionOpen | SessionResume | SessionClose
TopologyCommand: TypeAlias = (
    ExchangeDeclare | ExchangeDelete | QueueDeclare | QueueRemove | Bind | Unbind
)
ClusterCommand: TypeAlias = (
    ClusterFound | NodeAdd | NodePromote | NodeRemove | NodeSeen | ClusterSettle
)
AnyCommand: TypeAlias = QueueCommand | SessionCommand | TopologyCommand | ClusterCommand

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[AnyCommand] = msgspec.msgpack.Decoder(AnyCommand)


def encode(command: Command) -> bytes:
    """The bytes of one command, as they stand in an entry."""
    return _encoder.encode(command)


def decode(data: bytes | memoryview) -> AnyCommand:
    """The command in these bytes; `msgspec.DecodeError` when they are none."""
    return _decoder.decode(data)


def encode_arguments(arguments: Arguments) -> bytes:
    """The bytes of an arguments table: what its size limit counts."""
    return _encoder.encode(arguments)
