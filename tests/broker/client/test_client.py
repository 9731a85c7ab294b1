"""The client's threads, sockets and processes, against a node in memory."""

from __future__ import annotations

import gc
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.client import Client, Content, Delivery
from broker.errors import (
    ClientClosed,
    ConfigError,
    ConnectFailed,
    ContentTooLarge,
    DeadlineExceeded,
    InvalidArgument,
    NotFound,
    SessionExpired,
)
from tests.broker.client.loopback import Loopback

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 10.0


@pytest.fixture
def node() -> Iterator[Loopback]:
    with Loopback() as loopback:
        yield loopback


@pytest.fixture
def client(node: Loopback) -> Iterator[Client]:
    opened = Client(node.url, timeout=SECONDS)
    yield opened
    opened.close()


def until(condition: object) -> None:
    assert callable(condition)
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.005)


def is_readable(client: Client) -> bool:
    return bool(select.select([client.fileno()], [], [], 0)[0])


def test_publish_opens_by_itself_and_close_says_goodbye(client: Client, node: Loopback) -> None:
    assert not client.is_open
    client.publish(Content({"a": 1}, {}, b"x"), routing_key="q")
    assert client.is_open
    assert client.node == "loop"
    client.close()
    client.close()
    until(lambda: node.goodbyes == 1)
    with pytest.raises(ClientClosed):
        client.publish(b"", routing_key="q")


def test_a_pipeline_confirms_everything_and_tells_the_first_error(
    client: Client, node: Loopback
) -> None:
    with client.pipeline(window=10) as pipeline:
        for number in range(1000):
            pipeline.publish(b"%d" % number, routing_key="q")
    assert node.published == [b"%d" % number for number in range(1000)]
    node.refuse["lost"] = 404
    pending = client.publish_nowait(b"", routing_key="lost")
    with pytest.raises(NotFound):
        pending.wait()
    with pytest.raises(NotFound):
        client.flush()
    client.flush()


def test_a_full_window_blocks_up_to_the_timeout(node: Loopback) -> None:
    client = Client(node.url, publish_window=3).open()
    node.mute = True
    for _ in range(3):
        client.publish_nowait(b"", routing_key="q")
    with pytest.raises(DeadlineExceeded):
        client.publish_nowait(b"", routing_key="q", timeout=0.05)
    with pytest.raises(DeadlineExceeded):
        client.flush(timeout=0.05)
    client.collect()


def test_mistakes_are_refused_before_anything_is_sent(client: Client, node: Loopback) -> None:
    client.open()
    with pytest.raises(ContentTooLarge):
        client.publish(bytes((1 << 20) + 1), routing_key="q")
    with pytest.raises(InvalidArgument, match="routing_key"):
        client.publish(b"", routing_key="x" * 256)
    with pytest.raises(InvalidArgument, match="queue"):
        client.channel().consume("x" * 256)
    assert node.published == []
    client.publish(b"", routing_key="q")
    with pytest.raises(ConfigError, match="timeout"):
        Client(node.url, timeout=0)


def test_deliveries_are_events_and_the_descriptor_follows(client: Client) -> None:
    channel = client.channel()
    channel.set_prefetch(2)
    consumer = channel.consume("q")
    assert client.next_event(0) is None
    assert not is_readable(client)
    for number in range(3):
        client.publish(b"%d" % number, routing_key="q")
    until(lambda: is_readable(client))
    first = client.next_event(SECONDS)
    assert isinstance(first, Delivery)
    assert (first.payload, first.consumer) == (b"0", consumer)
    second = client.next_event(SECONDS)
    assert isinstance(second, Delivery)
    assert client.next_event(0.05) is None
    assert not is_readable(client)
    first.ack()
    first.ack()
    second.ack()
    third = client.next_event(SECONDS)
    assert isinstance(third, Delivery)
    assert third.payload == b"2"
    channel.cancel(consumer)
    channel.close()
    channel.close()
    with pytest.raises(ClientClosed):
        channel.set_prefetch(1)


def test_no_ack_settles_by_itself(client: Client, node: Loopback) -> None:
    channel = client.channel()
    channel.set_prefetch(1)
    channel.consume("q", no_ack=True)
    for number in range(50):
        client.publish_nowait(b"%d" % number, routing_key="q")
    bodies = [event.payload for _ in range(50) if (event := client.next_event(SECONDS))]  # type: ignore[union-attr]
    assert bodies == [b"%d" % number for number in range(50)]
    until(lambda: len(node.settled) == 50)


def test_get(client: Client, node: Loopback) -> None:
    channel = client.channel()
    assert channel.get("q") is None
    client.publish(b"x", routing_key="q")
    delivery = channel.get("q")
    assert delivery is not None
    assert (delivery.payload, delivery.ready) == (b"x", 0)
    delivery.ack()
    until(lambda: len(node.settled) == 1)


def test_a_deadline_passes_and_the_client_lives(client: Client, node: Loopback) -> None:
    client.open()
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        client.inspect("nothing", timeout=0.1)
    assert time.monotonic() - began < 2
    client.publish(b"", routing_key="q")
    assert client.engine().core.unanswered == 0


def test_nobody_there() -> None:
    with Loopback() as gone:
        url = gone.url
    began = time.monotonic()
    with pytest.raises(ConnectFailed):
        Client(url).open()
    assert time.monotonic() - began < 3


def test_a_dead_host_does_not_cost_much(node: Loopback) -> None:
    with Loopback() as gone:
        dead = gone.port
    began = time.monotonic()
    with Client(f"raftmq://127.0.0.1:{dead},127.0.0.1:{node.port}//"):
        assert time.monotonic() - began < 1


def test_a_node_that_comes_back_finds_the_session_again() -> None:
    with Loopback() as first:
        client = Client(first.url, timeout=SECONDS).open()
        port = first.port
    done = threading.Event()

    def publish() -> None:
        client.publish(b"meanwhile", routing_key="q")
        done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    with Loopback(port) as second:
        assert done.wait(SECONDS)
        thread.join()
        assert second.resumed == 1
        assert second.published == [b"meanwhile"]
        client.close()


def test_an_expired_session_fails_everyone() -> None:
    with Loopback() as first:
        client = Client(first.url, timeout=SECONDS).open()
        port = first.port
        first.mute = True
        pending = client.publish_nowait(b"", routing_key="q")
    with Loopback(port) as second:
        second.expire = True
        with pytest.raises(SessionExpired):
            client.next_event(SECONDS)
        with pytest.raises(SessionExpired):
            pending.wait()
        with pytest.raises(SessionExpired):
            client.publish(b"", routing_key="q")
        assert is_readable_after_failure(client)
        assert isinstance(client.error, SessionExpired)


def is_readable_after_failure(client: Client) -> bool:
    engine = client._engine
    assert engine is not None
    return bool(select.select([engine.fileno()], [], [], 0)[0])


def test_giving_up_after_the_time_for_reconnecting() -> None:
    with Loopback() as node:
        client = Client(node.url, reconnect=0.3).open()
    with pytest.raises(ConnectFailed):
        client.next_event(SECONDS)


def test_a_bug_in_the_thread_reaches_the_callers(client: Client) -> None:
    engine = client.open().engine()
    pending: list[BaseException] = []

    def wait() -> None:
        try:
            client.next_event(SECONDS)
        except Exception as error:  # noqa: BLE001 - looked at below
            pending.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    engine.submit(lambda: 1 // 0)  # type: ignore[arg-type]
    thread.join(SECONDS)
    assert isinstance(pending[0].__cause__, ZeroDivisionError)


def test_a_dropped_client_ends_its_thread(node: Loopback) -> None:
    engine = Client(node.url).open().engine()
    gc.collect()
    until(lambda: engine.ended.done)


def in_child(act: object) -> int:
    """Run in a fork; the exit status is 0 when it returned."""
    assert callable(act)
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            act()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_forked_publisher_has_a_session_of_its_own(client: Client, node: Loopback) -> None:
    client.publish(b"parent", routing_key="q")

    def child() -> None:
        client.publish(b"child", routing_key="q")
        client.close()

    assert in_child(child) == 0
    client.publish(b"parent again", routing_key="q")
    assert node.published == [b"parent", b"child", b"parent again"]
    assert node.sessions == 2
    assert node.resumed == 0


def test_a_forked_consumer_is_closed_and_leaves_the_parent_alone(
    client: Client, node: Loopback
) -> None:
    channel = client.channel()
    channel.consume("q")
    client.publish(b"1", routing_key="q")
    delivery = client.next_event(SECONDS)
    assert isinstance(delivery, Delivery)

    def child() -> None:
        for call in (
            lambda: client.publish(b"", routing_key="q"),
            lambda: client.next_event(0),
            lambda: channel.set_prefetch(1),
            delivery.ack,
        ):
            with pytest.raises(ClientClosed):
                call()
        client.collect()
        client.close()

    assert in_child(child) == 0
    delivery.ack()
    until(lambda: len(node.settled) == 1)
    assert node.sessions == 1


GREEN = """
import gevent.monkey; gevent.monkey.patch_all()
import gevent, sys, time
from broker.client import Client
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)
ticker = gevent.spawn(tick)
client = Client(sys.argv[1], timeout=10).open()
before = ticks
assert client.next_event(0.5) is None
assert ticks - before > 10, f"other greenlets stood still: {ticks - before}"
channel = client.channel()
channel.consume("q")
got = []
def consume():
    while len(got) < 200:
        event = client.next_event(10)
        got.append(event.payload)
        event.ack()
consumer = gevent.spawn(consume)
publishers = [
    gevent.spawn(lambda: [client.publish(b"x", routing_key="q") for _ in range(50)])
    for _ in range(4)
]
gevent.joinall([*publishers, consumer], timeout=20, raise_error=True)
assert len(got) == 200
with client.pipeline(window=10) as pipeline:
    for _ in range(500):
        pipeline.publish(b"y", routing_key="r")
client.close()
print("fine")
"""


def test_under_gevent(node: Loopback) -> None:
    pytest.importorskip("gevent")
    done = subprocess.run(
        [sys.executable, "-c", GREEN, node.url],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "fine\n", done.stderr
