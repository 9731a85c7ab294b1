"""How Kombu learns of `raftmq://`: the entry point that puts the scheme into its table.

Kombu has no entry points for transports, but it loads the group `kombu.serializers` whenever
`kombu.serialization` is imported, which Celery and everything that sends or receives does.
A program that imports nothing but `kombu.Connection` says `import kombu_transport` itself.

This module imports nothing of ours: it is loaded within Kombu's own import, and an error here
would take all of Celery down.
"""

from __future__ import annotations

import logging

SCHEME = "raftmq"
TRANSPORT = "kombu_transport.transport:Transport"

serializer = (None, None, "application/x-raftmq", "utf-8")
"""What the entry point hands to Kombu: a serializer without encoder and decoder, for none is
meant; loading the entry point imports the package, and that registers the scheme."""


def register() -> None:
    """Put the scheme into Kombu's table, unless somebody has put it there before."""
    try:
        from kombu.transport import TRANSPORT_ALIASES

        TRANSPORT_ALIASES.setdefault(SCHEME, TRANSPORT)
    except Exception:
        # Whatever it is, Celery with another broker must not suffer from it.
        logging.getLogger(__name__).exception("raftmq:// could not be registered with Kombu")
