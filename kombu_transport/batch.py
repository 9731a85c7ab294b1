"""Many publishes, confirmed together: what `kombu.Producer.batch` publishes through.

Messages wait here, encoded, until there are `max_size` of them or `flush` is called; then all
are sent at once and all confirms awaited, so that the cluster commits them together.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.errors import RaftMQError, Unavailable
from broker.protocol import Content
from kombu_transport.errors import BrokerUnavailable, translated
from kombu_transport.message import encode_message

if TYPE_CHECKING:
    from kombu_transport.channel import Channel

BATCH_BYTES_MAX = 16 << 20
"""Payload that waits here at most, whatever the number of messages."""


class PublishBatch:
    """One batch of one channel; for one thread."""

    def __init__(self, channel: Channel, max_size: int) -> None:
        self.channel = channel
        self._max_size = max_size
        self._waiting: list[tuple[bytes, str, str, bool, int, dict[str, Any] | None]] = []
        self._waiting_bytes = 0

    def publish(
        self,
        message: Content | str | bytes,
        exchange: str = "",
        routing_key: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        timeout: float | None = None,
        confirm_timeout: float | None = None,
    ) -> None:
        """Add a message; sends what waits when the batch is full. Raises as `flush`."""
        if self.channel.connection is None:
            raise BrokerUnavailable("publish: the channel is closed")
        priority, options, payload = encode_message(message)
        self._waiting.append((payload, exchange, routing_key or "", mandatory, priority, options))
        self._waiting_bytes += len(payload)
        if len(self._waiting) >= self._max_size or self._waiting_bytes >= BATCH_BYTES_MAX:
            self.flush()

    def flush(self) -> None:
        """Send what waits, and return when all of it is confirmed.

        Raise a recoverable connection error when a message has no confirm, a channel error
        when the broker refused one; in both cases the others may well have been published.
        """
        connection = self.channel.connection
        if connection is None:
            raise BrokerUnavailable("flush: the channel is closed")
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        failed: RaftMQError | None = None
        pendings = []
        try:
            for payload, exchange, routing_key, mandatory, priority, options in waiting:
                pendings.append(
                    connection.broker.publish_nowait(
                        payload,
                        exchange,
                        routing_key,
                        mandatory=mandatory,
                        priority=priority,
                        options=options,
                    )
                )
        except RaftMQError as error:
            failed = error
        for pending in pendings:
            try:
                pending.wait()
            except Unavailable as error:
                # It says more than one message's refusal. The others would each wait as long.
                failed = error
                break
            except RaftMQError as error:
                failed = failed or error
        if failed is not None:
            raise translated(failed) from failed

    def discard(self) -> None:
        """Forget what waits."""
        self._waiting.clear()
        self._waiting_bytes = 0

    def close(self) -> None:
        """The end; whatever still waits is forgotten."""
        self.discard()
