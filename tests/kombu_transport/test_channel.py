"""Channels on a real node: declaring, publishing, consuming, settling, and their errors."""

from __future__ import annotations

import socket
import uuid
from collections.abc import Callable
from typing import Any

import amqp.exceptions as amqp
import pytest
from kombu import Connection, Consumer, Exchange, Message, Producer, Queue

from kombu_transport.channel import Channel

Connect = Callable[..., Connection]


def drain(connection: Connection, count: int, timeout: float = 5) -> None:
    for _ in range(count):
        connection.drain_events(timeout=timeout)


def publish(queue: Queue, *bodies: Any, **options: Any) -> None:
    producer = Producer(queue.channel)
    for body in bodies:
        producer.publish(body, routing_key=queue.name, **options)


def idle(connection: Connection, timeout: float = 0.3) -> bool:
    try:
        connection.drain_events(timeout=timeout)
    except TimeoutError:
        return True
    return False


# --- declaring ----------------------------------------------------------------------------


def test_declare_answers_with_name_messages_and_consumers(queue: Queue) -> None:
    publish(queue, 1, 2)
    channel = queue.channel
    assert channel.queue_declare(queue=queue.name, passive=True) == (queue.name, 2, 0)
    channel.basic_consume(queue.name)
    assert channel.queue_declare(queue=queue.name, passive=True, nowait=True)[2] == 1


def test_a_queue_without_a_name_is_given_one(connection: Connection) -> None:
    channel = connection.default_channel
    first, second = (channel.queue_declare(exclusive=True).queue for _ in range(2))
    assert first.startswith("amq.gen-") and first != second
    unnamed = Queue("", exclusive=True)(channel)
    assert unnamed.declare().startswith("amq.gen-")


def test_a_refusal_leaves_the_channel_usable(connection: Connection, queue: Queue) -> None:
    channel = queue.channel
    for refused in (
        lambda: channel.queue_declare(queue="is-not-there", passive=True),
        lambda: channel.queue_purge("is-not-there"),
        lambda: channel.exchange_declare("is-not-there", passive=True),
        lambda: channel.basic_consume("is-not-there"),
        lambda: channel.basic_get("is-not-there"),
        lambda: channel.queue_bind(queue.name, "is-not-there", "key"),
        lambda: Producer(channel).publish("x", exchange="is-not-there"),
    ):
        with pytest.raises(amqp.NotFound):
            refused()
    with pytest.raises(amqp.PreconditionFailed):
        channel.queue_declare(queue=queue.name, durable=not queue.durable, auto_delete=False)
    assert channel.connection is connection.connection
    publish(queue, "still here")
    assert queue.get().payload == "still here"


def test_an_exclusive_queue_is_its_connections_own(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kombu_transport.channel.LOCKED_S", -5.0)  # ask once: it is not orphaned
    name = f"mine-{uuid.uuid4().hex}"
    mine, other = connect(), connect()
    mine.default_channel.queue_declare(queue=name, exclusive=True)
    with pytest.raises(amqp.ResourceLocked) as caught:
        other.default_channel.queue_declare(queue=name, exclusive=True)
    assert caught.value.code == 405
    mine.release()
    other.default_channel.queue_declare(queue=name, exclusive=True)


@pytest.mark.parametrize("kind", ["headers", "x-delayed-message"])
def test_a_type_of_exchange_that_is_not_there(connection: Connection, kind: str) -> None:
    with pytest.raises(amqp.ChannelError, match=f"{kind}.*direct, fanout, topic") as caught:
        connection.default_channel.exchange_declare("x", type=kind)
    assert caught.value.code == 540
    assert not connection.supports_exchange_type(kind)


def test_exchanges_cannot_be_bound_to_exchanges(connection: Connection) -> None:
    for method in ("exchange_bind", "exchange_unbind"):
        with pytest.raises(amqp.ChannelError, match="exchange to an exchange"):
            getattr(connection.default_channel, method)("a", "b", "key")


def test_delete_and_purge_count(connection: Connection) -> None:
    channel = connection.default_channel
    name = channel.queue_declare(queue=f"counted-{uuid.uuid4().hex}", auto_delete=False).queue
    for body in range(3):
        channel.basic_publish(channel.prepare_message(str(body)), routing_key=name)
    assert channel.queue_purge(name) == 3
    channel.basic_publish("raw", routing_key=name)
    assert channel.queue_delete(name) == 1
    assert channel.queue_delete(name) == 0


def test_bindings_come_and_go(connection: Connection, queue: Queue) -> None:
    channel = queue.channel
    exchange = f"topic-{uuid.uuid4().hex}"
    channel.exchange_declare(exchange, type="topic", auto_delete=False)
    channel.queue_bind(queue.name, exchange, "a.*")
    Producer(channel).publish("in", exchange=exchange, routing_key="a.b")
    Producer(channel).publish("out", exchange=exchange, routing_key="b.a")
    channel.queue_unbind(queue.name, exchange, "a.*")
    Producer(channel).publish("out", exchange=exchange, routing_key="a.b")
    assert queue.get().payload == "in"
    assert queue.get() is None
    channel.exchange_delete(exchange)


# --- publishing ---------------------------------------------------------------------------


def test_a_message_arrives_as_it_was_sent(connection: Connection, queue: Queue) -> None:
    publish(
        queue,
        {"a": 1},
        headers={"h": [1, None, "x"]},
        priority=4,
        correlation_id="c",
        reply_to="r",
        expiration=30,
    )
    message = queue.get()
    assert message.body == '{"a": 1}' and message.payload == {"a": 1}
    assert message.headers == {"h": [1, None, "x"]}
    assert message.properties == {
        "content_type": "application/json",
        "content_encoding": "utf-8",
        "delivery_mode": 2,
        "priority": 4,
        "correlation_id": "c",
        "reply_to": "r",
        "expiration": "30000",
    }
    assert message.delivery_info == {
        "delivery_tag": message.delivery_tag,
        "redelivered": False,
        "exchange": "",
        "routing_key": queue.name,
        "message_count": 0,
    }


def test_a_message_without_a_queue_is_dropped_or_returned(connection: Connection) -> None:
    returned: list[tuple[Any, ...]] = []
    producer = Producer(connection.default_channel)
    producer.publish("x", routing_key="nobody")
    with pytest.raises(amqp.ChannelError) as caught:
        producer.publish("x", routing_key="nobody", mandatory=True)
    assert caught.value.code == 312

    producer = Producer(connection, on_return=lambda *what: returned.append(what))
    producer.publish("x", routing_key="nobody", mandatory=True)
    ((error, exchange, routing_key, message),) = returned
    assert (error.code, exchange, routing_key, message.body) == (312, "", "nobody", b"x")


@pytest.mark.xfail(strict=True, reason="the broker keeps `ttl_ms` but does not act on it yet")
def test_a_message_expires(connection: Connection, queue: Queue) -> None:
    publish(queue, "short", expiration=0.2)
    publish(queue, "long", expiration=60)
    with Consumer(queue.channel, [Queue("other-" + queue.name, exclusive=True)]):
        assert idle(connection, 0.6)
    assert queue.get().payload == "long"
    assert queue.get() is None


def test_a_batch_is_sent_when_it_is_full_or_flushed(connection: Connection, queue: Queue) -> None:
    producer = Producer(queue.channel)
    count = lambda: queue.queue_declare(passive=True).message_count  # noqa: E731
    with producer.batch(max_size=10) as batch:
        for body in range(14):
            producer.publish(body, routing_key=queue.name)
        assert count() == 10
        batch.flush()
        assert count() == 14
        producer.publish(14, routing_key=queue.name)
    assert [queue.get(no_ack=True).payload for _ in range(15)] == list(range(15))
    assert producer.supports_batch_publish


def test_a_batch_that_fails_is_forgotten(connection: Connection, queue: Queue) -> None:
    producer = Producer(queue.channel)
    with pytest.raises(TypeError), producer.batch():
        producer.publish("x", routing_key=queue.name) or len(5)  # type: ignore[arg-type]
    assert queue.get() is None
    with pytest.raises(amqp.NotFound), producer.batch():
        producer.publish("x", exchange="is-not-there")


def test_publishing_ahead_of_the_confirms(connect: Connect, queue: Queue) -> None:
    connection = connect(confirm_publish=False)
    channel = connection.default_channel
    producer = Producer(channel)
    for body in range(1000):
        producer.publish(body, routing_key=queue.name)
    channel.flush()
    assert queue.queue_declare(passive=True).message_count == 1000
    for body in range(500):
        producer.publish(body, routing_key=queue.name)
    connection.release()
    assert queue.queue_declare(passive=True).message_count == 1500


def test_a_failure_of_a_message_published_ahead(connect: Connect, queue: Queue) -> None:
    connection = connect(confirm_publish=False)
    channel = connection.default_channel
    producer = Producer(channel)
    producer.publish("x", exchange="is-not-there")
    with pytest.raises(connection.recoverable_connection_errors, match="is-not-there"):
        channel.flush()
    channel.flush()
    producer.publish("x", routing_key=queue.name)
    channel.flush()
    assert queue.get().payload == "x"


# --- consuming ----------------------------------------------------------------------------


def test_one_event_per_drain(connection: Connection, queue: Queue) -> None:
    publish(queue, *range(5))
    seen: list[Any] = []
    with Consumer(queue.channel, [queue], callbacks=[lambda body, message: seen.append(body)]):
        for count in range(1, 6):
            connection.drain_events(timeout=5)
            assert seen == list(range(count))
        with pytest.raises(socket.timeout):
            connection.drain_events(timeout=0)


def test_what_a_consumer_is_told_of_its_message(connection: Connection, queue: Queue) -> None:
    publish(queue, "x", priority=3)
    seen: list[Message] = []
    with Consumer(queue.channel, [queue], on_message=seen.append, tag_prefix="tag-"):
        drain(connection, 1)
        seen[0].requeue()
        drain(connection, 1)
    first, second = seen
    tag = first.delivery_info["consumer_tag"]
    assert tag.startswith("tag-")
    assert first.delivery_info == {
        "consumer_tag": tag,
        "delivery_tag": first.delivery_tag,
        "redelivered": False,
        "exchange": "",
        "routing_key": queue.name,
    }
    assert second.delivery_info["redelivered"] is True
    assert first.channel is queue.channel and second.delivery_tag != first.delivery_tag


def test_leaving_a_consumer_has_seen_all_that_was_sent(
    connection: Connection, queue: Queue
) -> None:
    publish(queue, *range(20))
    seen: list[Any] = []
    with Consumer(queue.channel, [queue], callbacks=[lambda body, message: seen.append(body)]):
        drain(connection, 1)
    assert seen == list(range(20))


def test_the_prefetch_window_is_the_channels_and_changes_at_once(connect: Connect) -> None:
    connection = connect()
    channel = connection.default_channel
    queues = [Queue(exclusive=True)(channel) for _ in range(2)]
    for queue in queues:
        queue.declare()
        publish(queue, *range(20))
    seen: list[Message] = []
    channel.basic_qos(0, 3, True)
    with Consumer(channel, queues, on_message=seen.append):
        drain(connection, 3)
        assert idle(connection)
        channel.basic_qos(0, 8, True)
        drain(connection, 5)
        assert idle(connection)
        seen[0].ack()
        drain(connection, 1)
        assert idle(connection)
        assert len(seen) == 9


def test_without_acks_nothing_is_held(connect: Connect, queue: Queue) -> None:
    publish(queue, *range(10))
    connection = connect()
    channel = connection.channel()
    channel.basic_qos(0, 1, True)
    seen: list[Message] = []
    with Consumer(channel, [queue(channel)], on_message=seen.append, no_ack=True):
        drain(connection, 10)
    seen[0].ack()
    connection.release()
    assert queue.get() is None


def test_priorities_are_delivered_first(queue: Queue) -> None:
    for priority in (1, 9, 5):
        publish(queue, priority, priority=priority)
    assert [queue.get(no_ack=True).payload for _ in range(3)] == [9, 5, 1]


def test_settling(connection: Connection, queue: Queue) -> None:
    publish(queue, "ack", "reject", "requeue")
    queue.get().ack()
    queue.get().reject()
    requeued = queue.get()
    requeued.requeue()
    again = queue.get()
    assert again.payload == "requeue" and again.delivery_info["redelivered"]
    again.ack()
    with pytest.raises(again.MessageStateError):
        again.ack()
    assert queue.get() is None


def test_one_ack_for_many(connection: Connection, queue: Queue) -> None:
    publish(queue, *range(5))
    messages = [queue.get() for _ in range(5)]
    messages[3].ack(multiple=True)
    connection.default_channel.close()
    queue.revive(connection.channel())
    assert queue.get().payload == 4
    assert queue.get() is None


def test_a_tag_that_nobody_knows(connection: Connection) -> None:
    with pytest.raises(amqp.PreconditionFailed, match="unknown delivery tag"):
        connection.default_channel.basic_ack(77)


def test_recover_gives_all_back(connection: Connection, queue: Queue) -> None:
    publish(queue, *range(3))
    for _ in range(3):
        queue.get()
    queue.channel.basic_recover(requeue=True)
    messages = [queue.get() for _ in range(3)]
    assert [message.payload for message in messages] == [0, 1, 2]
    assert all(message.delivery_info["redelivered"] for message in messages)


def test_a_queue_that_goes_takes_its_consumers_along(connect: Connect) -> None:
    connection, other = connect(), connect()
    gone: list[str] = []
    for on_cancel in (gone.append, None):
        queue = Queue(f"going-{uuid.uuid4().hex}")(connection.default_channel)
        queue.declare()
        queue.consume("tag", lambda message: None, on_cancel=on_cancel)
        queue(other.default_channel).delete()
        if on_cancel:
            drain(connection, 1)
            assert gone == ["tag"]
        else:
            with pytest.raises(connection.recoverable_connection_errors, match="tag"):
                drain(connection, 1)


# --- the end ------------------------------------------------------------------------------


def test_a_closed_channel_gives_back_what_it_holds(connection: Connection, queue: Queue) -> None:
    publish(queue, "x")
    channel = connection.channel()
    held = queue(channel).get()
    assert queue.get() is None
    channel.close()
    channel.close()
    assert channel.connection is None
    assert queue.get().payload == "x"
    for late in (
        held.ack,
        lambda: channel.basic_qos(0, 1, False),
        lambda: channel.basic_publish("x", routing_key="y"),
        lambda: channel.queue_declare(),
    ):
        with pytest.raises(connection.recoverable_connection_errors) as caught:
            late()
        assert not isinstance(caught.value, BrokenPipeError)


def test_an_ack_of_a_former_session(connection: Connection, queue: Queue) -> None:
    publish(queue, "x")
    old = queue.get()
    connection.release()
    connection.connect()
    new = queue(connection.default_channel).get()
    assert new.delivery_tag == old.delivery_tag
    with pytest.raises(connection.recoverable_connection_errors):
        old.ack()
    new.requeue()


def test_flow(connection: Connection) -> None:
    channel: Channel = connection.default_channel
    channel.flow(True)
    with pytest.raises(amqp.ChannelError, match="prefetch"):
        channel.flow(False)


def test_fanout(connection: Connection) -> None:
    channel = connection.default_channel
    exchange = Exchange(f"all-{uuid.uuid4().hex}", type="fanout", auto_delete=True)
    queues = [Queue(exchange=exchange, exclusive=True)(channel) for _ in range(3)]
    for queue in queues:
        queue.declare()
    Producer(channel, exchange).publish("x")
    assert [queue.get(no_ack=True).payload for queue in queues] == ["x"] * 3
