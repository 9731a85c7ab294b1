"""Publishing without waiting for each confirm, bounded by a window.

with client.pipeline() as pipeline:
    for payload in payloads:
        pipeline.publish(payload, routing_key="orders")
# here all of them are confirmed, or the first error was raised
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any

from broker.client.calls import Call, Group
from broker.client.engine import raise_anew
from broker.protocol import Content, encode_content

if TYPE_CHECKING:
    from broker.client.client import Client
    from broker.client.engine import Engine


class Pending(Call):
    """A publish that is under way."""

    __slots__ = ("_engine", "_timeout")

    def __init__(self, group: Group, engine: Engine, timeout: float) -> None:
        super().__init__(group)
        self._engine = engine
        self._timeout = timeout

    def wait(self, timeout: float | None = None) -> None:
        """Until it is confirmed. Raises its refusal, `DeadlineExceeded` after `timeout`
        seconds (default: the client's), or what the client failed with."""
        self._engine.wait(self, self._timeout if timeout is None else timeout)


class Pipeline:
    """Publishes whose confirms are counted together. For one thread at a time."""

    def __init__(self, client: Client, *, window: int, window_bytes: int) -> None:
        """At most `window` publishes and about `window_bytes` bytes are unconfirmed at a time."""
        assert window > 0 and window_bytes > 0
        self._client = client
        self._window = window
        self._window_bytes = window_bytes
        self._group = Group()
        self._engine: Engine | None = None

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
    ) -> Pending:
        """Send, and wait only while the window is full: at most `timeout` seconds, then
        `DeadlineExceeded` (this message was not sent)."""
        client = self._client
        engine = client.engine()
        if engine is not self._engine:
            self._engine = engine
            self._group = Group()
        if type(payload) is not bytes:
            payload = encode_content(payload)  # type: ignore[arg-type]
        client.check_publish(engine, exchange, routing_key, payload)
        group = self._group
        size = len(payload)
        if (
            group.under_way + len(engine.commands) >= self._window
            or group.bytes_under_way > self._window_bytes - size
        ):
            engine.wait_for_space(
                group,
                window=self._window,
                window_bytes=self._window_bytes,
                size=size,
                timeout=client.timeout if timeout is None else timeout,
            )
        pending = Pending(group, engine, client.timeout)
        engine.submit(
            engine.core.publish,
            pending,
            exchange,
            routing_key,
            mandatory,
            priority,
            options,
            payload,
        )
        return pending

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all that was published is confirmed; raise the first error since the last
        flush. At `DeadlineExceeded` the rest stays under way."""
        engine, group = self._engine, self._group
        if engine is None:
            return
        call = Call()
        engine.submit(engine.core.flush, call, group)
        engine.wait(call, self._client.timeout if timeout is None else timeout)
        error, group.error = group.error, None
        if error is not None:
            raise_anew(error)

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Flush, unless an exception is on its way: that one says more than a refusal would."""
        if kind is None:
            self.flush()
