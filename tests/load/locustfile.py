"""Load for Locust: users that publish, and users that consume what was published.

    locust -f tests/load/locustfile.py --host raftmq://127.0.0.1:7650//     its page, port 8089
    locust -f tests/load/locustfile.py --host ... --headless -u 4 -r 4 -t 10s   no page
    locust ... --through client          past Kombu, by the client it is made of
    locust ... --rate 100                messages per second and publisher; as many as go without

What Locust shows, in ms:
    publish     confirmed   from the call until the message is safe on a majority
    consume     end to end  from just before the publish until a consumer has the message

All in one file, for Locust sends this one alone to its workers. Publishers and consumers are
equally many. The moment of sending is in the message, so the machines that take part must
agree on the time. Locust runs users as greenlets: this also loads the transport under gevent.
"""

from __future__ import annotations

import argparse
import contextlib
import struct
import time
from collections.abc import Callable
from typing import Any, Protocol

from kombu import Connection, Consumer, Exchange, Producer, Queue
from locust import User, constant_throughput, events, task
from locust.env import Environment
from locust.runners import WorkerRunner

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu
from broker.client import Client, Delivery

RAW = "application/octet-stream"
WAIT_S = 0.5
SENT_AT = struct.Struct(">d")

OnBody = Callable[[bytes], None]


class Link(Protocol):
    """One connection to the cluster, of one user."""

    def publish(self, body: bytes) -> None:
        """Returns when the message is confirmed."""

    def consume(self, on_body: OnBody, prefetch: int) -> None:
        """Begin to consume: `on_body` is called from `wait`, then the message acknowledged."""

    def wait(self) -> None:
        """Take what comes; return after `WAIT_S` at the latest when nothing does."""

    def purge(self) -> None: ...

    def close(self) -> None: ...


class KombuLink:
    """By Kombu's public API, as Celery goes."""

    def __init__(self, url: str, name: str) -> None:
        self._connection = Connection(url)
        self._channel = self._connection.channel()
        exchange = Exchange(name, type="direct")
        self._queue = Queue(name, exchange, routing_key=name)(self._channel)
        self._queue.declare()
        self._producer = Producer(self._channel, exchange, name)

    def publish(self, body: bytes) -> None:
        self._producer.publish(body, content_type=RAW, content_encoding="binary")

    def consume(self, on_body: OnBody, prefetch: int) -> None:
        def on_message(message: Any) -> None:
            on_body(message.body)
            message.ack()

        Consumer(
            self._channel,
            [self._queue],
            on_message=on_message,
            auto_declare=False,
            prefetch_count=prefetch,
        ).consume()

    def wait(self) -> None:
        with contextlib.suppress(TimeoutError):
            self._connection.drain_events(timeout=WAIT_S)

    def purge(self) -> None:
        self._queue.purge()

    def close(self) -> None:
        self._connection.close()


class ClientLink:
    """By the client inside the transport; the difference is what Kombu costs."""

    def __init__(self, url: str, name: str) -> None:
        self._client = Client(url).open()
        self._name = name
        self._client.declare_queue(name)
        self._client.declare_exchange(name)
        self._client.bind_queue(name, name, name)

    def publish(self, body: bytes) -> None:
        self._client.publish(body, self._name, self._name)

    def consume(self, on_body: OnBody, prefetch: int) -> None:
        def on_delivery(delivery: Delivery) -> None:
            on_body(delivery.payload)
            delivery.ack()

        channel = self._client.channel()
        channel.set_prefetch(prefetch)
        channel.consume(self._name, on_delivery=on_delivery)

    def wait(self) -> None:
        self._client.dispatch(WAIT_S)

    def purge(self) -> None:
        self._client.purge_queue(self._name)

    def close(self) -> None:
        self._client.close()


LINKS: dict[str, Callable[[str, str], Link]] = {"kombu": KombuLink, "client": ClientLink}


@events.init_command_line_parser.add_listener
def _options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("RaftMQ")
    group.add_argument("--through", choices=sorted(LINKS), default="kombu")
    group.add_argument("--queue", default="load", help="queue and exchange; emptied at the start")
    group.add_argument("--body-bytes", type=int, default=1024)
    group.add_argument("--prefetch", type=int, default=100)
    group.add_argument("--rate", type=float, default=0.0, help="messages/s and publisher; 0: all")


@events.test_start.add_listener
def _empty_queue(environment: Environment, **_: Any) -> None:
    """Messages of an earlier run would count as very late ones of this run."""
    if isinstance(environment.runner, WorkerRunner):
        return
    link = _connect(environment)
    try:
        link.purge()
    finally:
        link.close()


def _connect(environment: Environment) -> Link:
    given = environment.parsed_options
    assert given is not None
    return LINKS[given.through](environment.host or ClusterUser.host, given.queue)


class ClusterUser(User):
    """What publishers and consumers share: a link, and how to tell Locust what happened."""

    abstract = True
    host = "raftmq://127.0.0.1:7650//"

    def on_start(self) -> None:
        self.given = self.environment.parsed_options
        self.link = _connect(self.environment)

    def on_stop(self) -> None:
        self.link.close()

    def report(
        self, kind: str, name: str, seconds: float, size: int, error: Exception | None
    ) -> None:
        self.environment.events.request.fire(
            request_type=kind,
            name=name,
            response_time=seconds * 1e3,
            response_length=size,
            exception=error,
            context={},
        )


class Publisher(ClusterUser):
    """Publishes one message after the other, each confirmed before the next."""

    def on_start(self) -> None:
        super().on_start()
        rate = self.given.rate
        self._pause = constant_throughput(rate) if rate > 0 else None
        self._padding = b"." * max(0, self.given.body_bytes - SENT_AT.size)

    def wait_time(self) -> float:
        return self._pause(self) if self._pause is not None else 0.0

    @task
    def publish(self) -> None:
        error: Exception | None = None
        body = SENT_AT.pack(time.time()) + self._padding
        began = time.monotonic()
        try:
            self.link.publish(body)
        except Exception as raised:  # noqa: BLE001  whatever it is, it is a failure to be shown
            error = raised
        self.report("publish", "confirmed", time.monotonic() - began, len(body), error)


class Receiver(ClusterUser):
    """Consumes and acknowledges whatever publishers send, its own or another's."""

    def on_start(self) -> None:
        super().on_start()
        self.link.consume(self._received, self.given.prefetch)

    def wait_time(self) -> float:
        return 0.0

    def _received(self, body: bytes) -> None:
        age = time.time() - float(SENT_AT.unpack_from(body)[0])
        self.report("consume", "end to end", age, len(body), None)

    @task
    def consume(self) -> None:
        began = time.monotonic()
        try:
            self.link.wait()
        except Exception as error:  # noqa: BLE001  whatever it is, it is a failure to be shown
            self.report("consume", "end to end", time.monotonic() - began, 0, error)
