"""Connections to real nodes: life and death, the event loop, forks, threads and greenlets."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kombu import Connection, Consumer, Message, Producer, Queue
from kombu.asynchronous.hub import Hub
from kombu.exceptions import OperationalError

from broker.errors import ConfigError
from tests.cluster import Cluster, free_port, python_environment

Connect = Callable[..., Connection]


def publish(queue: Queue, *bodies: Any) -> None:
    producer = Producer(queue.channel)
    for body in bodies:
        producer.publish(body, routing_key=queue.name)


# --- life and death -----------------------------------------------------------------------


def test_connect_close_and_connect_again(connection: Connection) -> None:
    for _ in range(3):
        assert connection.connect() is connection.connection
        assert connection.connected
        channel = connection.default_channel
        connection.close()
        connection.close()
        assert connection.connection is None and channel.connection is None
        assert not connection.connected


@pytest.mark.parametrize(
    "connect",
    [
        Connection.connect,
        lambda connection: connection.default_channel,
        lambda connection: connection.ensure_connection(max_retries=1, interval_start=0),
    ],
)
def test_nobody_there(connect: Callable[[Connection], Any]) -> None:
    url = f"raftmq://127.0.0.1:{free_port()}//"
    connection = Connection(url, connect_timeout=0.5, transport_options={"max_retries": 1})
    began = time.monotonic()
    with pytest.raises((*connection.recoverable_connection_errors, OperationalError)):
        connect(connection)
    assert time.monotonic() - began < 6
    connection.release()


def test_dead_nodes_are_passed_over(single: Cluster) -> None:
    dead, live = f"127.0.0.1:{free_port()}", single.nodes[0].address
    for url in (f"raftmq://{dead},{live}//", f"raftmq://{dead}//;raftmq://{live}//"):
        with Connection(url) as connection:
            connection.connect()
            assert connection.connected


def test_options_reach_the_connection_and_wrong_ones_are_named(connect: Connect) -> None:
    assert connect(publish_window=5, max_retries=2).connection.options.publish_window == 5
    with pytest.raises(ConfigError, match="publish_window"):
        connect(publish_window="many").connect()


def test_what_celery_asks_of_a_transport(connection: Connection) -> None:
    transport = connection.transport
    assert (transport.driver_type, transport.driver_name) == ("amqp", "raftmq")
    assert transport.driver_version()
    assert connection.supports_heartbeats and connection.is_evented
    assert connection.supports_exchange_type("fanout")
    assert connection.qos_semantics_matches_spec is False
    assert connection.get_heartbeat_interval() == 0
    connection.heartbeat_check()
    with connection.clone(heartbeat=30) as other:
        assert other.get_heartbeat_interval() == 30


def test_a_killed_session_is_a_connection_error_and_is_replaced(
    connection: Connection, queue: Queue
) -> None:
    """The cluster stays; what goes is the client, as after a fork or a long pause."""
    producer = Producer(connection.default_channel)
    connection.connection.broker.collect()
    assert not connection.connected
    with pytest.raises(connection.recoverable_connection_errors):
        connection._connection.drain_events(timeout=1)
    with pytest.raises(connection.recoverable_connection_errors):
        connection.transport.heartbeat_check(connection._connection)
    producer.publish("x", routing_key=queue.name, retry=True, retry_policy={"max_retries": 2})
    with connection.clone() as other:
        assert queue(other.default_channel).get(no_ack=True).payload == "x"


def test_collect_says_nothing_to_the_broker(connect: Connect, queue: Queue) -> None:
    publish(queue, "x")
    connection = connect()
    held = queue(connection.default_channel).get()
    connection.collect()
    assert connection._connection is None and held.channel.connection is None
    assert queue.get() is None, "the session lives on for its grace"


# --- event loop ---------------------------------------------------------------------------


def turn(hub: Hub, until: Callable[[], bool], timeout: float = 5) -> None:
    deadline = time.monotonic() + timeout
    while not until():
        assert time.monotonic() < deadline, "nothing happened"
        hub.run_once()


@pytest.fixture
def hub() -> Any:
    hub = Hub()
    yield hub
    hub.close()


@pytest.mark.parametrize("first", ["consume", "register"])
def test_a_loop_is_told_of_every_message(
    hub: Hub, connection: Connection, queue: Queue, first: str
) -> None:
    publish(queue, *range(250))
    seen: list[Any] = []
    acked: list[Any] = []

    def ack(message: Message) -> None:
        message.ack()
        acked.append(message)

    def receive(body: Any, message: Message) -> None:
        seen.append(body)
        hub.call_soon(ack, message)

    consumer = Consumer(connection.default_channel, [queue], callbacks=[receive], prefetch_count=7)
    if first == "consume":
        consumer.consume()
        time.sleep(0.2)  # they are here before the loop looks
        connection.register_with_event_loop(hub)
    else:
        connection.register_with_event_loop(hub)
        consumer.consume()
    turn(hub, lambda: len(acked) == 250)
    assert seen == list(range(250))


def test_a_loop_sleeps_while_nothing_happens(hub: Hub, connection: Connection) -> None:
    connection.connect()
    connection.register_with_event_loop(hub)
    hub.run_once()
    began, turns = time.monotonic(), 0
    while time.monotonic() - began < 1.5:
        hub.run_once()
        turns += 1
    assert turns < 10


def test_a_loop_is_left_on_close_and_on_collect(hub: Hub, connect: Connect) -> None:
    for end in ("close", "collect"):
        connection = connect()
        connection.connect()
        connection.register_with_event_loop(hub)
        assert len(hub.readers) == 1
        getattr(connection, end)()
        assert not hub.readers
        hub.run_once()


def test_a_loop_hears_of_a_lost_session(hub: Hub, connection: Connection) -> None:
    connection.connect()
    connection.register_with_event_loop(hub)
    hub.run_once()
    connection.connection.broker.close(1)
    with pytest.raises(connection.recoverable_connection_errors):
        turn(hub, lambda: False)


# --- processes, threads, greenlets ----------------------------------------------------------


def in_child(work: Callable[[], None]) -> int:
    """Run in a forked child; its exit code."""
    pid = os.fork()
    if not pid:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the child hangs")


def test_a_child_uses_its_own_connection_and_leaves_the_parents_alone(
    hub: Hub, connection: Connection, queue: Queue
) -> None:
    publish(queue, "parent's")
    held = queue.get()
    producer = Producer(connection)
    connection.register_with_event_loop(hub)
    hub.run_once()

    def work() -> None:
        assert not connection.connected
        with pytest.raises(connection.recoverable_connection_errors):
            held.ack()
        connection.collect()
        producer.publish("child's", routing_key=queue.name)
        connection.release()

    assert in_child(work) == 0
    assert in_child(connection.release) == 0
    assert queue.get(no_ack=True).payload == "child's"
    held.ack()
    seen: list[Message] = []
    consumer = Consumer(queue.channel, [queue], on_message=seen.append, no_ack=True)
    consumer.consume()
    publish(queue, "again")
    turn(hub, lambda: bool(seen))


def test_many_threads_publish_through_one_connection(connection: Connection, queue: Queue) -> None:
    def work(number: int) -> None:
        producer = Producer(connection)
        for body in range(50):
            producer.publish([number, body], routing_key=queue.name)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    got = [queue.get(no_ack=True).payload for _ in range(400)]
    for number in range(8):
        assert [body for who, body in got if who == number] == list(range(50))


def test_acks_from_other_threads(connection: Connection, queue: Queue) -> None:
    publish(queue, *range(100))
    seen: list[Any] = []

    def receive(message: Message) -> None:
        seen.append(message)
        threading.Thread(target=message.ack).start()

    with Consumer(queue.channel, [queue], on_message=receive, prefetch_count=2):
        for _ in range(100):
            connection.drain_events(timeout=5)
    assert len(seen) == 100


GREENLETS = """
from gevent import monkey; monkey.patch_all()
import socket, sys, time, gevent
import kombu_transport
from kombu import Connection, Consumer, Producer, Queue

name, ticks, seen = sys.argv[2], [0], []

def tick():
    while True:
        gevent.sleep(0.05)
        ticks[0] += 1

gevent.spawn(tick)
with Connection(sys.argv[1]) as connection:
    queue = Queue(name, exclusive=True)(connection.default_channel)
    queue.declare()

    def publish():
        for body in range(20):
            Producer(connection.channel()).publish(body, routing_key=name)

    with Consumer(queue.channel, [queue], on_message=seen.append):
        try:
            connection.drain_events(timeout=1)
        except socket.timeout:
            pass
        assert ticks[0] >= 10, f"greenlets froze: {ticks[0]} ticks in a second"
        publishers = [gevent.spawn(publish) for _ in range(5)]
        deadline = time.monotonic() + 10
        while len(seen) < 100 and time.monotonic() < deadline:
            connection.drain_events(timeout=5)
            gevent.spawn(seen[-1].ack)
        gevent.joinall(publishers, timeout=10)
    assert len(seen) == 100, len(seen)
print("fine")
"""


def test_greenlets_go_on_while_one_waits(single: Cluster) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GREENLETS, single.url, f"green-{uuid.uuid4().hex}"],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "fine", done.stderr


PUBLISH_AND_END = """
import sys, kombu_transport
from kombu import Connection, Producer
connection = Connection(sys.argv[1], transport_options={"confirm_publish": False})
producer = Producer(connection)
for body in range(300):
    producer.publish(body, routing_key=sys.argv[2])
"""


def test_a_program_that_just_ends_has_published_what_it_published(
    single: Cluster, queue: Queue
) -> None:
    subprocess.run(
        [sys.executable, "-c", PUBLISH_AND_END, single.url, queue.name],
        env=python_environment(),
        check=True,
        timeout=60,
    )
    assert queue.queue_declare(passive=True).message_count == 300


def test_nothing_is_no_event(connection: Connection) -> None:
    connection.connect()
    for timeout in (0, 0.05):
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=timeout)
