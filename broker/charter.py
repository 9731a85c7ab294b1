"""What a data directory knows of the cluster that it was made for, and how a new node learns it.

    new node                       any node of the cluster
       | --- J, JoinAsk ------------> |   is this name in the list of nodes?
       | <-- J, JoinAnswer ---------- |   no: why not, and the new node asks again
       |                              |   yes: the charter
       | keeps it in its directory, and needs no --join any more

Founders write theirs when they first start: what is founded with a cluster never changes, and
the stored id counts, whatever `--cluster-nodes` says by then.
"""

from __future__ import annotations

import msgspec

from broker.config import Config, Peer
from broker.errors import ConfigError

JOIN_BYTE = b"J"
"""The first byte of these frames; the others begin with their version."""

NAME = "cluster"
"""Under which the store keeps it."""


class Charter(msgspec.Struct, frozen=True, array_like=True):
    """Whose directory it is, and whom to ask first."""

    cluster: bytes  #: the id in every frame between nodes
    name: str  #: `cluster_name`
    shards: int
    replication_factor: int
    nodes: tuple[tuple[str, str, int], ...]  #: (name, host, peer port) when it was written

    def peers(self) -> tuple[Peer, ...]:
        """The nodes as `Config` has them."""
        return tuple(Peer(*node) for node in self.nodes)

    def check(self, config: Config) -> None:
        """Raise `ConfigError` for settings that are not those of the cluster."""
        for field, own in (
            ("shards", self.shards),
            ("replication_factor", self.replication_factor),
        ):
            if getattr(config, field) != own:
                option = "--" + field.replace("_", "-")
                raise ConfigError(
                    f"{option} is {getattr(config, field)}, and the cluster was founded with "
                    f"{own}, which never changes: set {option} {own}"
                )


class JoinAsk(msgspec.Struct, frozen=True, array_like=True):
    """May a node of this name join?"""

    node: str


class JoinAnswer(msgspec.Struct, frozen=True, array_like=True):
    """The charter, or why there is none."""

    text: str = ""
    charter: Charter | None = None
    final: bool = False  #: asking again will not help


_ask = msgspec.msgpack.Decoder(JoinAsk)
_answer = msgspec.msgpack.Decoder(JoinAnswer)
_charter = msgspec.msgpack.Decoder(Charter)


def founding_charter(config: Config) -> Charter:
    """A founder's."""
    nodes = tuple((peer.id, peer.host, peer.peer_port) for peer in config.cluster_nodes)
    return Charter(
        config.cluster_id, config.cluster_name, config.shards, config.replication_factor, nodes
    )


def encode_charter(charter: Charter) -> bytes:
    """As the store keeps it."""
    return msgspec.msgpack.encode(charter)


def decode_charter(data: bytes) -> Charter:
    """Raise `msgspec.DecodeError` when this is none."""
    return _charter.decode(data)


def encode_join(message: JoinAsk | JoinAnswer) -> bytes:
    """A frame."""
    return JOIN_BYTE + msgspec.msgpack.encode(message)


def decode_ask(frame: bytes) -> JoinAsk:
    """Raise `msgspec.DecodeError` when this is none."""
    return _ask.decode(memoryview(frame)[1:])


def decode_answer(frame: bytes) -> JoinAnswer:
    """Raise `msgspec.DecodeError` when this is none."""
    return _answer.decode(memoryview(frame)[1:])
