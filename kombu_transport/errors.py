"""The broker's errors as Kombu and Celery know them: one table, one function.

    broker.errors                       raised by the transport
    Refused, with its code              an AMQP channel error; the channel stays usable
    Unavailable and what is under it    an AMQP recoverable connection error
    any other                           itself

Kombu repeats an operation on a new connection after the second kind and never after most of
the first, so the difference decides whether a message is published again. A timeout is of the
second kind as well, and never a `socket.timeout`: that one means "nothing to receive" here.
"""

from __future__ import annotations

from amqp import exceptions as amqp

from broker.errors import Code, RaftMQError, Refused, Unavailable


class BrokerRefused(amqp.IrrecoverableChannelError):
    """A refusal for which AMQP has no channel error; `code` is a `broker.errors.Code`."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text, reply_code=code)
        self.code = code

    def __reduce__(self) -> tuple[type[BrokerRefused], tuple[str, int]]:
        """Pickled by worker pools, whose processes pass a task's exception on."""
        return type(self), (self.reply_text, self.code)


class ResourceExhausted(amqp.RecoverableChannelError):
    """A limit of the broker is reached; nothing was done, and later it may succeed."""

    code = Code.RESOURCE_EXHAUSTED


class BrokerUnavailable(amqp.RecoverableConnectionError):
    """The session is lost, or the broker gave no answer in time. `__cause__` tells which."""


class PublishFailed(amqp.RecoverableConnectionError):
    """A message published without waiting was not confirmed; it may be lost."""


_REFUSALS: dict[int, type[amqp.ChannelError]] = {
    Code.CONTENT_TOO_LARGE: amqp.ContentTooLarge,
    Code.ACCESS_REFUSED: amqp.AccessRefused,
    Code.NOT_FOUND: amqp.NotFound,
    Code.RESOURCE_LOCKED: amqp.ResourceLocked,
    Code.PRECONDITION_FAILED: amqp.PreconditionFailed,
    Code.RESOURCE_EXHAUSTED: ResourceExhausted,
}


def translated(error: RaftMQError) -> Exception:
    """The exception to raise `from error`."""
    if isinstance(error, Refused):
        refused: Exception = refusal(error.text, error.code)
        return refused
    if isinstance(error, Unavailable):
        return BrokerUnavailable(str(error) or type(error).__name__)
    return error


def refusal(text: str, code: int) -> amqp.ChannelError:
    """The channel error for a refusal's code."""
    kind = _REFUSALS.get(code)
    return kind(text, reply_code=code) if kind is not None else BrokerRefused(text, code)
