"""Real nodes with small limits: checkpoints, shorter logs and sweeps on real disks."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from broker.client import Client, Delivery
from broker.config import Config, Peer
from broker.groups import voters
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.lmdb_verify import verify_directory
from tests.cluster import Cluster, eventually

MESSAGES = 3000
BODY = 700


def body(number: int) -> bytes:
    return b"%06d" % number + bytes(BODY)


def take(url: str, count: int) -> list[int]:
    """So many messages, each acknowledged."""
    taken = []
    with Client(url, timeout=30.0) as client:
        channel = client.channel()
        channel.set_prefetch(50)
        channel.consume("q")
        while len(taken) < count:
            event = client.next_event(20.0)
            assert isinstance(event, Delivery), event
            taken.append(int(event.payload[:6]))
            event.ack()
        channel.close()
    return taken


@pytest.mark.slow
def test_all_nodes_start_from_checkpoints_and_a_drain_leaves_nothing(tmp_path: Path) -> None:
    limits = {"RAFTMQ_REPLAY_COMMANDS_MAX": "900", "RAFTMQ_LOG_BYTES_MAX": "200000"}
    with Cluster(tmp_path, nodes=3, shards=3, settings=limits) as cluster:
        cluster.wait_ready()
        with Client(cluster.url, timeout=30.0) as client:
            client.declare_queue("q")
            for number in range(MESSAGES):
                client.publish_nowait(body(number), routing_key="q")
            client.flush()
        first = take(cluster.url, MESSAGES // 2)
        shard = cluster.queue("q").shard
        for node in cluster.nodes:
            cluster.kill(node)
        cluster.start()
        cluster.wait_ready(30.0)
        rest = take(cluster.url, MESSAGES - len(set(first)))
        assert set(first) | set(rest) == set(range(MESSAGES))
        eventually(lambda: cluster.queue("q").ready == 0, 10.0, "an empty queue")
        eventually(lambda: _is_quiet(cluster), 60.0, "nothing more to write")
    for node in cluster.nodes:
        assert not verify_directory(node.data_dir).damages
        with _opened(cluster, node.id, node.data_dir) as store:
            storage = store.group(shard)
            mark = storage.checkpoint
            assert mark is not None and mark.index > 5
            assert storage.first_index() > 5
            assert storage.kept_entries(0, 10) == []
            assert storage.body_ids(0, 10) == []


def _is_quiet(cluster: Cluster) -> bool:
    """Whether next to nothing is written any more (audits and heartbeats' hints aside)."""
    before = sum(node.metric("raftmq_commits_total") for node in cluster.running)
    time.sleep(2.0)
    return sum(node.metric("raftmq_commits_total") for node in cluster.running) - before < 12


def _opened(cluster: Cluster, node: str, path: Path) -> LmdbStore:
    peers = tuple(Peer(each.id, "127.0.0.1", each.peer_port) for each in cluster.nodes)
    config = Config(
        node_id=node,
        cluster_name="test",
        cluster_nodes=peers,
        peer_port=cluster.node(node).peer_port,
        shards=cluster.shards,
    )
    identity = Identity(config.cluster_id.hex(), node)
    return LmdbStore.open(path, identity, voters(config), map_bytes=1 << 30, cache_bytes=0)
