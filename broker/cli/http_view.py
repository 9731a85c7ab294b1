"""Asks nodes over HTTP how they are: what `status`, `dev` and the demo look at."""

from __future__ import annotations

import http.client
import urllib.error
import urllib.request
from collections.abc import Iterable

import msgspec

from broker.status import NodeStatus, decode_status

TIMEOUT_S = 2.0
BODY_BYTES_MAX = 64 << 20


def fetch(
    url: str, path: str, timeout_s: float = TIMEOUT_S, body: bytes | None = None
) -> tuple[int, bytes]:
    """(HTTP status, body); a POST of `body`, if there is one.

    OSError: nobody answers there. ValueError: not a URL.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is not an http:// URL")
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        request = urllib.request.Request(url.rstrip("/") + path, body, headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as answer:
            return answer.status, answer.read(BODY_BYTES_MAX)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read(BODY_BYTES_MAX)
    except http.client.HTTPException as error:
        # Somebody listens there who does not speak HTTP: the port of clients, say.
        raise OSError(f"{url} does not speak HTTP: {error}") from error


def is_ready(url: str) -> bool:
    """Whether the node at this URL serves clients; false also when it does not answer."""
    try:
        return fetch(url, "/ready")[0] == 200
    except OSError:
        return False


def status_of(url: str) -> NodeStatus | None:
    """The status of the node at this URL; None when it does not answer with one."""
    try:
        code, body = fetch(url, "/status")
        return decode_status(body) if code == 200 else None
    except (OSError, msgspec.DecodeError):
        return None


def first_status(urls: Iterable[str]) -> NodeStatus | None:
    """The status of the first node that answers."""
    return next((status for url in urls if (status := status_of(url)) is not None), None)
