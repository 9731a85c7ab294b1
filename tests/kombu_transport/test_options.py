"""Which transport options are ours, and what is said of a wrong one."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import ConfigError
from kombu_transport.options import Options, parse


def test_defaults() -> None:
    assert parse(None) == parse({}) == Options()
    assert Options().confirm_publish


def test_what_others_put_there_is_passed_over() -> None:
    others = {"max_retries": 3, "interval_start": 0, "errback": print, "visibility_timeout": 1}
    assert parse({**others, "confirm_publish": False}) == Options(confirm_publish=False)


def test_whole_seconds_are_seconds() -> None:
    assert parse({"request_timeout": 3}).request_timeout == 3.0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("confirm_publish", "no"),
        ("confirm_publish", 1),
        ("request_timeout", "soon"),
        ("request_timeout", 0),
        ("publish_window", 1.5),
        ("publish_window", -1),
        ("connection_name", 7),
    ],
)
def test_a_wrong_value_is_named(name: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=name):
        parse({name: value})
