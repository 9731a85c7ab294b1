"""Numbered messages through Kombu: published one by one as they are confirmed, and received."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Any

from kombu import Connection, Consumer, Exchange, Queue

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu
from tests.cluster import ClusterError, eventually

SOCKET_TIMEOUT_S = 0.5


def queue_named(name: str) -> Queue:
    """A durable queue on a direct exchange of the same name, as Celery makes them."""
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def publish(url: str, name: str, numbers: range) -> None:
    """Publish numbers to a queue; returns when all are confirmed."""
    queue = queue_named(name)
    with Connection(url) as connection, connection.Producer() as producer:
        for number in numbers:
            producer.publish(number, exchange=queue.exchange, routing_key=name, declare=[queue])


class Publisher:
    """Publishes 0, 1, 2, ... from a thread until it is stopped; a failure fails the test."""

    def __init__(self, url: str, name: str) -> None:
        self._url = url
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None
        self.confirmed = 0  #: every number below it is confirmed
        self.longest_pause_s = 0.0

    def __enter__(self) -> Publisher:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(30)
        assert not self._thread.is_alive(), f"publish() hangs after {self.confirmed} messages"
        if self._error is not None and error is None:
            raise ClusterError(f"publishing failed: {self._error!r}") from self._error

    def wait_more(self, count: int, timeout_s: float = 20.0) -> None:
        """Until `count` more messages are confirmed than now."""
        goal = self.confirmed + count
        eventually(
            lambda: self.confirmed >= goal or self._error is not None,
            timeout_s,
            f"{count} more confirmed publishes ({self.confirmed} of {goal})",
        )

    def _run(self) -> None:
        try:
            self._publish_all()
        except Exception as error:  # noqa: BLE001  raised again where the test leaves the `with`
            self._error = error

    def _publish_all(self) -> None:
        queue = queue_named(self._name)
        with Connection(self._url) as connection, connection.Producer() as producer:
            last = time.monotonic()
            while not self._stop.is_set():
                producer.publish(
                    self.confirmed, exchange=queue.exchange, routing_key=self._name, declare=[queue]
                )
                now = time.monotonic()
                self.longest_pause_s = max(self.longest_pause_s, now - last)
                last = now
                self.confirmed += 1


def receive(url: str, name: str, count: int, timeout_s: float = 30.0) -> list[tuple[int, bool]]:
    """`count` messages of a queue in the order they came, acknowledged: (number, redelivered).

    Waits a moment longer, so that a message too many is seen too.
    """
    received: list[tuple[int, bool]] = []

    def on_message(body: Any, message: Any) -> None:
        received.append((body, bool(message.delivery_info.get("redelivered"))))
        message.ack()

    deadline = time.monotonic() + timeout_s
    with Connection(url) as connection:
        consumer = Consumer(connection, [queue_named(name)], callbacks=[on_message])
        consumer.qos(prefetch_count=200)
        with consumer:
            while time.monotonic() < deadline:
                try:
                    connection.drain_events(timeout=SOCKET_TIMEOUT_S)
                except TimeoutError:
                    if len(received) >= count:
                        break
    return received


def assert_each_once(received: list[tuple[int, bool]], count: int) -> None:
    """All numbers below `count`, each once, in the order in which they were published."""
    numbers = [number for number, _ in received]
    missing = sorted(set(range(count)) - set(numbers))
    repeated = sorted({number for number in numbers if numbers.count(number) > 1})
    assert not missing, f"lost {len(missing)} of {count}: {missing[:20]}"
    assert not repeated, f"{len(repeated)} came twice: {repeated[:20]}"
    assert numbers == list(range(count)), "out of order"
