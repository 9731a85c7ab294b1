"""A node's view of the cluster at one moment: what /status and the command line both print.

Plain data: the engine fills it, JSON carries it. Every node knows all sessions and queues
(shard 0 is everywhere); the numbers of a queue are those of the node's own replica of the
queue's shard, so the shard's leader has the newest.
"""

from __future__ import annotations

import msgspec


class PeerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Another node of the cluster, as this one sees it."""

    node: str
    connected: bool
    last_heard_ms: int | None = None  #: since its last frame; None: never heard of
    client_address: str = ""  #: host:port for clients; "" until known


class ShardStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One Raft group, as this node's replica sees it."""

    shard: int
    role: str  #: leader, follower, candidate, pre-candidate, learner
    leader: str  #: node id; "" while there is none
    term: int
    commit: int
    applied: int
    last: int  #: index of the last entry of this node's log
    first: int = 1  #: index of the first entry that the log still has, or would have
    receiving: str = ""  #: the node that sends a snapshot of it, while it comes


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A client's session."""

    id: int
    vhost: str
    user: str
    node: str  #: its home
    epoch: int  #: 1 + how often it was resumed
    client: dict[str, str]  #: what it said of itself: hostname, pid, product, ...
    connected: bool  #: false: lost, and in its grace


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A queue and how many messages are in which state."""

    vhost: str
    name: str
    shard: int
    durable: bool
    exclusive: bool
    auto_delete: bool
    ready: int
    checked_out: int
    consumers: int


class MemberStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A node in the cluster's list."""

    node: str
    address: str  #: host:port for peers
    state: str  #: joining, member, leaving, removed
    known: bool  #: it has been in contact: its disk is registered
    connected: bool  #: the node that is asked hears it, or is it
    votes: list[int]  #: shards
    learns: list[int]  #: shards it has a copy of without a vote


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The list of nodes, and where the groups are on their way to."""

    version: int
    settled: bool  #: every shard is where this version wants it
    moving: list[int]  #: shards that are not, as far as this node has heard
    nodes: list[MemberStatus]


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    version: str
    node: str
    boot: int  #: differs from one start of this node to the next
    cluster: str
    ready: bool  #: serves clients now
    reason: str  #: why it is not ready; "" when it is
    peers: list[PeerStatus]
    shards: list[ShardStatus]
    sessions: list[SessionStatus]
    queues: list[QueueStatus]


_decoder = msgspec.json.Decoder(NodeStatus)


def encode_status(status: NodeStatus) -> bytes:
    """JSON, as /status serves it."""
    return msgspec.json.encode(status)


def decode_status(body: bytes) -> NodeStatus:
    """Raise `msgspec.DecodeError` when `body` is not the JSON of a status."""
    return _decoder.decode(body)


_cluster_decoder = msgspec.json.Decoder(ClusterStatus)


def encode_cluster(status: ClusterStatus) -> bytes:
    """JSON, as /cluster/members serves it."""
    return msgspec.json.encode(status)


def decode_cluster(body: bytes) -> ClusterStatus:
    """Raise `msgspec.DecodeError` when `body` is not the JSON of a cluster's status."""
    return _cluster_decoder.decode(body)
