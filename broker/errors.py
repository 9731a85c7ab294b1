"""Every error that a caller of RaftMQ can meet, with its code.

RaftMQError
  ConfigError              a setting is wrong; names it
  StateDiffers             a node's own state is not that of the others: it stops ...
  StateDiffered            ... and is not started again
  FormatTooNew             a checkpoint or an entry was written by a later version
  Refused                  the broker says no: nothing was done (AMQP's codes)
    AccessRefused 403 · NotFound 404 · ResourceLocked 405 · PreconditionFailed 406
    ContentTooLarge 311 · NoRoute 312 · MalformedFrame 501 · InvalidArgument 502
    CommandInvalid 503 · ResourceExhausted 506 · NotAllowed 530 · NotImplementedByBroker 540
    InternalError 541
  Unavailable              the world failed: nothing is known, or nothing was sent
    ConnectFailed          no node could be reached
    DeadlineExceeded       sent, but not confirmed in time: it may be done or not
    SessionExpired 320     the broker gave this session up; its deliveries are elsewhere
    ClientClosed           the client was closed meanwhile
"""

from __future__ import annotations

from enum import IntEnum


class Code(IntEnum):
    """Numbers of refusals on the wire; AMQP's where AMQP has one."""

    CONTENT_TOO_LARGE = 311
    NO_ROUTE = 312
    SESSION_EXPIRED = 320
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    MALFORMED_FRAME = 501
    INVALID_ARGUMENT = 502
    COMMAND_INVALID = 503
    RESOURCE_EXHAUSTED = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541


class RaftMQError(Exception):
    """The root of all errors of this package."""


class ConfigError(RaftMQError):
    """A setting is wrong; the message names it and says what to do."""


class StateDiffers(RaftMQError):
    """A majority of a shard's replicas has another state than this node, which must stop.

    seen: who has which hash, as text.
    """

    def __init__(self, node: str, shard: int, index: int, seen: str) -> None:
        super().__init__(
            f"the state of shard {shard} on node {node} after entry {index} is not that of the "
            f"other replicas ({seen}). The others go on. Do not start this node again: keep its "
            "directory for inspection, remove the node from the cluster and add one under a new "
            "name, with an empty directory"
        )
        self.shard = shard
        self.index = index


class StateDiffered(RaftMQError):
    """The directory is that of a node which `StateDiffers` has stopped."""


class FormatTooNew(RaftMQError):
    """A checkpoint or an entry was written by a later version; nothing was changed."""


class Refused(RaftMQError):
    """The broker refused an operation, which changed nothing. `code` is a `Code`."""

    code: int = Code.INTERNAL_ERROR

    def __init__(self, text: str, code: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        if code is not None:
            self.code = code


class AccessRefused(Refused):
    code = Code.ACCESS_REFUSED


class NotFound(Refused):
    code = Code.NOT_FOUND


class ResourceLocked(Refused):
    code = Code.RESOURCE_LOCKED


class PreconditionFailed(Refused):
    code = Code.PRECONDITION_FAILED


class ContentTooLarge(Refused):
    code = Code.CONTENT_TOO_LARGE


class NoRoute(Refused):
    code = Code.NO_ROUTE


class MalformedFrame(Refused):
    code = Code.MALFORMED_FRAME


class InvalidArgument(Refused):
    code = Code.INVALID_ARGUMENT


class CommandInvalid(Refused):
    code = Code.COMMAND_INVALID


class ResourceExhausted(Refused):
    code = Code.RESOURCE_EXHAUSTED


class NotAllowed(Refused):
    code = Code.NOT_ALLOWED


class NotImplementedByBroker(Refused):
    code = Code.NOT_IMPLEMENTED


class InternalError(Refused):
    code = Code.INTERNAL_ERROR


class Unavailable(RaftMQError):
    """The operation has no known outcome, because something between us failed."""


class ConnectFailed(Unavailable):
    """No node of the cluster could be reached, or none answered."""


class DeadlineExceeded(Unavailable):
    """There was no answer by the deadline; the operation may have been done or not."""


class SessionExpired(Unavailable):
    """The broker gave the session up after its grace; open a new one."""

    code: int = Code.SESSION_EXPIRED


class ClientClosed(Unavailable):
    """The client was closed before the operation ended."""


_BY_CODE: dict[int, type[Refused]] = {int(kind.code): kind for kind in Refused.__subclasses__()}


def refusal(code: int, text: str) -> Refused:
    """The typed error for a refusal's code; an unknown code is a plain `Refused`."""
    kind = _BY_CODE.get(code)
    return kind(text) if kind is not None else Refused(text, code)
