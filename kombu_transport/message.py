"""A message in Kombu's shape: how it becomes the payload of a publish, and back again.

    Kombu: body (str or bytes), properties, headers
      <-> broker.protocol.Content: properties, headers, body (bytes)
      <-> payload: MessagePack of it, opaque to the broker

A body that is text travels in its `content_encoding` and comes back as str, as Kombu's JSON
and YAML want it; a compressed or binary body stays bytes. Nothing is base64.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from kombu.compression import decompress
from kombu.message import Message as KombuMessage

from broker.client import Delivery
from broker.errors import Code
from broker.protocol import Content, ProtocolError, encode_content
from kombu_transport.errors import refusal

PRIORITY_MAX = 9
_AMQP = (
    *("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id"),
    *("reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id"),
    "cluster_id",
)
_TEXT = frozenset({"utf-8", "UTF-8", "utf8", "us-ascii", "ascii"})


class Message(KombuMessage):
    """A received message, with the channel that settles it."""

    # Most messages have none: a list is made for the one that does.
    errors: Sequence[Any] = ()

    def __init__(
        self,
        channel: Any,
        delivery: Delivery,
        delivery_tag: int,
        delivery_info: dict[str, Any],
    ) -> None:
        # Hot path: sets what the ancestor's __init__ would, without its detours.
        try:
            content = delivery.content
            properties = content.properties
            headers = content.headers
            raw = content.body
        except ProtocolError:
            # Not published through Kombu. Whoever consumes it decides what to do with it.
            properties = {"content_type": "application/octet-stream", "content_encoding": "binary"}
            headers, raw = {}, delivery.payload
        self.channel = channel
        self.delivery_tag = delivery_tag
        self.delivery_info = delivery_info
        self.properties = properties
        self.headers = headers
        self.content_type = properties.get("content_type")
        self.content_encoding = encoding = properties.get("content_encoding")
        self.accept = None
        self._decoded_cache = None
        self._state = "RECEIVED"
        if headers and headers.get("compression"):
            try:
                raw = decompress(raw, headers["compression"])
            except Exception:  # noqa: BLE001  Kombu hands whatever it is to `on_decode_error`
                self.errors = [sys.exc_info()]
        self.body: str | bytes = raw
        if encoding in _TEXT:
            try:
                self.body = raw.decode(encoding)
            except UnicodeDecodeError:
                pass  # the sender's word was wrong; it stays as it is


def to_content(
    body: str | bytes,
    priority: int | None,
    content_type: str | None,
    content_encoding: str | None,
    headers: dict[str, Any] | None,
    properties: dict[str, Any] | None,
) -> Content:
    """What Kombu's `prepare_message` is asked to make; the properties are copied."""
    kept = dict(properties) if properties else {}
    if content_type is not None:
        kept["content_type"] = content_type
    if content_encoding is not None:
        kept["content_encoding"] = content_encoding
    kept["priority"] = priority or kept.get("priority") or 0
    if isinstance(body, str):
        body = _encode(body, kept)
    return Content(kept, headers or {}, body)


def _encode(body: str, properties: dict[str, Any]) -> bytes:
    encoding = properties.setdefault("content_encoding", "utf-8")
    try:
        return body.encode(encoding)
    except LookupError:  # "binary" and the like: not the name of an encoding of text
        return body.encode()


def encode_message(message: Content | str | bytes) -> tuple[int, dict[str, Any] | None, bytes]:
    """(priority, options, payload) of one publish. A bare body is sent as it is.

    Raise a channel error 406 for an `expiration` that is none, TypeError for headers or
    properties that are not plain data.
    """
    if not isinstance(message, Content):
        message = to_content(message, None, None, None, None, None)
    properties = message.properties
    expiration = properties.get("expiration")
    options = None if expiration is None else _time_to_live(expiration)
    try:
        payload = encode_content(message)
    except TypeError:
        payload = encode_content(_amqp_alone(message))
    return envelope_priority(properties), options, payload


def _amqp_alone(message: Content) -> Content:
    """Without properties that AMQP has no room for: applications pass such things to `publish`
    by accident, and py-amqp leaves them out. `reply_to` may be a `kombu.Queue`, which has its
    name only once it is declared."""
    properties = {key: message.properties[key] for key in _AMQP if key in message.properties}
    reply_to = properties.get("reply_to")
    if reply_to is not None:
        properties["reply_to"] = getattr(reply_to, "name", reply_to)
    return Content(properties, message.headers, message.body)


def envelope_priority(properties: dict[str, Any]) -> int:
    """The priority the broker sorts by, 0 to 9."""
    priority: int = properties.get("priority") or 0
    return priority if 0 <= priority <= PRIORITY_MAX else min(max(priority, 0), PRIORITY_MAX)


def _time_to_live(expiration: Any) -> dict[str, Any]:
    """`expiration`, a string of milliseconds in AMQP, as an option of the envelope."""
    try:
        ttl_ms = int(expiration)
    except (TypeError, ValueError):
        ttl_ms = -1
    if ttl_ms < 0:
        text = f"expiration must be a number of milliseconds, not {expiration!r}"
        raise refusal(text, Code.PRECONDITION_FAILED)
    return {"ttl_ms": ttl_ms}
