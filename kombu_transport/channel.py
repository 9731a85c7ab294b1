"""A channel in Kombu's sense: one prefetch window, its consumers, and what they have not settled.

    open --close()--> closed                 `connection` is None from then on
    open --connection lost or closed--> closed

    message, seen from here:  delivered --(tag in `_unsettled`)--> settled by ack or reject
                              delivered --(no_ack)--> settled on arrival, by the client

A delivery tag belongs to one channel object, and that to one session: an ack that comes
after the session was lost finds this channel closed, and cannot touch a message that
somebody else holds by now. A refusal (an AMQP channel error) leaves the channel open.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

from amqp.exceptions import ConsumerCancelled, ResourceLocked
from amqp.protocol import queue_declare_ok_t
from kombu.transport.base import StdChannel, to_rabbitmq_queue_arguments

from broker.client import Consumer, Delivery, Outcome
from broker.errors import Code, RaftMQError
from broker.protocol import Content
from kombu_transport.batch import PublishBatch
from kombu_transport.errors import BrokerRefused, BrokerUnavailable, refusal, translated
from kombu_transport.message import Message, encode_message, to_content

if TYPE_CHECKING:
    from kombu_transport.connection import Connection

CANCEL_TIMEOUT_S = 5.0
"""How long cancelling a consumer, or all by closing the channel, waits for the broker."""

LOCKED_S = 8.0
"""How long beyond its grace a session without a client may live: its node may be gone too."""

LOCKED_AGAIN_S = 0.25

EXCHANGE_TYPES = frozenset({"direct", "topic", "fanout"})


class Channel(StdChannel):
    """See the module; the methods are those that Kombu and Celery call, with AMQP's meaning."""

    supports_batch_publish = True

    def __init__(self, connection: Connection, channel_id: int) -> None:
        self.connection: Connection | None = connection
        self.channel_id = channel_id
        #: Kombu puts callbacks into `events["basic_return"]`.
        self.events: defaultdict[str, set[Callable[..., Any]]] = defaultdict(set)
        #: Kombu's messages look here to see whether there is anything to settle.
        self.no_ack_consumers: set[str] = set()
        self._broker = connection.broker
        self._channel = connection.broker.channel()
        self._consumers: dict[str, Consumer] = {}
        self._unsettled: dict[int, Delivery] = {}
        self._tags = itertools.count(1)

    def __repr__(self) -> str:
        return f"<RaftMQ channel {self.channel_id}{' (closed)' if self.connection is None else ''}>"

    # --- publishing -----------------------------------------------------------------------

    def prepare_message(
        self,
        body: str | bytes,
        priority: int | None = None,
        content_type: str | None = None,
        content_encoding: str | None = None,
        headers: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
    ) -> Content:
        """What `basic_publish` sends."""
        return to_content(body, priority, content_type, content_encoding, headers, properties)

    def basic_publish(
        self,
        message: Content | str | bytes,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
    ) -> None:
        """Publish, and wait for the confirm unless the connection publishes without waiting.

        mandatory: a message that no queue takes goes to the callbacks in
        `events["basic_return"]`, or is a channel error when there are none.
        immediate: has no effect, as in every broker since AMQP 0-9-1 dropped it.
        timeout, confirm_timeout: seconds for the whole; a recoverable connection error then.
        """
        connection = self.connection
        if connection is None:
            raise BrokerUnavailable("basic_publish: the channel is closed")
        priority, options, payload = encode_message(message)
        try:
            if connection.options.confirm_publish or mandatory:
                self._broker.publish(
                    payload,
                    exchange,
                    routing_key or "",
                    mandatory=bool(mandatory),  # Celery hands on None
                    priority=priority,
                    options=options,
                    timeout=timeout if confirm_timeout is None else confirm_timeout,
                )
            else:
                connection.publish_ahead(payload, exchange, routing_key or "", priority, options)
        except RaftMQError as error:
            if mandatory and getattr(error, "code", 0) == Code.NO_ROUTE:
                self._returned(error, exchange, routing_key, message)
            else:
                raise translated(error) from error

    def _returned(
        self, error: RaftMQError, exchange: str, routing_key: str, message: Content | str | bytes
    ) -> None:
        callbacks = self.events["basic_return"]
        returned = translated(error)
        if not callbacks:
            raise returned from error
        for callback in list(callbacks):
            callback(returned, exchange, routing_key, message)

    def create_publish_batch(self, max_size: int = 1000) -> PublishBatch:
        """What `Producer.batch` publishes through."""
        return PublishBatch(self, max_size)

    def flush(self, timeout: float | None = None) -> None:
        """Wait until everything published without waiting is confirmed.

        timeout: seconds, `request_timeout` by default. Raise a recoverable connection error
        when a message was not confirmed; the program decides whether to publish it again.
        """
        self._open().flush(timeout)

    # --- declaring ------------------------------------------------------------------------

    def prepare_queue_arguments(self, arguments: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Kombu's names and seconds as `x-` arguments and milliseconds."""
        prepared: dict[str, Any] = to_rabbitmq_queue_arguments(arguments, **kwargs)
        return prepared

    def exchange_declare(
        self,
        exchange: str = "",
        type: str = "direct",
        passive: bool = False,
        durable: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
        internal: bool = False,
    ) -> None:
        """Raise a channel error: 540 for a type that the broker does not have, 406 when an
        exchange of this name exists that is not the same, 404 when passive and there is none."""
        if type not in EXCHANGE_TYPES and not passive:
            kinds = ", ".join(sorted(EXCHANGE_TYPES))
            raise BrokerRefused(
                f"exchange {exchange!r}: RaftMQ has no exchanges of type {type!r}, only {kinds}",
                Code.NOT_IMPLEMENTED,
            )
        self._ask(
            self._broker.declare_exchange,
            exchange,
            type,
            durable=durable,
            auto_delete=auto_delete,
            internal=internal,
            passive=passive,
            arguments=arguments or None,
        )

    def exchange_delete(self, exchange: str, if_unused: bool = False, nowait: bool = False) -> None:
        """Delete an exchange and its bindings; there may be none of that name."""
        self._ask(self._broker.delete_exchange, exchange, if_unused=if_unused)

    def exchange_bind(
        self,
        destination: str,
        source: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> NoReturn:
        """The broker binds queues only: always a channel error."""
        raise BrokerRefused(
            f"exchange {destination!r}: RaftMQ cannot bind an exchange to an exchange",
            Code.NOT_IMPLEMENTED,
        )

    exchange_unbind = exchange_bind

    def queue_declare(
        self,
        queue: str = "",
        passive: bool = False,
        durable: bool = False,
        exclusive: bool = False,
        auto_delete: bool = True,
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> queue_declare_ok_t:
        """(name, messages ready, consumers). A queue without a name is given one.

        Raise a channel error: 404 when passive and there is none, 405 when it is another
        connection's exclusive queue, 406 when there is one that is not the same. An exclusive
        queue that is another's is asked for again until a session without a client would have
        ended: `session_grace` and `LOCKED_S` seconds.
        """
        ends = time.monotonic() + self._open().options.session_grace + LOCKED_S
        while True:
            try:
                info = self._ask(
                    self._broker.declare_queue,
                    queue or f"amq.gen-{uuid.uuid4().hex}",
                    passive=passive,
                    durable=durable,
                    exclusive=exclusive,
                    auto_delete=auto_delete,
                    arguments=arguments or None,
                )
            except ResourceLocked:
                # A worker that was killed, or cut off for long, may be back before the broker
                # has given up its old session, which owns the queue of this very name.
                if passive or not exclusive or time.monotonic() >= ends:
                    raise
                time.sleep(LOCKED_AGAIN_S)
            else:
                return queue_declare_ok_t(info.name, info.messages, info.consumers)

    def queue_bind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self._ask(
            self._broker.bind_queue,
            queue,
            exchange,
            routing_key or "",
            arguments=arguments or None,
        )

    def queue_unbind(
        self,
        queue: str,
        exchange: str = "",
        routing_key: str = "",
        nowait: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self._ask(
            self._broker.unbind_queue,
            queue,
            exchange,
            routing_key or "",
            arguments=arguments or None,
        )

    def queue_delete(
        self,
        queue: str = "",
        if_unused: bool = False,
        if_empty: bool = False,
        nowait: bool = False,
    ) -> int:
        """The number of messages that went with it; 0 when there was no such queue."""
        deleted: int = self._ask(
            self._broker.delete_queue, queue, if_unused=if_unused, if_empty=if_empty
        )
        return deleted

    def queue_purge(self, queue: str = "", nowait: bool = False) -> int:
        """The number of messages removed. Raise a channel error 404 for an unknown queue."""
        purged: int = self._ask(self._broker.purge_queue, queue)
        return purged

    # --- consuming ------------------------------------------------------------------------

    def basic_qos(
        self, prefetch_size: int = 0, prefetch_count: int = 0, a_global: bool = False
    ) -> None:
        """Messages that all consumers of this channel together may hold; 0 is no limit.

        In effect at once, for running consumers too. The size in bytes has no effect.
        """
        self._ask(self._channel.set_prefetch, prefetch_count)

    def basic_consume(
        self,
        queue: str = "",
        consumer_tag: str = "",
        no_local: bool = False,
        no_ack: bool = False,
        exclusive: bool = False,
        nowait: bool = False,
        callback: Callable[[Message], Any] | None = None,
        arguments: dict[str, Any] | None = None,
        on_cancel: Callable[[str], Any] | None = None,
    ) -> str:
        """Consume from a queue; the tag. `callback` is called from `drain_events`."""
        tag = consumer_tag or f"amq.ctag-{uuid.uuid4().hex}"
        arguments = dict(arguments or {})
        priority = arguments.pop("x-priority", 0)
        self._open().has_consumed = True
        self._consumers[tag] = self._ask(
            self._channel.consume,
            queue,
            on_delivery=self._receiver(tag, no_ack, callback or _discard),
            on_cancel=self._canceller(tag, on_cancel),
            no_ack=no_ack,
            tag=tag,
            exclusive=exclusive,
            priority=priority,
            arguments=arguments or None,
        )
        if no_ack:
            self.no_ack_consumers.add(tag)
        return tag

    def _receiver(
        self, consumer_tag: str, no_ack: bool, callback: Callable[[Message], Any]
    ) -> Callable[[Delivery], None]:
        """What the connection calls with every delivery to this consumer (hot path)."""
        tags, unsettled = self._tags, self._unsettled

        def receive(delivery: Delivery) -> None:
            tag = next(tags)
            if not no_ack:
                unsettled[tag] = delivery
            envelope = delivery.message
            callback(
                Message(
                    self,
                    delivery,
                    tag,
                    {
                        "consumer_tag": consumer_tag,
                        "delivery_tag": tag,
                        "redelivered": envelope.count > 1,
                        "exchange": envelope.exchange,
                        "routing_key": envelope.routing_key,
                    },
                )
            )

        return receive

    def _canceller(
        self, tag: str, on_cancel: Callable[[str], Any] | None
    ) -> Callable[[Consumer], None]:
        """What the connection calls when the broker ended this consumer: its queue is gone."""

        def cancelled(consumer: Consumer) -> None:
            self._consumers.pop(tag, None)
            if on_cancel is None:
                # A recoverable connection error: Celery declares and consumes again.
                raise ConsumerCancelled(f"the broker cancelled consumer {tag!r}")
            on_cancel(tag)

        return cancelled

    def basic_cancel(self, consumer_tag: str, nowait: bool = False) -> None:
        """End a consumer; what it was sent before that is dispatched before this returns.

        Programs rely on that: leaving `with consumer:` has seen all that was on its way.
        It takes `CANCEL_TIMEOUT_S` at most.
        """
        connection = self._open()
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is None:
            return
        try:
            self._channel.cancel(consumer, CANCEL_TIMEOUT_S)
        except RaftMQError as error:
            raise translated(error) from error
        connection.dispatch_received()

    def basic_get(self, queue: str = "", no_ack: bool = False) -> Message | None:
        """One message, or None when none is ready."""
        delivery = self._ask(self._channel.get, queue, no_ack)
        if delivery is None:
            return None
        tag = next(self._tags)
        if not no_ack:
            self._unsettled[tag] = delivery
        info = {
            "delivery_tag": tag,
            "redelivered": delivery.redelivered,
            "exchange": delivery.exchange,
            "routing_key": delivery.routing_key,
            "message_count": delivery.ready,
        }
        return Message(self, delivery, tag, info)

    def message_to_python(self, raw_message: Message) -> Message:
        """Kombu's hook; messages are what Kombu wants from the start."""
        return raw_message

    # --- settling -------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: int, multiple: bool = False) -> None:
        """Done with a message, or with all up to it. Raise a recoverable connection error
        when the session that received it is gone: somebody else gets it then."""
        self._settle(delivery_tag, multiple, Outcome.ACK)

    def basic_reject(self, delivery_tag: int, requeue: bool = False) -> None:
        """Back to its place in the queue, or dropped."""
        self._settle(delivery_tag, False, Outcome.REQUEUE if requeue else Outcome.DROP)

    def basic_nack(self, delivery_tag: int, multiple: bool = False, requeue: bool = True) -> None:
        """As `basic_reject`, for all up to this one when `multiple`."""
        self._settle(delivery_tag, multiple, Outcome.REQUEUE if requeue else Outcome.DROP)

    def _settle(self, tag: int, multiple: bool, outcome: Outcome) -> None:
        self._open()
        unsettled = self._unsettled
        if multiple:
            found = (unsettled.pop(one, None) for one in list(unsettled) if one <= tag or not tag)
            deliveries = [delivery for delivery in found if delivery is not None]
        else:
            delivery = unsettled.pop(tag, None)
            if delivery is None:
                raise refusal(f"unknown delivery tag {tag}", Code.PRECONDITION_FAILED)
            deliveries = [delivery]
        try:
            self._channel.settle(deliveries, outcome)
        except RaftMQError as error:
            raise translated(error) from error

    def basic_recover(self, requeue: bool = False) -> None:
        """Give back all that is not settled; it is delivered again."""
        self._open()
        self._unsettled.clear()
        self._ask(self._channel.recover)

    # --- flow and end ---------------------------------------------------------------------

    def flow(self, active: bool) -> None:
        """Refused, as by RabbitMQ: a prefetch limit does it, per channel and at once."""
        if not active:
            raise BrokerRefused(
                "channel.flow: not supported, limit the prefetch count instead",
                Code.NOT_IMPLEMENTED,
            )

    def close(self) -> None:
        """Give back what is not settled, and end the consumers. Any number of times.

        Raise a recoverable connection error when something published without waiting failed.
        """
        connection = self.connection
        if connection is None:
            return
        try:
            if connection.connected:
                connection.flush()
        finally:
            self.forget()
            connection.channels.pop(self.channel_id, None)
            if connection.connected:
                self._ask_closing()

    def _ask_closing(self) -> None:
        try:
            self._channel.close(CANCEL_TIMEOUT_S)
        except RaftMQError as error:
            raise translated(error) from error

    def forget(self) -> None:
        """Become closed without a word to the broker: its connection is closed or lost."""
        self.connection = None
        self._consumers.clear()
        self._unsettled.clear()

    def _open(self) -> Connection:
        connection = self.connection
        if connection is None:
            raise BrokerUnavailable("the channel is closed")
        return connection

    def _ask(self, operation: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._open()
        try:
            return operation(*args, **kwargs)
        except RaftMQError as error:
            raise translated(error) from error


def _discard(message: Message) -> None:
    """The callback of a consumer without one."""
