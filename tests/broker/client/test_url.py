"""URLs: what they mean, and that a bad one names the part that is wrong."""

from __future__ import annotations

import pytest

from broker.client.names import check_name
from broker.client.url import Address, parse_url
from broker.errors import ConfigError, InvalidArgument


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("raftmq://h:1//", Address(("h:1",))),
        ("raftmq://h", Address(("h:7650",))),
        ("raftmq://h/", Address(("h:7650",))),
        ("raftmq://h/foo", Address(("h:7650",), "foo")),
        ("raftmq://h//foo", Address(("h:7650",), "/foo")),
        ("raftmq://h/%2Ffoo", Address(("h:7650",), "/foo")),
        ("RaftMQ://a:1,b,a:1,c:3//", Address(("a:1", "b:7650", "c:3"))),
        ("raftmq://u@h", Address(("h:7650",), user="u")),
        ("raftmq://u:p%40%3a@h:9/v", Address(("h:9",), "v", "u", "p@:")),
        ("h", Address(("h:7650",))),
        ("10.0.0.1:5,h", Address(("10.0.0.1:5", "h:7650"))),
        ("raftmq://[::1]:5//", Address(("[::1]:5",))),
    ],
)
def test_a_url_is_read(url: str, address: Address) -> None:
    assert parse_url(url) == address


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("amqp://h", "scheme"),
        ("raftmq://", "host"),
        ("raftmq://h:x", "port"),
        ("raftmq://h:", "port"),
        ("raftmq://h:0", "port"),
        ("raftmq://h:70000", "port"),
        ("raftmq://a,,b", "host"),
        ("raftmq://h/v?x=1", "query"),
        ("raftmq://a@b@h", "user"),
        ("", "host"),
    ],
)
def test_a_bad_url_names_the_part(url: str, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        parse_url(url)


def test_a_password_is_never_shown() -> None:
    address = parse_url("raftmq://u:secret@h//")
    assert "secret" not in address.as_url()
    with pytest.raises(ConfigError) as caught:
        parse_url("raftmq://u:secret@h:x//")
    assert "secret" not in str(caught.value)


def test_names_are_bounded_in_bytes() -> None:
    check_name("queue", "x" * 255)
    with pytest.raises(InvalidArgument, match="queue"):
        check_name("queue", "x" * 256)
    with pytest.raises(InvalidArgument, match="routing_key"):
        check_name("routing_key", "\N{SNOWMAN}" * 86)
