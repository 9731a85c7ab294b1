"""Broker URLs: from what Kombu knows of a connection to the one URL that the client is given.

    raftmq://user:password@host1:port,host2:port/vhost       all nodes in one, the usual form
    raftmq://host1:port/vhost;raftmq://host2:port/vhost      Kombu's alternates, one node each

Kombu hands over `hostname`, which is such a URL, or, after its own failover, a bare host with
the rest in other attributes; and `alt`, all alternates. What a URL says wins over those
attributes, as in Kombu itself.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from broker.client.url import PORT, Address, parse_url

SCHEME = "raftmq"
LOCAL = "127.0.0.1"

__all__ = ["LOCAL", "PORT", "SCHEME", "address_of", "hide_login", "render"]


def address_of(connection: Any, *, password: str | None = None) -> Address:
    """Where a `kombu.Connection` leads: its current node or nodes first, then all alternates.

    password: to be used in the place of the real one, which may be a function that is
    expensive to call. Raise `ConfigError` for a URL that is none.
    """
    first = _current(connection, password)
    nodes = dict.fromkeys(first.nodes)
    for url in connection.alt or ():
        nodes.update(dict.fromkeys(parse_url(url).nodes))
    return Address(tuple(nodes), first.vhost, first.user, first.password)


def _current(connection: Any, stand_in: str | None) -> Address:
    host = connection.hostname or LOCAL
    if "://" not in host and ":" not in host and connection.port:
        host = f"{host}:{connection.port}"
    url = parse_url(host)
    named = "@" in host
    password = url.password or connection.password or ""
    if password and stand_in is not None:
        password = stand_in
    return Address(
        nodes=url.nodes,
        vhost=connection.virtual_host or "/" if url.vhost == "/" else url.vhost,
        user=url.user if named else connection.userid or url.user,
        # Kombu allows a callable, asked anew for every connection.
        password=password() if callable(password) else password,
    )


def render(address: Address, *, safe: str = "") -> str:
    """The address as a URL. safe: characters not to be escaped in the password, for a mask."""
    login = ""
    if address.password or address.user != "guest":
        login = quote(address.user, safe="")
        if address.password:
            login += f":{quote(address.password, safe=safe)}"
        login += "@"
    vhost = "/" if address.vhost == "/" else quote(address.vhost, safe="")
    return f"{SCHEME}://{login}{','.join(address.nodes)}/{vhost}"


def hide_login(connection: Any) -> None:
    """Move user and password from a `kombu.Connection`'s URL into its own attributes.

    Celery shows a worker's connection to whoever asks (`celery inspect stats`), and of all its
    attributes it leaves out the password alone.
    """
    host = connection.hostname or ""
    if "://" in host and "@" in host:
        address = parse_url(host)
        connection.userid, connection.password = address.user, address.password
        public = Address(address.nodes, address.vhost)
        connection.hostname = render(public)
