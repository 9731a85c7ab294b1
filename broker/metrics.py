"""What a node counts, and how Prometheus sees it.

The engine adds to plain ints, which costs tens of nanoseconds; nothing of the Prometheus
client is touched per message. At a scrape the collector reads the counters and the node's
status and makes the families below.

    raftmq_*_total              counters since the node's start
    raftmq_queue_messages       vhost, queue, state (ready, checked_out)
    raftmq_raft_*               shard
    raftmq_sessions, raftmq_peer_connected, raftmq_ready, raftmq_build_info
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from broker.status import NodeStatus, QueueStatus, ShardStatus

QUEUES_MAX = 1000
"""Queues with series of their own; the deepest are chosen, the others only counted."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Counters:
    """Sums since the node's start, written by the engine on its hot path."""

    published: int = 0
    delivered: int = 0
    redelivered: int = 0
    acked: int = 0
    requeued: int = 0
    dropped: int = 0
    unroutable: int = 0
    overflowed: int = 0
    client_frames: int = 0
    peer_frames: int = 0
    malformed_frames: int = 0
    refused: int = 0
    turns: int = 0
    commits: int = 0
    commit_seconds: float = 0.0
    sessions_opened: int = 0
    sessions_resumed: int = 0
    sessions_expired: int = 0
    elections: int = 0
    other_incarnation: int = 0
    audits: int = 0
    audits_equal: int = 0
    audits_different: int = 0
    damaged_records: int = 0
    scrubbed_bytes: int = 0
    scrub_passes: int = 0
    snapshots_sent: int = 0
    snapshots_received: int = 0
    snapshots_failed: int = 0
    snapshot_bytes_sent: int = 0
    snapshot_bytes_received: int = 0


_HELP = {
    "published": "Messages that clients published and this node, as leader, applied.",
    "delivered": "Messages handed to consumers by this node as leader.",
    "redelivered": "Deliveries of messages that had been delivered before.",
    "acked": "Messages settled as done.",
    "requeued": "Messages that went back to their queue.",
    "dropped": "Messages rejected for good.",
    "overflowed": "Messages that found a memory-only queue full, and were dropped.",
    "unroutable": "Messages that no queue took.",
    "client_frames": "Frames received from clients.",
    "peer_frames": "Frames received from other nodes.",
    "malformed_frames": "Frames that were none of the protocol, and were dropped.",
    "refused": "Operations refused with a code.",
    "turns": "Turns of the node's loop that had work.",
    "commits": "Transactions committed to disk, each with one fsync.",
    "commit_seconds": "Time spent committing to disk.",
    "sessions_opened": "Sessions opened by clients of this node.",
    "sessions_resumed": "Sessions resumed by clients of this node.",
    "sessions_expired": "Sessions that were given up after their grace.",
    "elections": "Times that this node became the leader of a shard.",
    "other_incarnation": "Records for another group of the same number, which were dropped.",
    "audits": "States of shards that were hashed to be compared with those of other replicas.",
    "audits_equal": "Hashes of other replicas that were equal to this node's own.",
    "audits_different": "Audits in which replicas differed.",
    "damaged_records": "Damaged records found in the data directory before they were needed.",
    "scrubbed_bytes": "Bytes of records that were read to find damage early.",
    "scrub_passes": "Times that all records were read to find damage early.",
    "snapshots_sent": "Snapshots that this node, as leader, brought to a replica.",
    "snapshots_received": "Snapshots of shards that this node has installed.",
    "snapshots_failed": "Snapshots of this node that a replica began to pull, and did not end.",
    "snapshot_bytes_sent": "Bodies and states sent in parts of snapshots.",
    "snapshot_bytes_received": "Bodies and states received in parts of snapshots.",
}


class Measured(Protocol):
    """What the collector reads: the engine, or a test's stand-in."""

    @property
    def counters(self) -> Counters: ...

    def status(self) -> NodeStatus: ...


class NodeCollector(Collector):
    """Makes the metric families from one node's counters and status."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured

    def describe(self) -> Iterable[Metric]:
        # Named ahead, so that registering does not already ask for a status.
        return ()

    def collect(self) -> Iterator[Metric]:
        status = self._measured.status()
        yield from _counter_families(self._measured.counters)
        yield from _node_families(status)
        yield from _raft_families(status.shards)
        yield from _queue_families(status.queues)


def registry_for(measured: Measured) -> CollectorRegistry:
    """A registry of its own, so that several nodes may live in one process."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NodeCollector(measured))
    return registry


def exposition(registry: CollectorRegistry) -> bytes:
    """The text that a scrape gets, of type `CONTENT_TYPE`."""
    return generate_latest(registry)


def _counter_families(counters: Counters) -> Iterator[Metric]:
    for field in fields(counters):
        text = _HELP.get(field.name, field.name.replace("_", " "))
        yield CounterMetricFamily(
            f"raftmq_{field.name}", text, value=float(getattr(counters, field.name))
        )


def _node_families(status: NodeStatus) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "raftmq_build_info", "Always 1.", labels=["version", "node", "cluster"]
    )
    info.add_metric([status.version, status.node, status.cluster], 1)
    yield info
    yield GaugeMetricFamily(
        "raftmq_ready", "1 while this node serves clients.", value=float(status.ready)
    )
    sessions = GaugeMetricFamily(
        "raftmq_sessions", "Sessions at home on this node.", labels=["state"]
    )
    own = [session for session in status.sessions if session.node == status.node]
    connected = sum(session.connected for session in own)
    sessions.add_metric(["connected"], connected)
    sessions.add_metric(["lost"], len(own) - connected)
    yield sessions
    peers = GaugeMetricFamily(
        "raftmq_peer_connected", "1 while the link to a peer is up.", labels=["peer"]
    )
    for peer in status.peers:
        peers.add_metric([peer.node], float(peer.connected))
    yield peers


def _raft_families(shards: list[ShardStatus]) -> Iterator[Metric]:
    leading = GaugeMetricFamily(
        "raftmq_raft_is_leader", "1 where this node leads the shard.", labels=["shard"]
    )
    led = GaugeMetricFamily(
        "raftmq_raft_has_leader", "1 where the shard has a leader.", labels=["shard"]
    )
    term = GaugeMetricFamily("raftmq_raft_term", "Raft term.", labels=["shard"])
    commit = GaugeMetricFamily(
        "raftmq_raft_commit_index", "Highest committed entry.", labels=["shard"]
    )
    applied = GaugeMetricFamily(
        "raftmq_raft_applied_index", "Highest applied entry.", labels=["shard"]
    )
    first = GaugeMetricFamily(
        "raftmq_raft_first_index", "First entry that the log still has.", labels=["shard"]
    )
    receiving = GaugeMetricFamily(
        "raftmq_snapshot_receiving", "1 while a snapshot of the shard comes in.", labels=["shard"]
    )
    for shard in shards:
        labels = [str(shard.shard)]
        leading.add_metric(labels, float(shard.role == "leader"))
        led.add_metric(labels, float(bool(shard.leader)))
        term.add_metric(labels, shard.term)
        commit.add_metric(labels, shard.commit)
        applied.add_metric(labels, shard.applied)
        first.add_metric(labels, shard.first)
        receiving.add_metric(labels, float(bool(shard.receiving)))
    yield from (leading, led, term, commit, applied, first, receiving)


def _queue_families(queues: list[QueueStatus]) -> Iterator[Metric]:
    messages = GaugeMetricFamily(
        "raftmq_queue_messages",
        "Messages in a queue, checked out ones included.",
        labels=["vhost", "queue", "state"],
    )
    consumers = GaugeMetricFamily(
        "raftmq_queue_consumers", "Consumers of a queue.", labels=["vhost", "queue"]
    )
    for queue in _most_telling(queues):
        messages.add_metric([queue.vhost, queue.name, "ready"], queue.ready)
        messages.add_metric([queue.vhost, queue.name, "checked_out"], queue.checked_out)
        consumers.add_metric([queue.vhost, queue.name], queue.consumers)
    yield from (messages, consumers)
    yield GaugeMetricFamily("raftmq_queues", "Queues in all.", value=len(queues))
    yield GaugeMetricFamily(
        "raftmq_queues_without_series",
        f"Queues beyond the {QUEUES_MAX} deepest, which have no series of their own.",
        value=max(0, len(queues) - QUEUES_MAX),
    )


def _most_telling(queues: list[QueueStatus]) -> list[QueueStatus]:
    """The deepest queues, at most `QUEUES_MAX`: each series costs the scraper memory."""
    if len(queues) <= QUEUES_MAX:
        return queues
    return sorted(queues, key=lambda queue: -(queue.ready + queue.checked_out))[:QUEUES_MAX]
