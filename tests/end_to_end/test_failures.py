"""What applications live through while nodes die, stop and come back."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from tests.celery_app import hang_once, record
from tests.celery_worker import Worker, lines_of, send
from tests.cluster import Cluster, eventually
from tests.end_to_end.traffic import Publisher, assert_each_once, publish, receive

ELECTION_S = 1.0  # the shortest time after which a follower stands for a leader it does not hear
GRACE_S = 5.0  # what a client wishes for that is not told otherwise

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("role", ["leader", "follower"])
def test_a_killed_node_costs_a_pause_and_nothing_else(cluster: Cluster, role: str) -> None:
    with Publisher(cluster.url, "work") as publisher:
        publisher.wait_more(100)
        leader = cluster.leader_of_queue("work")
        follower = next(node for node in cluster.nodes if node is not leader)
        victim = leader if role == "leader" else follower
        cluster.kill(victim)
        publisher.wait_more(100)
        cluster.restart(victim)
        publisher.wait_more(50)
        cluster.wait_ready()
    cluster.wait_level()
    assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_backlog_survives_the_end_of_all_nodes(cluster: Cluster, how: signal.Signals) -> None:
    publish(cluster.url, "work", range(200))
    for node in cluster.nodes:
        assert node.process is not None
        node.process.send_signal(how)
    for node in cluster.nodes:
        assert node.process is not None
        assert node.process.wait(10) in (0, -signal.SIGKILL)
    cluster.start()
    cluster.wait_ready()
    assert cluster.queue("work").ready == 200
    assert_each_once(receive(cluster.url, "work", 200), 200)


def test_a_node_without_its_majority_lives_and_says_why_it_does_not_serve(
    cluster: Cluster,
) -> None:
    lone, *others = cluster.nodes
    for node in others:
        cluster.kill(node)
    _, body = eventually(
        lambda: (seen := lone.http("/ready"))[0] == 503 and seen, 15, "not ready any more"
    )
    assert json.loads(body)["reason"]
    assert lone.http("/health")[0] == 200
    for node in others:
        cluster.restart(node)
    cluster.wait_ready()
    publish(cluster.url, "work", range(3))


def test_the_task_of_a_killed_worker_comes_back_as_redelivered(
    cluster: Cluster, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    with Worker(cluster.url, tmp_path, name="w1") as doomed:
        doomed.wait_ready()
        send(cluster.url, hang_once, str(seen), 1)
        eventually(lambda: lines_of(seen), 15, "the task to start")
        doomed.kill()
        died = time.monotonic()
        with Worker(cluster.url, tmp_path, name="w2"):
            eventually(lambda: len(lines_of(seen)) == 2, GRACE_S + 15, "the task to come back")
            assert time.monotonic() - died > GRACE_S / 2, "a lost link is no clean end: wait first"
    assert lines_of(seen) == [["1", "first"], ["1", "again"]]


@pytest.mark.parametrize("pool", ["prefork", "threads"])  # with Celery's event loop, and without
def test_a_worker_that_lost_its_session_consumes_again(
    cluster: Cluster, tmp_path: Path, pool: str
) -> None:
    seen = tmp_path / "seen"
    options = {"session_grace": 1, "reconnect_timeout": 2}
    with Worker(
        cluster.url, tmp_path, pool=pool, configuration={"broker_transport_options": options}
    ) as worker:
        worker.wait_ready()
        before = {session.id for session in cluster.status("n1").sessions}
        for node in cluster.nodes:
            cluster.kill(node)
        # The worker does not always say that it is cut off: Celery's heartbeat may meet it first,
        # which then blocks its loop, silently, until it can publish again.
        ends = time.monotonic() + 2 * options["reconnect_timeout"]
        eventually(lambda: time.monotonic() > ends, 10, "the client to have given up")
        for node in cluster.nodes:
            cluster.restart(node)
        cluster.wait_ready()
        send(cluster.url, record, str(seen), 7)
        eventually(lambda: lines_of(seen), 40, "the task to run")
        eventually(
            lambda: before.isdisjoint(session.id for session in cluster.status("n1").sessions),
            20,
            "the lost sessions to end",
        )
    assert lines_of(seen) == [["7", "w1@test"]]


def test_a_worker_may_start_before_its_cluster(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    cluster = Cluster(tmp_path)
    with Worker(cluster.url, tmp_path) as worker:
        eventually(lambda: "Cannot connect" in worker.log() or "ERROR" in worker.log(), 25, "a try")
        with cluster:
            cluster.wait_ready()
            send(cluster.url, record, str(seen), 7)
            eventually(lambda: lines_of(seen), 40, "the task to run")
    assert lines_of(seen) == [["7", "w1@test"]]


def test_a_rolling_restart_costs_no_election_timeout_and_no_message(cluster: Cluster) -> None:
    with Publisher(cluster.url, "work") as publisher:
        publisher.wait_more(100)
        publisher.longest_pause_s = 0.0
        for node in cluster.nodes:
            assert cluster.terminate(node) == 0
            publisher.wait_more(50)
            cluster.restart(node)
            cluster.wait_ready()
            cluster.wait_level()
        pause_s = publisher.longest_pause_s
    assert pause_s < ELECTION_S, "nobody waits for an election when leaders are told to stop"
    assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)


def test_nodes_that_are_all_told_to_stop_do_not_wait_for_one_another(cluster: Cluster) -> None:
    began = time.monotonic()
    for node in cluster.nodes:
        assert node.process is not None
        node.process.terminate()
    for node in cluster.nodes:
        assert node.process is not None
        assert node.process.wait(10) == 0
    assert time.monotonic() - began < 1.5, "less than the time that a node has for handing over"
