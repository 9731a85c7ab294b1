"""What applying a command asks of the outside.

Every replica computes the same effects; only the shard's leader carries out those that
address a session. Those of the topology (`SessionMoved`, `SessionGone`, `QueueGone`,
`TopologyChanged`) are heeded by every node for its own books.

Effects are named tuples: one is made for nearly every command, and nothing else costs as little.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias


class Deliver(NamedTuple):
    """Hand a checked-out message to its consumer. The body is in the log, under `id`."""

    session: int
    consumer: int
    queue: int
    id: int  #: of the message: (index, offset) of the command that carried it
    #: how often it has been delivered, this time included; > 1 is a redelivery
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody misses here


class Fetched(NamedTuple):
    """The answer to a `Fetch` that found a message."""

    session: int
    seq: int
    queue: int
    id: int
    count: int  # type: ignore[assignment]  # as above
    ready: int  #: messages that are still ready


class Confirm(NamedTuple):
    """The operation is done and has no other answer."""

    session: int
    seq: int


class Reply(NamedTuple):
    """The operation is done; `value` is plain data (None, numbers, strings, tuples)."""

    session: int
    seq: int
    value: Any


class Refuse(NamedTuple):
    """The operation is refused with an AMQP code; nothing has changed."""

    session: int
    seq: int
    code: int  #: 403, 404, 405, 406, ...
    text: str


class Misrouted(NamedTuple):
    """A command for a queue this shard does not know (any more): route it again."""

    session: int
    seq: int


class Cancelled(NamedTuple):
    """A consumer ended because its queue went away."""

    session: int
    consumer: int


class Unused(NamedTuple):
    """The last consumer of an auto-delete queue has gone: delete the queue."""

    queue: int


class SessionMoved(NamedTuple):
    """A session was opened (epoch 1) or resumed at a node, by the client on `link`."""

    session: int
    node: str
    boot: int
    link: int
    epoch: int
    token: bytes


class SessionRefused(NamedTuple):
    """A session could not be resumed: it is over, or the token is wrong."""

    session: int
    node: str
    boot: int
    link: int
    code: int
    text: str


class SessionGone(NamedTuple):
    session: int
    reason: str


class QueueGone(NamedTuple):
    """A queue left the topology."""

    queue: int
    shard: int


class TopologyChanged(NamedTuple):
    """Routes may be different from now on."""


Effect: TypeAlias = (
    Deliver
    | Fetched
    | Confirm
    | Reply
    | Refuse
    | Misrouted
    | Cancelled
    | Unused
    | SessionMoved
    | SessionRefused
    | SessionGone
    | QueueGone
    | TopologyChanged
)
