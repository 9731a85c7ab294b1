"""What works on a cluster that is well."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.client import Client, Delivery
from broker.errors import NoRoute
from tests.celery_app import app, record, record_size
from tests.celery_worker import Worker, lines_of
from tests.cluster import Cluster, eventually
from tests.end_to_end.traffic import assert_each_once, publish, receive

BODY_BYTES = 5 << 20

pytestmark = pytest.mark.slow


def test_a_client_of_a_node_that_leads_nothing_of_it(calm_cluster: Cluster) -> None:
    publish(calm_cluster.url, "aside", range(1))
    leader = calm_cluster.leader_of_queue("aside")
    for node in calm_cluster.nodes:
        if node is not leader:
            received = receive(calm_cluster.url_of(node), "aside", 1)
            assert_each_once(received, 1)
            publish(calm_cluster.url_of(node), "aside", range(1))


def test_the_metrics_count_what_happened(calm_cluster: Cluster) -> None:
    def total(name: str) -> float:
        return sum(node.metric(f"raftmq_{name}_total") for node in calm_cluster.nodes)

    names = ("published", "delivered", "redelivered", "acked", "requeued", "dropped", "unroutable")
    names = (*names, "sessions_opened", "client_frames", "peer_frames", "refused", "commits")
    before = {name: total(name) for name in names}
    with Client(calm_cluster.url) as client:
        client.declare_queue("counted")
        for number in range(10):
            client.publish(b"%d" % number, routing_key="counted")
        client.publish(b"", routing_key="nowhere")
        with pytest.raises(NoRoute):
            client.publish(b"", routing_key="nowhere", mandatory=True)
        channel = client.channel()
        channel.set_prefetch(1)
        channel.consume("counted")
        settle = ["requeue", "reject", *["ack"] * 9]
        for how in settle:
            event = client.next_event(5)
            assert isinstance(event, Delivery)
            getattr(event, how)()
        channel.close()
    counted = {name: total(name) - before[name] for name in names}
    exact = {"published": 10, "delivered": 11, "redelivered": 1, "acked": 9, "requeued": 1}
    exact |= {"dropped": 1, "unroutable": 2, "sessions_opened": 1, "refused": 1}
    assert {name: counted[name] for name in exact} == exact
    for name in ("client_frames", "peer_frames", "commits"):
        assert counted[name] > 0, name
    leaders = [n.metric("raftmq_raft_is_leader", shard="0") for n in calm_cluster.nodes]
    assert sorted(leaders) == [0, 0, 1]


def test_two_workers_share_a_queue(calm_cluster: Cluster, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    url = calm_cluster.url
    with (
        Worker(url, tmp_path, name="w1", queue="shared") as first,
        Worker(url, tmp_path, name="w2", queue="shared") as second,
    ):
        first.wait_ready()
        second.wait_ready()
        with app.connection_for_write(url) as connection:
            for number in range(60):
                record.apply_async((str(seen), number), queue="shared", connection=connection)
        eventually(lambda: len(lines_of(seen)) >= 60, 30, "60 tasks")
    lines = lines_of(seen)
    assert sorted(int(number) for number, _ in lines) == list(range(60))
    assert {worker for _, worker in lines} == {"w1@test", "w2@test"}


@pytest.mark.parametrize("pool", ["solo", "threads", "prefork", "gevent"])
def test_large_tasks_in_every_pool(calm_cluster: Cluster, tmp_path: Path, pool: str) -> None:
    seen = tmp_path / "seen"
    queue = f"large-{pool}"
    with Worker(calm_cluster.url, tmp_path, pool=pool, queue=queue, concurrency=2) as worker:
        worker.wait_ready()
        with app.connection_for_write(calm_cluster.url) as connection:
            for _ in range(2):
                record_size.apply_async(
                    (str(seen), "x" * BODY_BYTES), queue=queue, connection=connection
                )
        eventually(lambda: len(lines_of(seen)) == 2, 30, "both tasks")
        assert lines_of(seen) == [[str(BODY_BYTES)]] * 2
        assert worker.stop() == 0
