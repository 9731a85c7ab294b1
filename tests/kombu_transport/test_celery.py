"""Celery on real nodes: every kind of pool, remote control, events."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from tests.celery_app import app as tasks
from tests.celery_app import record
from tests.celery_worker import Worker, lines_of
from tests.cluster import Cluster, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def app(triple: Cluster) -> Iterator[Celery]:
    """The tests' application, at this cluster."""
    with Celery("tests", broker=triple.url, set_as_current=False) as app:
        app.conf.update(task_ignore_result=True, broker_connection_retry=False)
        yield app
    tasks.pool.force_close_all()


def send(app: Celery, queue: str, path: Path, count: int) -> None:
    with app.producer_pool.acquire(block=True) as producer:
        for number in range(count):
            app.send_task(record.name, (str(path), number), queue=queue, producer=producer)


def numbers(path: Path) -> list[int]:
    return sorted(int(line[0]) for line in lines_of(path))


@pytest.mark.parametrize(
    ("pool", "concurrency"), [("solo", 1), ("prefork", 2), ("threads", 4), ("gevent", 8)]
)
def test_every_pool(
    triple: Cluster, app: Celery, tmp_path: Path, pool: str, concurrency: int
) -> None:
    queue, path = f"{pool}-{uuid.uuid4().hex}", tmp_path / "lines"
    with Worker(
        triple.url, tmp_path, name=pool, pool=pool, concurrency=concurrency, queue=queue
    ) as worker:
        worker.wait_ready()
        send(app, queue, path, 200)
        eventually(lambda: len(lines_of(path)) >= 200, 30, "200 tasks done")
        assert numbers(path) == list(range(200))
        assert worker.stop() == 0
    assert "Traceback" not in worker.log()
    with app.connection() as connection:
        channel = connection.default_channel
        assert channel.queue_declare(queue=queue, passive=True).message_count == 0
        channel.queue_delete(queue)


def test_children_that_are_replaced_leave_the_worker_alone(
    triple: Cluster, app: Celery, tmp_path: Path
) -> None:
    queue, path = f"children-{uuid.uuid4().hex}", tmp_path / "lines"
    with Worker(
        triple.url,
        tmp_path,
        pool="prefork",
        concurrency=2,
        queue=queue,
        arguments=("--max-tasks-per-child", "5"),
    ) as worker:
        worker.wait_ready()
        send(app, queue, path, 60)
        eventually(lambda: len(lines_of(path)) >= 60, 60, "60 tasks done")
        assert numbers(path) == list(range(60))
        assert worker.stop() == 0


def test_remote_control(triple: Cluster, app: Celery, tmp_path: Path) -> None:
    queue = f"control-{uuid.uuid4().hex}"
    with Worker(triple.url, tmp_path, name="ctl", pool="solo", queue=queue) as worker:
        worker.wait_ready()
        asked = app.control.inspect(["ctl@test"], timeout=5, limit=1)
        assert asked.ping() == {"ctl@test": {"ok": "pong"}}
        assert [one["name"] for one in asked.active_queues()["ctl@test"]] == [queue]
        broker = asked.stats()["ctl@test"]["broker"]
        assert (broker["transport"], broker.get("password")) == ("raftmq", None)
        app.control.add_consumer("another", destination=["ctl@test"], reply=True, limit=1)
        names = {one["name"] for one in asked.active_queues()["ctl@test"]}
        assert names == {queue, "another"}
        app.control.shutdown(["ctl@test"])
        assert worker.process is not None
        assert worker.process.wait(20) == 0


def test_two_workers_mingle_and_see_each_other_go(
    triple: Cluster, app: Celery, tmp_path: Path
) -> None:
    queue = f"gossip-{uuid.uuid4().hex}"
    with Worker(triple.url, tmp_path, name="one", pool="solo", queue=queue) as one:
        one.wait_ready()
        with Worker(triple.url, tmp_path, name="two", pool="solo", queue=queue) as two:
            two.wait_ready()
            assert "mingle: sync with 1 nodes" in two.log()
            _both_answer(app)
            assert two.stop() == 0


def _both_answer(app: Celery) -> None:
    pinged = app.control.ping(timeout=3, limit=2)
    assert sorted(name for reply in pinged for name in reply) == ["one@test", "two@test"]


def test_events(triple: Cluster, app: Celery, tmp_path: Path) -> None:
    queue, path = f"events-{uuid.uuid4().hex}", tmp_path / "lines"
    seen: list[dict[str, Any]] = []
    ready = threading.Event()

    def capture() -> None:
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": seen.append})
            receiver.on_consume_ready = lambda *_, **__: ready.set()
            for _ in receiver.consume(limit=None, timeout=15, wakeup=False):
                if any(event["type"] == "task-succeeded" for event in seen):
                    return

    thread = threading.Thread(target=capture, daemon=True)
    thread.start()
    assert ready.wait(10)
    with Worker(
        triple.url, tmp_path, name="ev", pool="solo", queue=queue, arguments=("--task-events",)
    ) as worker:
        worker.wait_ready()
        send(app, queue, path, 1)
        thread.join(20)
    kinds = {event["type"] for event in seen}
    assert {"task-received", "task-started", "task-succeeded", "worker-online"} <= kinds


def test_purge(triple: Cluster, app: Celery, tmp_path: Path) -> None:
    queue = f"purge-{uuid.uuid4().hex}"
    app.conf.task_default_queue = queue
    send(app, queue, tmp_path / "never", 7)
    assert app.control.purge() == 7
    assert app.control.purge() == 0


def test_a_countdown_and_an_expiry(triple: Cluster, app: Celery, tmp_path: Path) -> None:
    queue, path = f"eta-{uuid.uuid4().hex}", tmp_path / "lines"
    with Worker(triple.url, tmp_path, name="eta", pool="prefork", queue=queue) as worker:
        app.send_task(record.name, (str(path), 99), queue=queue, expires=0.1)
        eventually(lambda: not lines_of(path), 1, "nothing yet")
        worker.wait_ready()
        for number in range(10):
            app.send_task(record.name, (str(path), number), queue=queue, countdown=1)
        eventually(lambda: len(lines_of(path)) >= 10, 20, "10 tasks done")
        assert numbers(path) == list(range(10))
