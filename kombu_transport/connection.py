"""A connection in Kombu's sense: one session of the client, and its channels.

    open --close()------------------> closed     (says goodbye; the broker requeues at once)
    open --session lost-------------> failed     (`drain_events` and the rest raise)
    open --collect(), or a fork-----> forgotten  (nothing is sent: the session may be the
                                                  parent process's, which goes on with it)

A lost link alone changes nothing: the client looks for another node and resumes the session
with nothing lost. Only when the session is gone does Kombu hear of it, and connects anew.

Events: the client receives in the background; its `fileno()` is readable while an event
waits. `drain_events` handles exactly one, in the thread that calls it.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import logging
import os
import threading
import time
import weakref
from typing import Any

from broker.client import Client, Delivery, Pending
from broker.errors import RaftMQError
from kombu_transport.channel import Channel
from kombu_transport.errors import BrokerUnavailable, PublishFailed, translated
from kombu_transport.options import Options

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""How long closing may take, confirms that are awaited included."""

NOTHING_TO_COME_S = 0.001
"""How long a connection that never had a consumer waits for events, for there are none.

Celery's green workers drain the connection of their event dispatcher for 0.1 s between any two
messages of the other one, for the sake of heartbeats: they would do 10 tasks a second."""

EVENTS_PER_TURN = 100
"""Events handled in one turn of an event loop, before its other callbacks have theirs."""


_connections: weakref.WeakSet[Connection] = weakref.WeakSet()


class Connection:
    """What `kombu.Connection.connection` is; made by the transport, with an open client."""

    def __init__(self, broker: Client, options: Options, kombu_connection: Any) -> None:
        self.broker = broker
        self.options = options
        #: The `kombu.Connection` that owns this one; Kombu looks for it here.
        self.client: Any = kombu_connection
        self.channels: dict[int, Channel] = {}
        #: Seconds between the ticks that Celery makes; the session needs none of them.
        self.heartbeat: float = kombu_connection.heartbeat or 0
        self.has_consumed = False  #: a channel of it has, or has had, a consumer
        self._channel_ids = itertools.count(1)
        self._pid = os.getpid()
        self._closed = False
        self._ahead = broker.pipeline()
        self._last_ahead: Pending | None = None
        self._beginning = threading.Lock()
        self._loop: Any = None
        self._loop_fd = -1
        _connections.add(self)

    # --- state ----------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether operations can succeed; false in a forked child of the process it is of."""
        return not self._closed and self._pid == os.getpid() and self.broker.is_open

    def check(self) -> None:
        """Raise a recoverable connection error unless `connected`."""
        if self._closed:
            raise BrokerUnavailable("the connection is closed")
        if self._pid != os.getpid():
            raise BrokerUnavailable("the connection is another process's: this one was forked")
        if not self.broker.is_open:
            raise BrokerUnavailable(f"the session is lost: {self.broker.error}")

    # --- what Kombu does with it ----------------------------------------------------------

    def channel(self, channel_id: int | None = None) -> Channel:
        """Open a channel."""
        self.check()
        number = next(self._channel_ids) if channel_id is None else channel_id
        try:
            channel = self.channels[number] = Channel(self, number)
        except RaftMQError as error:
            raise translated(error) from error
        return channel

    def drain_events(self, timeout: float | None = None) -> None:
        """Handle exactly one event of any channel.

        timeout: seconds; 0 does not wait, None waits for ever. (A connection that never had a
        consumer waits for `NOTHING_TO_COME_S` at most, unless for ever.) Raise TimeoutError,
        which is `socket.timeout`, when there was no event, a recoverable connection error when
        the session is lost.
        """
        if timeout and not self.has_consumed:
            timeout = min(timeout, NOTHING_TO_COME_S)
        if not self._handle_one(timeout):
            raise TimeoutError("no event")

    def _handle_one(self, timeout: float | None) -> bool:
        if self._closed:
            self.check()
        try:
            event = self.broker.next_event(timeout)
        except RaftMQError as error:
            raise translated(error) from error
        if event is None:
            return False
        consumer = event.consumer
        if type(event) is Delivery:
            if consumer.on_delivery is not None:
                consumer.on_delivery(event)
        elif consumer.on_cancel is not None:
            consumer.on_cancel(consumer)
        return True

    def dispatch_received(self) -> None:
        """Handle the events that have arrived, without waiting for more."""
        for _ in range(len(self.broker.engine().core.events)):
            if not self._handle_one(0):
                break

    # --- publishing ahead of the confirms -------------------------------------------------

    def publish_ahead(
        self,
        payload: bytes,
        exchange: str,
        routing_key: str,
        priority: int,
        options: dict[str, Any] | None,
    ) -> None:
        """Publish without waiting, unless the window is full.

        When an earlier message has failed, this one is not sent: raise `PublishFailed` for
        that one, once the fate of all that are under way is known.
        """
        last = self._last_ahead
        if last is None:
            # A pipeline begins with its first message; two threads would begin it twice.
            with self._beginning:
                self._last_ahead = self._ahead.publish(
                    payload, exchange, routing_key, priority=priority, options=options
                )
            return
        assert last.group is not None
        if last.group.error is not None:
            self.flush()
        self._last_ahead = self._ahead.publish(
            payload, exchange, routing_key, priority=priority, options=options
        )

    def flush(self, timeout: float | None = None) -> None:
        """Wait for the confirms of all that was published ahead.

        timeout: seconds, `request_timeout` by default. Raise `PublishFailed`, a recoverable
        connection error, when a message was not confirmed.
        """
        if self._last_ahead is None:
            return
        try:
            self._ahead.flush(timeout)
        except RaftMQError as error:
            text = f"a message published without waiting was not confirmed: {error}"
            # Kombu repeats the publish that meets this error, but not the one that caused it.
            logger.error("%s", text)
            raise PublishFailed(text) from error

    @property
    def unconfirmed(self) -> int:
        """Messages published ahead whose confirm has not come."""
        last = self._last_ahead
        return 0 if last is None or last.group is None else last.group.under_way

    # --- event loop -----------------------------------------------------------------------

    def register(self, loop: Any) -> None:
        """Have an event loop (Kombu's hub) handle the events."""
        self.check()
        self.unregister()
        self._loop, self._loop_fd = loop, self.broker.fileno()
        # The descriptor is readable at once when events are here already. (Handling them in a
        # `call_soon` would be worse: what they in turn defer, their acks, the hub would not run
        # before something else wakes it.)
        loop.add_reader(self._loop_fd, self._on_readable)

    def unregister(self) -> None:
        """Leave the loop; any number of times."""
        loop, self._loop = self._loop, None
        # In a forked child the loop's epoll is the parent's: taking something out of it would
        # make the parent deaf.
        if loop is not None and self._pid == os.getpid() and self._loop_fd in loop.readers:
            loop.remove_reader(self._loop_fd)

    def _on_readable(self) -> None:
        # The descriptor stays readable while events wait, so what is left is for the next turn.
        for _ in range(EVENTS_PER_TURN):
            if not self._handle_one(0):
                break

    # --- end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Say goodbye; any number of times, in `CLOSE_TIMEOUT_S` seconds at most.

        Raise a recoverable connection error when something published ahead was not confirmed.
        """
        if self._closed:
            return
        if self._pid != os.getpid():
            self.collect()
            return
        deadline = time.monotonic() + CLOSE_TIMEOUT_S
        try:
            if self.broker.is_open:
                self.flush(CLOSE_TIMEOUT_S)
        finally:
            self._forget()
            self.broker.close(max(0.1, deadline - time.monotonic()))

    def collect(self) -> None:
        """Forget the connection without a word to anybody; any number of times."""
        if self._closed:
            return
        if self._pid == os.getpid() and self.unconfirmed:
            logger.error(
                "%d messages published without waiting are lost from sight: the "
                "connection was dropped before their confirms came",
                self.unconfirmed,
            )
        self._forget()
        self.broker.collect()

    def _forget(self) -> None:
        self._closed = True
        self.unregister()
        for channel in list(self.channels.values()):
            channel.forget()
        self.channels.clear()


def _at_exit() -> None:
    """A program may end right after its last publish: what it published shall arrive."""
    for connection in list(_connections):
        if connection.unconfirmed and connection.connected:
            with contextlib.suppress(PublishFailed):  # which is logged
                connection.flush(CLOSE_TIMEOUT_S)


# After the client's own, so that it runs before.
atexit.register(_at_exit)
