"""Which of Kombu's errors each of the broker's is."""

from __future__ import annotations

import amqp.exceptions as amqp
import pytest

from broker import errors
from kombu_transport.errors import translated
from kombu_transport.transport import Transport

REFUSALS = errors.Refused.__subclasses__()
FAILURES = [errors.Unavailable, *errors.Unavailable.__subclasses__()]


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_is_a_channel_error_with_its_code(kind: type[errors.Refused]) -> None:
    error = translated(kind("because"))
    assert isinstance(error, Transport.channel_errors)
    assert not isinstance(error, Transport.connection_errors)
    assert error.code == error.reply_code == kind.code
    assert "because" in str(error)


def test_the_refusals_that_kombu_knows_by_class() -> None:
    assert isinstance(translated(errors.NotFound("")), amqp.NotFound)
    assert isinstance(translated(errors.ResourceLocked("")), amqp.ResourceLocked)
    assert isinstance(translated(errors.PreconditionFailed("")), amqp.PreconditionFailed)
    assert isinstance(translated(errors.AccessRefused("")), amqp.AccessRefused)


def test_a_refusal_with_a_code_of_tomorrow() -> None:
    error = translated(errors.refusal(999, "new"))
    assert isinstance(error, amqp.ChannelError) and error.code == 999


@pytest.mark.parametrize("kind", FAILURES)
def test_a_failure_is_a_recoverable_connection_error(kind: type[errors.Unavailable]) -> None:
    error = translated(kind("gone"))
    assert isinstance(error, Transport.recoverable_connection_errors)
    assert isinstance(error, Transport.connection_errors)
    assert not isinstance(error, OSError), "socket.timeout means that there is no event"
    assert "gone" in str(error)


def test_a_wrong_setting_is_nobody_elses_error() -> None:
    wrong = errors.ConfigError("name")
    assert translated(wrong) is wrong
