"""The blocking client: one session with the cluster, for any number of threads.

    Client --open()--> a session, kept across lost links --close()--> nothing is left behind
       |                     \\--the session is lost--> failed: every call raises why
       +- a fork: the child's copy opens a session of its own at its first call

What only publishes or declares may be used in a forked child as if nothing had happened. A
client that consumed is closed there: its deliveries belong to the parent.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

from broker.client.calls import Call
from broker.client.channel import Channel
from broker.client.consumer import Delivery, Event
from broker.client.engine import Engine, end_process, raise_anew
from broker.client.names import check_name
from broker.client.pipeline import Pending, Pipeline
from broker.client.url import Address, parse_url
from broker.errors import (
    ClientClosed,
    ConfigError,
    ContentTooLarge,
    DeadlineExceeded,
    RaftMQError,
)
from broker.protocol import (
    AnyOperation,
    BindQueue,
    Content,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    Inspect,
    PurgeQueue,
    UnbindQueue,
    encode_content,
)

CLOSE_S = 5.0
_clients: weakref.WeakSet[Client] = weakref.WeakSet()


class QueueInfo(NamedTuple):
    """What `declare_queue` says of a queue."""

    name: str
    messages: int  #: that are ready
    consumers: int


class Client:
    """A client of the cluster at `url` (see `broker.client.url`). Opens at the first call.

    timeout          seconds for any call that is given none
    connect_timeout  seconds to find a node and open the session
    grace            seconds the broker keeps the session when the link is lost (a wish; 0: what
                     the nodes have as `grace_ms`)
    reconnect        seconds the client looks for another node then, before it fails
    publish_window, publish_window_bytes
                     unconfirmed messages, and bytes, of `publish_nowait`
    name             for people who look at the broker's sessions

    Any call may raise `ConnectFailed`, `SessionExpired`, `ClientClosed` (all `Unavailable`),
    `DeadlineExceeded` at its deadline, or the broker's refusal, a `Refused`.
    """

    def __init__(
        self,
        url: str = "raftmq://127.0.0.1:7650//",
        *,
        timeout: float = 10.0,
        connect_timeout: float = 4.0,
        grace: float = 5.0,
        reconnect: float = 15.0,
        publish_window: int = 1000,
        publish_window_bytes: int = 64 << 20,
        name: str = "",
    ) -> None:
        """Raise `ConfigError`, naming the setting that is wrong."""
        self.address: Address = parse_url(url)
        for setting, value in (
            ("timeout", timeout),
            ("connect_timeout", connect_timeout),
            ("publish_window", publish_window),
            ("publish_window_bytes", publish_window_bytes),
        ):
            if value <= 0:
                raise ConfigError(f"{setting} is {value}; it must be above 0")
        for setting, value in (("grace", grace), ("reconnect", reconnect)):
            if value < 0:
                raise ConfigError(f"{setting} is {value}; it cannot be negative")
        self.timeout = timeout
        self.name = name
        self._connect_timeout = connect_timeout
        self._grace = grace
        self._reconnect = reconnect
        self._publish_window = publish_window
        self._publish_window_bytes = publish_window_bytes
        self._pipeline = self.pipeline()
        self._engine: Engine | None = None
        self._opening = threading.RLock()
        self._closed = False
        _clients.add(self)

    # --- life -----------------------------------------------------------------------------

    def open(self, timeout: float | None = None) -> Client:
        """Open the session. Idempotent. `ConnectFailed` when no node answers in time."""
        self.engine(timeout)
        return self

    def close(self, timeout: float | None = None) -> None:
        """Have everything under way answered, as far as `timeout` seconds (default and at most
        5) allow, and end the session. Idempotent; never raises for a dead cluster."""
        self._closed = True
        engine = self._engine
        if engine is None or engine.pid != os.getpid() or engine.error is not None:
            return
        engine.close(CLOSE_S if timeout is None else max(0.0, min(timeout, CLOSE_S)))

    def collect(self) -> None:
        """Drop everything here, at once and without a word to the broker, which will find the
        session lost. For a child after a fork, and after errors."""
        self._closed = True
        engine = self._engine
        if engine is not None:
            engine.abandon(ClientClosed("the client was dropped"))

    def __enter__(self) -> Client:
        return self.open()

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        engine = getattr(self, "_engine", None)
        if engine is not None and engine.error is None:
            engine.abandon(ClientClosed("the client was dropped"))

    @property
    def is_open(self) -> bool:
        engine = self._engine
        return engine is not None and engine.error is None and engine.opened.done

    @property
    def error(self) -> RaftMQError | None:
        """What the client failed with."""
        return None if self._engine is None else self._engine.error

    @property
    def session(self) -> int:
        """The session's id; 0 before it is open."""
        return 0 if self._engine is None else self._engine.core.session

    @property
    def node(self) -> str:
        """The name of the node that serves us, or served us last."""
        return "" if self._engine is None else self._engine.core.node

    @property
    def body_bytes_max(self) -> int | None:
        """The largest payload the cluster takes, in bytes, once the session is open."""
        return None if self._engine is None else self._engine.core.body_bytes_max

    # --- events ---------------------------------------------------------------------------

    def fileno(self) -> int:
        """A descriptor that is readable while `next_event` would return or raise at once."""
        return self.engine().fileno()

    def next_event(self, timeout: float | None) -> Event | None:
        """One event: a `Delivery` or a `ConsumerCancelled`; None after `timeout` seconds.

        0 polls, None waits for ever. Raises what the client failed with.
        """
        return self.engine().next_event(timeout)

    def dispatch(self, timeout: float | None) -> bool:
        """Take one event and call its consumer's `on_delivery` or `on_cancel`; False: none."""
        event = self.next_event(timeout)
        if event is None:
            return False
        consumer = event.consumer
        if isinstance(event, Delivery):
            if consumer.on_delivery is not None:
                consumer.on_delivery(event)
        elif consumer.on_cancel is not None:
            consumer.on_cancel(consumer)
        return True

    def channel(self) -> Channel:
        """A new channel of this session."""
        return Channel(self, self.engine())

    # --- publishing -----------------------------------------------------------------------

    def publish(
        self,
        payload: bytes | Content,
        exchange: str = "",
        routing_key: str = "",
        *,
        mandatory: bool = False,
        priority: int = 0,
        options: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Publish, and wait until the message is safe on every matching queue.

        `NoRoute` when it is mandatory and no queue takes it, `ContentTooLarge` before anything
        is sent. After `DeadlineExceeded` it may have been published or not; this client does
        not go on trying.
        """
        ends = time.monotonic() + (self.timeout if timeout is None else timeout)
        engine = self.engine(timeout)
        if type(payload) is not bytes:
            payload = encode_content(payload)  # type: ignore[arg-type]
        self.check_publish(engine, exchange, routing_key, payload)
        call = Call()
        engine.submit(
            engine.core.publish,
            call,
            exchange,
            routing_key,
            mandatory,
            priority,
            options,
            payload,
        )
        self._wait(engine, call, ends)

    def publish_nowait(
        self,
        payload: bytes | Content,
        exchange: str = "",
        routing_key: str = "",
        *,
        mandatory: bool = False,
        priority: int = 0,
        options: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> Pending:
        """Publish without waiting for the confirm; `flush` or `Pending.wait` tells of errors.

        Blocks while the publish window is full: at most `timeout` seconds, then
        `DeadlineExceeded` (this message was not sent).
        """
        return self._pipeline.publish(
            payload,
            exchange,
            routing_key,
            mandatory=mandatory,
            priority=priority,
            options=options,
            timeout=timeout,
        )

    def flush(self, timeout: float | None = None) -> None:
        """Wait for the confirms of all `publish_nowait`; raise the first error among them."""
        self._pipeline.flush(timeout)

    def pipeline(self, window: int | None = None) -> Pipeline:
        """A pipeline of its own, to publish a batch; `window` is in messages."""
        if window is not None and window <= 0:
            raise ConfigError(f"window is {window}; it must be above 0")
        return Pipeline(
            self,
            window=self._publish_window if window is None else window,
            window_bytes=self._publish_window_bytes,
        )

    # --- topology -------------------------------------------------------------------------

    def declare_exchange(
        self,
        name: str,
        kind: str = "direct",
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        passive: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        """Kinds: direct, fanout, topic. `PreconditionFailed` where another of this name exists;
        `NotFound` when passive and there is none."""
        check_name("exchange", name)
        self._call(
            lambda seq: DeclareExchange(
                seq, name, kind, durable, auto_delete, internal, passive, arguments
            ),
            timeout,
        )

    def delete_exchange(
        self, name: str, *, if_unused: bool = False, timeout: float | None = None
    ) -> None:
        check_name("exchange", name)
        self._call(lambda seq: DeleteExchange(seq, name, if_unused), timeout)

    def declare_queue(
        self,
        name: str = "",
        *,
        passive: bool = False,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> QueueInfo:
        """Without a name one is made up. `PreconditionFailed` where another of this name exists,
        `ResourceLocked` where it is another session's, `NotFound` when passive and none."""
        check_name("queue", name)
        name = name or f"raftmq.gen-{uuid.uuid4().hex}"
        value = self._call(
            lambda seq: DeclareQueue(
                seq, name, passive, durable, exclusive, auto_delete, arguments
            ),
            timeout,
        )
        return QueueInfo(*value)

    def delete_queue(
        self,
        name: str,
        *,
        if_unused: bool = False,
        if_empty: bool = False,
        timeout: float | None = None,
    ) -> int:
        """The number of messages that were ready in it; 0 when there was no such queue."""
        check_name("queue", name)
        return int(self._call(lambda seq: DeleteQueue(seq, name, if_unused, if_empty), timeout))

    def purge_queue(self, name: str, *, timeout: float | None = None) -> int:
        """Remove what is ready, and say how much it was."""
        check_name("queue", name)
        return int(self._call(lambda seq: PurgeQueue(seq, name), timeout))

    def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        _check_binding(queue, exchange, routing_key)
        self._call(lambda seq: BindQueue(seq, queue, exchange, routing_key, arguments), timeout)

    def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        *,
        arguments: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> None:
        _check_binding(queue, exchange, routing_key)
        self._call(lambda seq: UnbindQueue(seq, queue, exchange, routing_key, arguments), timeout)

    def inspect(self, what: str, *, timeout: float | None = None, **arguments: Any) -> Any:
        """Plain data about the cluster; `what` is "queues", "sessions" or "status"."""
        return self._call(lambda seq: Inspect(seq, what, arguments or None), timeout)

    # --- for the rest of the package ------------------------------------------------------

    def engine(self, timeout: float | None = None) -> Engine:
        """The live session, opened now if there is none yet in this process."""
        engine = self._engine
        if engine is not None and engine.error is None and engine.opened.done:
            return engine
        return self._reopen(timeout)

    def check_publish(
        self, engine: Engine, exchange: str, routing_key: str, payload: bytes
    ) -> None:
        """Refuse here what the broker would refuse, before it is sent."""
        limit = engine.core.body_bytes_max
        if limit is not None and len(payload) > limit:
            raise ContentTooLarge(f"the message has {len(payload)} bytes, the limit is {limit}")
        if len(exchange) > 63 or len(routing_key) > 63:
            check_name("exchange", exchange)
            check_name("routing_key", routing_key)

    def _reopen(self, timeout: float | None) -> Engine:
        with self._opening:
            engine = self._engine
            if self._closed:
                raise ClientClosed("the client is closed")
            if engine is not None and engine.pid != os.getpid():
                if engine.core.consumers:
                    raise ClientClosed("this client consumes in the parent process")
                engine = None
            if engine is None:
                seconds = self._connect_timeout
                if timeout is not None:
                    seconds = min(seconds, max(0.0, timeout))
                engine = self._engine = Engine(
                    self.address,
                    name=self.name,
                    grace_ms=int(self._grace * 1000),
                    connect_ms=int(seconds * 1000),
                    reconnect_ms=int(self._reconnect * 1000),
                )
        if engine.error is not None:
            raise_anew(engine.error)
        try:
            engine.wait(engine.opened, self._connect_timeout + 1.0)
        except RaftMQError:
            with self._opening:
                if self._engine is engine and not engine.core.session:
                    engine.abandon(ClientClosed("the client could not connect"))
                    self._engine = None  # nothing was begun: the next call may try again
            raise
        return engine

    def _call(self, build: Callable[[int], AnyOperation], timeout: float | None) -> Any:
        ends = time.monotonic() + (self.timeout if timeout is None else timeout)
        engine = self.engine(timeout)
        call = Call()
        engine.submit(engine.core.request, call, build)
        return self._wait(engine, call, ends)

    @staticmethod
    def _wait(engine: Engine, call: Call, ends: float) -> Any:
        try:
            return engine.wait(call, max(0.0, ends - time.monotonic()))
        except DeadlineExceeded:
            if not call.done:
                engine.submit(engine.core.withdraw, call)
            raise


def _check_binding(queue: str, exchange: str, routing_key: str) -> None:
    check_name("queue", queue)
    check_name("exchange", exchange)
    check_name("routing_key", routing_key)


def _at_exit() -> None:
    """Say goodbye for those who forgot to: their messages return at once, not after a grace."""
    for client in list(_clients):
        client.close(1.0)
    end_process()


def _after_fork() -> None:
    for client in list(_clients):
        client._opening = threading.RLock()  # the parent's may be held by a thread we lack


atexit.register(_at_exit)
if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
