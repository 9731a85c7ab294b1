"""What a program may set in `transport_options`: the keys, their types and their defaults.

Kombu writes the arguments of retry policies into the same dict, and a program may have
options of another transport there, so an unknown key is nobody's mistake and is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from broker.errors import ConfigError

CONNECT_TIMEOUT_S = 4.0
"""How long connecting may take when the program does not say."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The options of one connection. Durations are in seconds."""

    confirm_publish: bool = True
    """Wait in every publish until the message is safe on a majority of nodes. When false,
    publishing runs ahead of the confirms; a message that failed is an error of the next
    publish, flush or close."""

    request_timeout: float = 10.0
    """How long declarations and the like, and publishing without a timeout, may take."""

    session_grace: float = 5.0
    """How long the broker keeps the session, and what it holds, after the link broke."""

    reconnect_timeout: float = 15.0
    """How long to look for a node before a lost link is a connection error."""

    publish_window: int = 1000
    """Messages that may be unconfirmed at a time; publishing waits while there are more."""

    publish_window_bytes: int = 64 << 20
    """The same in bytes of payload."""

    connection_name: str = ""
    """Shown by the broker's tools."""


def parse(options: Mapping[str, Any] | None) -> Options:
    """Raise `ConfigError`, naming the key, for a known key with a value of a wrong type."""
    known: dict[str, Any] = {}
    for field in msgspec.structs.fields(Options):
        value = (options or {}).get(field.name)
        if value is not None:
            known[field.name] = _checked(field.name, field.type, value)
    return Options(**known)


def _checked(name: str, kind: Any, value: Any) -> Any:
    try:
        value = msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"transport option {name!r} must be of type {kind.__name__}, not {value!r}"
        ) from error
    if kind in (int, float) and value <= 0:
        raise ConfigError(f"transport option {name!r} must be greater than 0, not {value!r}")
    return value
