"""A node that got shard 0 as a snapshot is at once what it would be, had it applied the log.

Sessions, memory-only queues, bindings and limits are looked up in shard 0, and nobody told this
node of what happened to them while it was away: it becomes the home of all clients here.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import Client, Delivery
from broker.errors import NotFound
from tests.cluster import Cluster, ClusterNode, eventually, python_environment

HELD = 5
COUNT = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Logs that keep next to nothing."""
    settings = {
        "RAFTMQ_REPLAY_COMMANDS_MAX": "30",
        "RAFTMQ_LOG_BYTES_MAX": "2000",
        "RAFTMQ_AUDIT_MS": "500",
    }
    with Cluster(tmp_path, shards=3, settings=settings) as cluster:
        cluster.wait_ready()
        yield cluster


def ends_of_zero(cluster: Cluster, node: ClusterNode) -> tuple[int, int]:
    """(first, last) of shard 0 on a node."""
    zero = next(shard for shard in cluster.status(node).shards if shard.shard == 0)
    return zero.first, zero.last


def session_of_a_killed_client(url: str) -> int:
    """A session whose client never comes back."""
    program = (
        "import os\n"
        "from broker.client import Client\n"
        f"client = Client({url!r}, grace=3.0)\n"
        "client.declare_queue('away', exclusive=True)\n"
        "os.write(1, b'%d' % client.session)\n"
        "os._exit(0)\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=python_environment(),
        check=True,
        capture_output=True,
        timeout=30,
    )
    return int(ran.stdout)


def take(client: Client, count: int) -> list[Delivery]:
    taken = []
    while len(taken) < count:
        event = client.next_event(15.0)
        assert isinstance(event, Delivery), f"{event} after {len(taken)} of {count}"
        taken.append(event)
    return taken


def set_limit(cluster: Cluster, change: str) -> None:
    words = ("cluster", "limits", "--set", change, "--url", cluster.answering[0].http_url)
    subprocess.run(
        [sys.executable, "-m", "broker.cli", *words],
        env=python_environment(),
        check=True,
        capture_output=True,
        timeout=30,
    )


def move_home(cluster: Cluster, clients: list[Client], to: ClusterNode) -> None:
    """Make a node the only one there is for a while, until it is the clients' home."""
    for _ in range(8):
        if all(client.node == to.id for client in clients):
            return
        for other in cluster.nodes:
            if other is not to:
                cluster.kill(other)
        cluster.start()
        cluster.wait_ready(40.0)
        for client in clients:
            client.declare_queue("work", timeout=20)
    raise AssertionError(f"the clients do not come to {to.id}")


def churn(cluster: Cluster, absent: ClusterNode, end: int) -> None:
    """Until the log of shard 0 begins behind what the absent node has."""
    for number in range(100):
        with Client(cluster.url) as client:
            for part in range(10):
                client.declare_queue(f"gone-{number}-{part}")
                client.delete_queue(f"gone-{number}-{part}")
            client.declare_queue(f"stays-{number}")
        if all(ends_of_zero(cluster, node)[0] > end + 1 for node in cluster.answering):
            return
    raise AssertionError("shard 0 is not compacted")


def test_clients_are_at_home_on_a_node_that_got_shard_zero_as_a_snapshot(
    cluster: Cluster,
) -> None:
    absent = cluster.nodes[2]
    others = cluster.nodes[:2]
    with contextlib.ExitStack() as open_:
        worker = open_.enter_context(Client(cluster.url, grace=60.0, timeout=30.0))
        asker = open_.enter_context(Client(cluster.url, grace=60.0, timeout=30.0))
        lost = session_of_a_killed_client(cluster.url_of(absent))
        for client in (worker, asker):
            client.open()
        worker.declare_exchange("orders", "topic")
        worker.declare_exchange("all", "fanout", durable=False)
        worker.declare_queue("work")
        worker.bind_queue("work", "orders", "new.#")
        asker.declare_queue("replies", exclusive=True, auto_delete=True)
        asker.bind_queue("replies", "all")
        asker.channel().consume("replies")
        worker.declare_queue("brief", auto_delete=True)
        for number in range(COUNT):
            asker.publish(b"%d" % number, exchange="orders", routing_key="new.x")
        channel = worker.channel()
        channel.set_prefetch(HELD)
        channel.consume("work")
        brief = worker.channel()
        brief.consume("brief")
        held = take(worker, HELD)
        sessions = worker.session, asker.session

        cluster.wait_level()
        end = ends_of_zero(cluster, absent)[1]
        cluster.kill(absent)
        churn(cluster, absent, end)
        set_limit(cluster, "queues_max=5000")
        late = open_.enter_context(Client(cluster.url, grace=60.0, timeout=30.0))
        late.declare_queue("late", exclusive=True)
        late.bind_queue("late", "all")
        late.channel().consume("late")
        for other in others:  # what they still have in memory would do without a snapshot
            cluster.kill(other)
        cluster.start()
        cluster.wait_ready(40.0)
        eventually(lambda: "has shard 0 up to entry" in absent.log(), 20.0, "a snapshot")
        assert b'"queues_max":5000' in absent.http("/cluster/limits")[1].replace(b" ", b"")

        move_home(cluster, [worker, asker, late], absent)
        assert (worker.session, asker.session) == sessions
        for other in others:  # so that the one that was away leads, too
            cluster.kill(other)
            eventually(lambda: absent.http("/ready")[0] == 200, 20.0, "to serve")
            asker.publish(b"to all", exchange="all", timeout=20)
            cluster.restart(other)
            cluster.wait_ready(40.0)
        assert [event.payload for event in take(asker, 2)] == [b"to all"] * 2
        assert [event.payload for event in take(late, 2)] == [b"to all"] * 2

        for delivery in held:
            delivery.ack()
        rest = []
        while len(rest) < COUNT - HELD:
            rest += take(worker, 1)
            rest[-1].ack()
        assert [int(event.payload) for event in held + rest] == list(range(COUNT))
        assert not any(event.redelivered for event in held + rest)

        brief.close()

        def is_gone() -> bool:
            with Client(cluster.url_of(absent)) as client:
                try:
                    client.declare_queue("brief", passive=True)
                except NotFound:
                    return True
            return False

        eventually(is_gone, 10.0, "the queue that nobody uses to be deleted")
        known = lambda: {s.id for s in cluster.status(absent).sessions}  # noqa: E731
        eventually(lambda: lost not in known(), 20.0, "the session of the lost client to end")
        assert all(node.metric("raftmq_audits_different_total") == 0 for node in cluster.running)
