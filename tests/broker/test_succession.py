"""Who stands when a leader's process seems dead: one node for each shard, few at a time."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from broker import succession
from broker.config import Config, Peer, raft_id
from broker.engine import Engine
from broker.peer_protocol import Leads, PeerFrame, RaftRecord, encode_peer_frame
from raftlog.memory_store import MemoryStore
from raftlog.messages import HeartbeatRequest, encode_message

NODES = ("n1", "n2", "n3")
SHARDS = 24


def engine(node: str, dead: str, *leaving: str) -> Engine:
    """An engine that follows `dead` in all its shards and has heard of everybody."""
    peers = tuple(Peer(name, "host", port) for port, name in enumerate(NODES, start=1))
    port = NODES.index(node) + 1
    config = Config(node_id=node, cluster_nodes=peers, peer_port=port, shards=SHARDS)
    store = MemoryStore({shard: [raft_id(name) for name in NODES] for shard in range(SHARDS)})
    made = Engine(config, boot=1, now_ms=0, store=store, random=random.Random(1))
    made.tick(0)
    for name in NODES:
        if name == node:
            continue
        beats = [
            RaftRecord(
                shard, 1, encode_message(HeartbeatRequest(raft_id(name), raft_id(node), 1, 0, 0))
            )
            for shard in range(SHARDS)
            if name == dead
        ]
        leads = Leads([], name in leaving)
        made.peer_frame(
            encode_peer_frame(
                PeerFrame(
                    config.cluster_id, name, 1, 1, 0, "address", [leads, *beats], name.encode()
                )
            )
        )
    return made


@pytest.mark.parametrize("dead", NODES)
def test_each_shard_has_one_first_heir_and_not_all_elect_in_one_tick(dead: str) -> None:
    waits = {
        name: succession.waits(engine(name, dead)._cluster, dead) for name in NODES if name != dead
    }
    for shard in range(SHARDS):
        first, second = sorted(each[shard] for each in waits.values())
        assert second - first >= 1
    for each in waits.values():
        assert len(each) == SHARDS
        assert max(Counter(each.values()).values()) <= 2 * succession.SHARDS_PER_TICK


def test_who_is_leaving_is_no_heir() -> None:
    waits = succession.waits(engine("n2", "n1", "n3")._cluster, "n1")
    assert sorted(waits.values()) == [1 + n // succession.SHARDS_PER_TICK for n in range(SHARDS)]
