"""From Kombu's idea of a connection to one URL, and what of it people may see."""

from __future__ import annotations

import pytest
from kombu import Connection

import kombu_transport  # noqa: F401  (registers the scheme)
from broker.errors import ConfigError
from kombu_transport import url


def nodes(connection: Connection) -> tuple[str, ...]:
    return url.address_of(connection).nodes


def test_all_nodes_of_one_url() -> None:
    connection = Connection("raftmq://a:1,b:2//")
    assert nodes(connection) == ("a:1", "b:2")
    assert connection.as_uri() == "raftmq://a:1,b:2//"


def test_alternates_are_tried_too_the_current_one_first() -> None:
    connection = Connection("raftmq://a:1//;raftmq://b:2//;raftmq://c:3//")
    assert nodes(connection) == ("a:1", "b:2", "c:3")
    connection.maybe_switch_next()
    assert connection.hostname == "b"
    assert nodes(connection) == ("b:2", "a:1", "c:3")


@pytest.mark.parametrize(
    ("path", "vhost"), [("", "/"), ("/", "/"), ("//", "/"), ("/shop", "shop"), ("/a%2Fb", "a/b")]
)
def test_virtual_host(path: str, vhost: str) -> None:
    connection = Connection(f"raftmq://a:1{path}")
    assert url.address_of(connection).vhost == vhost
    again = Connection(url.render(url.address_of(connection)))
    assert url.address_of(again).vhost == vhost


def test_virtual_host_as_an_argument() -> None:
    assert url.address_of(Connection("raftmq://a:1", virtual_host="shop")).vhost == "shop"


def test_the_password_is_for_the_broker_alone() -> None:
    connection = Connection("raftmq://me:p%40ss@a:1,b:2/shop")
    assert connection.as_uri() == "raftmq://me:**@a:1,b:2/shop"
    assert connection.as_uri(include_password=True) == "raftmq://me:p%40ss@a:1,b:2/shop"
    shown = connection.info()
    assert shown.pop("password") == "p@ss"
    assert "p@ss" not in str(shown) and "p%40ss" not in str(shown)
    address = url.address_of(connection.clone())
    assert (address.user, address.password, address.vhost) == ("me", "p@ss", "shop")


def test_a_password_that_is_a_function_is_called_only_when_it_is_needed() -> None:
    asked = []

    def password() -> str:
        asked.append(1)
        return "fresh"

    connection = Connection("raftmq://a:1", userid="me", password=password)
    assert connection.as_uri() == "raftmq://me:**@a:1//"
    assert not asked
    assert url.address_of(connection).password == "fresh"


@pytest.mark.parametrize("wrong", ["raftmq://a:port", "raftmq://a:1,,b:2", "raftmq://a:1?x=1"])
def test_a_wrong_url_is_named(wrong: str) -> None:
    with pytest.raises(ConfigError, match="URL"):
        url.address_of(Connection(wrong))
