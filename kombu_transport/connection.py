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

import itertools
import logging
import os
import time
from typing import Any

from broker.client import Client, Delivery
from broker.errors import RaftMQError
from kombu_transport.channel import Channel
from kombu_transport.errors import BrokerUnavailable, PublishFailed, translated
from kombu_transport.options import Options

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 5.0
"""How long closing may take, confirms that are awaited included."""

EVENTS_PER_TURN = 100
"""Events handled in one turn of an event loop, before its other callbacks have theirs."""


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
        self._channel_ids = itertools.count(1)
        self._pid = os.getpid()
        self._closed = False
        self._ahead = broker.pipeline()
        self._loop: Any = None
        self._loop_fd = -1

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

        timeout: seconds; 0 does not wait, None waits for ever. Raise `socket.timeout` when
        there was no event, a recoverable connection error when the session is lost.
        """
        if not self._handle_one(timeout):
            raise TimeoutError("no event")

    def _handle_one(self, timeout: float | None) -> bool:
        if self._closed or self._pid != os.getpid():
            self.check()
        try:
            event = self.broker.next_event(timeout)
        except RaftMQError as error:
            raise translated(error) from error
        if event is None:
            return False
        if isinstance(event, Delivery):
            event.consumer.on_delivery(event)
        else:
            event.consumer.on_cancel(event.consumer)
        return True

    def dispatch_received(self, timeout: float) -> None:
        """Handle the events that have arrived, without waiting; at most `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while self._handle_one(0) and time.monotonic() < deadline:
            pass

    # --- publishing ahead of the confirms -------------------------------------------------

    def publish_ahead(
        self,
        payload: bytes,
        exchange: str,
        routing_key: str,
        priority: int,
        options: dict[str, Any] | None,
    ) -> None:
        """Publish without waiting, unless the window is full. Raise the failure of an earlier
        message as a recoverable connection error."""
        try:
            self._ahead.publish(payload, exchange, routing_key, priority=priority, options=options)
        except RaftMQError as error:
            raise self._ahead_failed(error) from error

    def flush(self, timeout: float | None = None) -> None:
        """Wait for the confirms of all that was published ahead.

        timeout: seconds, `request_timeout` by default. Raise a recoverable connection error
        when a message was not confirmed.
        """
        try:
            self._ahead.flush(timeout)
        except RaftMQError as error:
            raise self._ahead_failed(error) from error

    # --- event loop -----------------------------------------------------------------------

    def register(self, loop: Any) -> None:
        """Have an event loop (Kombu's hub) handle the events."""
        self.check()
        self.unregister()
        self._loop, self._loop_fd = loop, self.broker.fileno()
        loop.add_reader(self._loop_fd, self._on_readable)
        # Events that are here already, and a failure that nobody has heard of.
        loop.call_soon(self._on_first_turn)

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

    def _on_first_turn(self) -> None:
        if self._loop is not None:
            self._on_readable()

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
        except PublishFailed as error:
            # Kombu closes connections without a look at such errors.
            logger.error("%s", error)
            raise
        finally:
            self._forget()
            try:
                self.broker.close(max(0.1, deadline - time.monotonic()))
            except RaftMQError as error:
                logger.debug("closing: %s", error)

    def collect(self) -> None:
        """Forget the connection without a word to anybody; any number of times."""
        if not self._closed:
            self._forget()
            self.broker.collect()

    def _forget(self) -> None:
        self._closed = True
        self.unregister()
        for channel in list(self.channels.values()):
            channel.forget()
        self.channels.clear()
