"""A client that stops reading while it is delivered to: a burden on nobody but itself."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker import protocol
from broker.client import Client, Delivery
from tests.cluster import Cluster, ClusterNode, eventually
from tests.end_to_end.raw_client import RawClient

BODY = b"x" * (32 << 10)
COUNT = 6000
"""Messages: 188 MiB, far more than what may be unread."""
UNREAD_MB = 8
MEMORY_MB = 100
"""What the node may need more for all of it: unread frames, a turn's work, the allocator."""

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    settings = {
        "RAFTMQ_UNREAD_BYTES_MAX": str(UNREAD_MB << 20),
        "RAFTMQ_BODY_BYTES_MAX": str(1 << 20),
        "RAFTMQ_CACHE_BYTES_MAX": str(4 << 20),
    }
    with Cluster(tmp_path, settings=settings) as cluster:
        cluster.wait_ready()
        yield cluster


def _mb(node: ClusterNode) -> float:
    """Memory of its own: what is mapped of the data file is the page cache's."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def test_a_client_that_does_not_read_costs_little_and_gives_back_what_it_holds(
    cluster: Cluster,
) -> None:
    with Client(cluster.url) as client:
        client.declare_queue("slow")
        client.declare_queue("calm")
        home = cluster.leader_of_queue("slow")
        others = [node for node in cluster.nodes if node is not home]
        with RawClient(home.port, unread_frames_max=1) as deaf:
            deaf.greet(grace_ms=1000)
            deaf.say(protocol.Consume(1, 1, "slow", 65_535))
            eventually(lambda: cluster.queue("slow").consumers == 1, 10, "its consumer")
            before, highest, longest = _mb(home), 0.0, 0.0
            for number in range(COUNT):
                client.publish_nowait(BODY, routing_key="slow")
                if number % 200 == 199:
                    client.flush()
                    began = time.monotonic()
                    client.publish(b"calm", routing_key="calm")
                    longest = max(longest, time.monotonic() - began)
                    highest = max(highest, _mb(home))
            assert highest - before < MEMORY_MB
            assert longest < 2.0, "others wait for one that does not read"
            eventually(
                lambda: (seen := cluster.queue("slow")).ready == COUNT and not seen.consumers,
                20,
                "its session to end and its messages to come back",
            )
        assert "does not read" in home.log()
        assert home.running
        assert all(node.running for node in others)
        channel = client.channel()
        channel.set_prefetch(100)
        channel.consume("slow")
        got = 0
        ends = time.monotonic() + 60
        while got < COUNT and time.monotonic() < ends:
            event = client.next_event(1)
            if isinstance(event, Delivery):
                got += 1
                event.ack()
        assert got == COUNT
