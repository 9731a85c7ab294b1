"""Consuming: a channel is a group of consumers with one prefetch window between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import count
from typing import TYPE_CHECKING, Any

from broker.client.calls import Call
from broker.client.consumer import FETCHER, Consumer, Delivery
from broker.client.names import check_name
from broker.client.window import ChannelWindow
from broker.errors import ClientClosed, DeadlineExceeded, InvalidArgument
from broker.machines.commands import Outcome

if TYPE_CHECKING:
    from broker.client.client import Client
    from broker.client.engine import Engine

_consumer_ids = count(FETCHER + 1)  # never the same twice in a process, so neither in a session


class Channel:
    """Made by `Client.channel`. Lives as long as the client's session; no longer."""

    def __init__(self, client: Client, engine: Engine) -> None:
        self.client = client
        self.closed = False
        self._engine = engine
        self._window = ChannelWindow()
        self._fetchers: dict[tuple[str, bool], Consumer] = {}

    @property
    def is_open(self) -> bool:
        return not self.closed and self._engine.error is None

    def set_prefetch(self, count: int) -> None:
        """How many messages the consumers of this channel may hold together, unsettled.

        0: no limit. Effective at once, for running consumers too. Does not wait.
        """
        if count < 0:
            raise InvalidArgument(f"prefetch is {count}; it is a number of messages, 0 for any")
        engine = self._live()
        engine.submit(engine.core.set_prefetch, self._window, count)

    def consume(
        self,
        queue: str,
        *,
        on_delivery: Callable[[Delivery], object] | None = None,
        on_cancel: Callable[[Consumer], object] | None = None,
        no_ack: bool = False,
        tag: str | None = None,
        exclusive: bool = False,
        priority: int = 0,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Consumer:
        """Begin to consume; deliveries come as events of the client.

        With `no_ack` messages are settled when they are handed over, and do not count for the
        prefetch. Raises what the broker refuses it with, or `DeadlineExceeded`: then the
        consumer is cancelled again.
        """
        check_name("queue", queue)
        engine = self._live()
        id = next(_consumer_ids)
        consumer = Consumer(
            id=id,
            queue=queue,
            channel=self,
            tag=f"c{id}" if tag is None else tag,
            window=self._window,
            no_ack=no_ack,
            exclusive=exclusive,
            priority=priority,
            arguments=arguments,
            on_delivery=on_delivery,
            on_cancel=on_cancel,
        )
        call = Call()
        engine.submit(engine.core.consume, call, consumer)
        try:
            engine.wait(call, self._seconds(timeout))
        except BaseException:  # an interrupt too: nobody has the consumer, so nobody cancels it
            if not call.done or call.error is None:
                consumer.deaf = True
                engine.submit(engine.core.cancel, Call(), consumer)
            raise
        return consumer

    def cancel(self, consumer: Consumer, timeout: float | None = None) -> None:
        """End a consumer, and wait until its last delivery has come (it is among the events).

        At `DeadlineExceeded` the end is still on its way.
        """
        engine = self._live()
        call = Call()
        engine.submit(engine.core.cancel, call, consumer)
        engine.wait(call, self._seconds(timeout))

    def get(
        self, queue: str, no_ack: bool = False, timeout: float | None = None
    ) -> Delivery | None:
        """Fetch one message, or None when none is ready."""
        check_name("queue", queue)
        engine = self._live()
        fetcher = self._fetchers.get((queue, no_ack))
        if fetcher is None:
            fetcher = Consumer(FETCHER, queue, self, "", self._window, no_ack)
            self._fetchers[queue, no_ack] = fetcher
        call = Call()
        engine.submit(engine.core.get, call, fetcher)
        try:
            delivery: Delivery | None = engine.wait(call, self._seconds(timeout))
        except DeadlineExceeded as error:
            engine.submit(engine.core.abandon, call, error)
            raise
        return delivery

    def settle(self, deliveries: Iterable[Delivery], outcome: Outcome) -> None:
        """Settle messages of this channel, from any thread. Does not wait; the client repeats it
        until the broker has confirmed it. What was settled before is passed over."""
        engine = self._live()
        engine.submit(engine.core.settle, tuple(deliveries), int(outcome))

    def recover(self) -> None:
        """Requeue everything that this channel holds. Does not wait."""
        engine = self._live()
        engine.submit(engine.core.recover, self._window)

    def close(self, timeout: float | None = None) -> None:
        """Cancel the consumers and requeue what the channel holds. Idempotent.

        At `DeadlineExceeded` that is still on its way.
        """
        if self.closed:
            return
        self.closed = True
        engine = self._engine
        if engine.error is not None:
            return
        call = Call()
        engine.submit(engine.core.close_channel, call, self._window)
        engine.wait(call, self._seconds(timeout))

    def _live(self) -> Engine:
        engine = self._engine
        if engine.error is not None:
            engine.check()
        if self.closed:
            raise ClientClosed("the channel is closed")
        return engine

    def _seconds(self, timeout: float | None) -> float:
        return self.client.timeout if timeout is None else timeout
