"""Nodes that die under a Kombu program: it goes on, and every message arrives once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection, Consumer, Message, Producer, Queue

import kombu_transport  # noqa: F401  (registers the scheme)
from tests.cluster import Cluster, eventually

pytestmark = pytest.mark.slow

COUNT = 600


@pytest.mark.parametrize("confirmed", [True, False])
def test_the_node_of_a_program_is_killed(tmp_path: Path, confirmed: bool) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        queue = Queue("survivor", durable=True)
        options = {"confirm_publish": confirmed}
        seen: list[int] = []
        failures: list[BaseException] = []

        def publish() -> None:
            try:
                with Connection(cluster.url, transport_options=options) as connection:
                    producer = Producer(connection)
                    for body in range(COUNT):
                        producer.publish(body, routing_key="survivor", declare=[queue])
            except BaseException as error:  # noqa: BLE001  for the assertion below
                failures.append(error)

        def receive(body: Any, message: Message) -> None:
            seen.append(body)
            message.ack()

        with Connection(cluster.url) as connection:
            consumer = Consumer(connection, [queue], callbacks=[receive], prefetch_count=10)
            with consumer:
                publisher = threading.Thread(target=publish)
                publisher.start()
                while len(seen) < COUNT // 3:
                    connection.drain_events(timeout=20)
                home = connection.connection.broker.node
                cluster.kill(home)
                while len(seen) < COUNT:
                    connection.drain_events(timeout=20)
                publisher.join(20)
            assert not failures
            assert connection.connection.broker.node != home
        assert sorted(seen) == list(range(COUNT)), "each once"
        eventually(lambda: cluster.queue("survivor").ready == 0, 10, "an empty queue")
