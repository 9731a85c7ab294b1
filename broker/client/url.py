"""Where a cluster is: `raftmq://[user[:password]@]host[:port][,host2[:port2]...][/[vhost]]`.

The path after the first slash is the virtual host, as in AMQP's URLs: `raftmq://h//` and
`raftmq://h` mean "/", `raftmq://h/shop` means "shop". A bare `host` or `host:port` (with
commas) will do too. User, password and vhost are percent-decoded.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import msgspec

from broker.errors import ConfigError

PORT = 7650
_HOST = re.compile(r"[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]")


class Address(msgspec.Struct, frozen=True):
    """A cluster as a URL names it."""

    nodes: tuple[str, ...]  #: host:port, in the order given, without repeats
    vhost: str = "/"
    user: str = "guest"
    password: str = ""

    def as_url(self) -> str:
        """The URL again, with the password masked: for people and logs."""
        user = f"{self.user}:**@" if self.password else ""
        return f"raftmq://{user}{','.join(self.nodes)}/{self.vhost}"


def parse_url(url: str) -> Address:
    """Raise `ConfigError`, which names the part that is wrong (never the password)."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "raftmq", url
    if scheme.lower() != "raftmq":
        raise ConfigError(f"URL scheme {scheme!r}: expected raftmq://host[:port]/vhost")
    if "?" in rest or "#" in rest:
        raise ConfigError("URL query: options are arguments of the client, not part of the URL")
    authority, _, path = rest.partition("/")
    login, _, hosts = authority.rpartition("@")
    user, _, password = login.partition(":")
    if "@" in login:
        raise ConfigError("URL user: write '@' in a name or a password as %40")
    return Address(
        nodes=parse_nodes(hosts),
        vhost=unquote(path) or "/",
        user=unquote(user) or "guest",
        password=unquote(password),
    )


def parse_nodes(hosts: str) -> tuple[str, ...]:
    """`host[:port]`s separated by commas, each with its port; raise `ConfigError`."""
    nodes: dict[str, None] = {}
    for part in hosts.split(","):
        match = _HOST.match(part)
        if match is None:
            raise ConfigError(f"URL host {part!r}: expected host or host:port")
        host, tail = match.group(), part[match.end() :]
        if not tail:
            port = PORT
        elif tail[0] == ":" and tail[1:].isascii() and tail[1:].isdigit():
            port = int(tail[1:])
        else:
            raise ConfigError(f"URL port of {part!r}: expected host:port, port a number")
        if not 0 < port < 65536:
            raise ConfigError(f"URL port {port} of {part!r}: expected 1 to 65535")
        nodes[f"{host}:{port}"] = None
    return tuple(nodes)
