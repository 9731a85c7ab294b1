"""Real nodes that were away for so long that the others have compacted what they lack."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import Client, Delivery
from broker.ring import preferred_leader, replicas_of
from tests.cluster import Cluster, ClusterNode, eventually
from tests.end_to_end.test_members import add, done, wait_settled
from tests.end_to_end.traffic import Publisher, assert_each_once, receive

BODY_BYTES = 3000
BACKLOG = 3000
BYTES_PER_S = 2_000_000
QUEUE = "backlog"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Logs that keep little, and snapshots that take some seconds."""
    settings = {
        "RAFTMQ_REPLAY_COMMANDS_MAX": "400",
        "RAFTMQ_LOG_BYTES_MAX": "100000",
        "RAFTMQ_SNAPSHOT_BYTES_PER_S": str(BYTES_PER_S),
        "RAFTMQ_SNAPSHOT_PART_BYTES": "50000",
        "RAFTMQ_AUDIT_MS": "500",
    }
    with Cluster(tmp_path, settings=settings) as cluster:
        cluster.wait_ready()
        yield cluster


def fill(cluster: Cluster, numbers: range) -> None:
    """Numbered messages, all confirmed."""
    with Client(cluster.url) as client:
        client.declare_queue(QUEUE)
        for number in numbers:
            client.publish_nowait(b"%d " % number + bytes(BODY_BYTES), routing_key=QUEUE)
        client.flush()


def drain(cluster: Cluster, count: int) -> None:
    """Take them all: each comes once, in order."""
    numbers = []
    with Client(cluster.url) as client:
        channel = client.channel()
        channel.set_prefetch(200)
        channel.consume(QUEUE)
        while len(numbers) < count:
            event = client.next_event(timeout=20.0)
            assert isinstance(event, Delivery), f"{event} after {len(numbers)} of {count}"
            numbers.append(int(event.payload.split(b" ")[0]))
            event.ack()
        channel.close()
    assert numbers == list(range(count))


def wait_compacted(cluster: Cluster, beyond: int) -> None:
    """Until no running node has the log of the queue's shard from `beyond` on."""
    number = cluster.queue(QUEUE).shard

    def compacted() -> bool:
        return all(shard_of(cluster, node, number).first > beyond for node in cluster.answering)

    eventually(compacted, 30, f"the log of shard {number} to begin after {beyond}")


def shard_of(cluster: Cluster, node: ClusterNode, number: int):  # type: ignore[no-untyped-def]
    return next(shard for shard in cluster.status(node).shards if shard.shard == number)


def lag(cluster: Cluster) -> ClusterNode:
    """A node that was away while most of the backlog came; it is not started yet.

    It is the one to which the shard's leadership goes back in the end.
    """
    fill(cluster, range(100))
    number = cluster.queue(QUEUE).shard
    absent = cluster.node(preferred_leader(replicas_of(number, [n.id for n in cluster.nodes], 3)))
    cluster.wait_level()
    end = shard_of(cluster, absent, number).last
    cluster.kill(absent)
    fill(cluster, range(100, BACKLOG))
    wait_compacted(cluster, end)
    return absent


def received(node: ClusterNode) -> float:
    return node.metric("raftmq_snapshot_bytes_received_total")


def wait_received(node: ClusterNode, size: float) -> None:
    eventually(lambda: received(node) >= size, 30, f"{size:g} bytes of a snapshot at {node.id}")


def wait_installed(cluster: Cluster, node: ClusterNode) -> None:
    number = cluster.queue(QUEUE).shard

    def installed() -> bool:
        if node.metric("raftmq_snapshots_received_total") < 1:
            return False  # or it does not answer yet
        return not shard_of(cluster, node, number).receiving

    eventually(installed, 60, f"the snapshot to be installed on {node.id}")


def wait_equal(cluster: Cluster, node: ClusterNode) -> None:
    """Until the node has found its state equal to that of the others, after this."""
    before = node.metric("raftmq_audits_equal_total")
    fill(cluster, range(BACKLOG, BACKLOG + 10))  # something to be applied everywhere
    eventually(lambda: node.metric("raftmq_audits_equal_total") >= before + 2, 20, "equal states")
    assert all(each.metric("raftmq_audits_different_total") == 0 for each in cluster.running)


def test_a_node_that_was_long_away_catches_up_while_traffic_flows(cluster: Cluster) -> None:
    with Publisher(cluster.url, "work") as publisher:
        publisher.wait_more(20)
        absent = lag(cluster)
        before = {node.id: node.metric("raftmq_elections_total") for node in cluster.running}
        cluster.restart(absent)
        wait_received(absent, 1_000_000)
        assert absent.http("/ready")[0] == 503
        publisher.wait_more(50)
        wait_installed(cluster, absent)
        assert {
            node.id: node.metric("raftmq_elections_total") - before[node.id]
            for node in cluster.running
            if node is not absent
        } == dict.fromkeys(before, 0), "heartbeats did not wait behind the parts"
        wait_equal(cluster, absent)
        # Each of the others dies in turn: the one that was away has all that is needed.
        for other in [node for node in cluster.nodes if node is not absent]:
            cluster.wait_ready(60)
            cluster.wait_level(60)
            cluster.kill(other)
            publisher.wait_more(20)
            cluster.restart(other)
        cluster.wait_ready(60)
    assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)
    number = cluster.queue(QUEUE).shard
    eventually(
        lambda: cluster.leader_of(number) is absent, 30, "the shard to go back to where it belongs"
    )
    drain(cluster, BACKLOG + 10)  # bodies that it read from its snapshot


def test_a_receiver_that_is_killed_goes_on_where_it_was(cluster: Cluster) -> None:
    absent = lag(cluster)
    total = BACKLOG * BODY_BYTES
    cluster.restart(absent)
    wait_received(absent, total / 3)
    first = received(absent)
    cluster.kill(absent)
    assert first < total * 0.9, "too fast to be killed in the middle"
    cluster.restart(absent)
    wait_installed(cluster, absent)
    second = received(absent)
    assert second < 1.1 * total - first, (total, first, second)
    wait_equal(cluster, absent)
    cluster.wait_level(60)
    number = cluster.queue(QUEUE).shard
    eventually(lambda: cluster.leader_of(number) is absent, 30, "the shard to come back")
    drain(cluster, BACKLOG + 10)


def test_when_the_giver_dies_the_transfer_goes_on_with_the_next_leader(cluster: Cluster) -> None:
    """Of three nodes two are left, and what they agree on has to wait for this snapshot."""
    absent = lag(cluster)
    number = cluster.queue(QUEUE).shard
    total = BACKLOG * BODY_BYTES
    cluster.restart(absent)
    wait_received(absent, total / 3)
    giver = cluster.node(shard_of(cluster, absent, number).receiving)
    cluster.kill(giver)
    wait_installed(cluster, absent)
    assert received(absent) < 1.3 * total, "bodies were taken over from the first giver"
    cluster.wait_ready(30)
    cluster.restart(giver)
    cluster.wait_ready(60)
    wait_equal(cluster, absent)
    drain(cluster, BACKLOG + 10)


def test_a_lost_disk_is_replaced_by_a_node_that_gets_it_all_by_snapshots(cluster: Cluster) -> None:
    """Under a new name, while traffic flows: shard 0 and the backlog's come whole."""
    with Publisher(cluster.url, "work") as publisher:
        publisher.wait_more(20)
        absent = lag(cluster)
        shutil.rmtree(absent.data_dir)
        done(cluster, "remove", absent.id)
        wait_settled(cluster)
        node = add(cluster, "n4")
        assert received(node) > BACKLOG * BODY_BYTES
        assert node.metric("raftmq_snapshots_received_total") >= 2
        publisher.wait_more(20)
        wait_equal(cluster, node)
        cluster.wait_level(60)
        # What it has is needed now: each of the others dies in turn.
        for other in [each for each in cluster.running if each is not node]:
            cluster.wait_ready(60)
            cluster.wait_level(60)
            cluster.kill(other)
            publisher.wait_more(20)
            cluster.restart(other)
        cluster.wait_ready(60)
    assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)
    drain(cluster, BACKLOG + 10)
