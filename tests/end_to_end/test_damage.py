"""A bit of a real data file flips: the node says where and stops, and nobody is served by it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kombu import Connection

from tests.cluster import Cluster, ClusterNode, eventually
from tests.end_to_end.traffic import queue_named, receive

pytestmark = pytest.mark.slow

COUNT = 60
BODY_BYTES = 20_000
DAMAGED = 5  # old enough to be in nobody's memory


def body(number: int) -> str:
    return f"<{number:05}>".ljust(BODY_BYTES, "x")


def flip_a_bit(node: ClusterNode, needle: bytes) -> None:
    """In the node's data file, where these bytes stand: also under a running node."""
    with (node.data_dir / "data.mdb").open("r+b") as file:
        data = file.read()
        places = [found.start() for found in re.finditer(re.escape(needle), data)]
        assert places, "the bytes are not in the file"
        for place in places:
            file.seek(place)
            file.write(bytes([data[place] ^ 1]))


def publish_all(cluster: Cluster) -> None:
    queue = queue_named("work")
    with Connection(cluster.url) as connection, connection.Producer() as producer:
        for number in range(COUNT):
            producer.publish(
                body(number), exchange=queue.exchange, routing_key=queue.name, declare=[queue]
            )


def test_a_damaged_entry_is_never_served_and_stops_its_node_alone(tmp_path: Path) -> None:
    # Without a cache to speak of each body is read from the disk.
    settings = {"RAFTMQ_CACHE_BYTES_MAX": "1"}
    with Cluster(tmp_path, settings=settings) as cluster:
        cluster.wait_ready()
        publish_all(cluster)
        cluster.wait_level()
        damaged = cluster.leader_of_queue("work")
        shard = cluster.queue("work").shard
        flip_a_bit(damaged, body(DAMAGED)[:7].encode())
        received = receive(cluster.url, "work", COUNT)
        assert sorted(text for text, _ in received) == [body(number) for number in range(COUNT)]
        eventually(lambda: not damaged.running, 10, "the damaged node to stop")
        assert damaged.process is not None
        assert damaged.process.returncode == 1
        last_words = damaged.log().splitlines()[-1]
        assert re.search(rf"entry \d+ of group {shard} in .* is damaged: its checksum", last_words)
        assert "Traceback" not in damaged.log()
        assert len(cluster.running) == 2
