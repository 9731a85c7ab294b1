"""Every setting and every limit of a node, validated once.

Units stand at the end of the names. A limit's behaviour when it is reached is said beside it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from hashlib import blake2b
from itertools import combinations

from broker.errors import ConfigError

PORT = 7650
PEER_PORT = 7651
HTTP_PORT = 7652
PORT_MAX = 65_535
PORTS = ("port", "peer_port", "http_port")
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,253}|[0-9A-Fa-f:.]{2,45}(%[A-Za-z0-9._-]{1,15})?")
"""A host's name or address, of IPv4 or IPv6. What is none could not even be connected to."""
FRAME_OVERHEAD_BYTES = 64 << 10
"""Room for the names and numbers beside a message's body and headers."""
MAY_BE_ZERO = ("grace_ms", "audit_ms", "scrub_bytes_per_s")
WILDCARDS = ("0.0.0.0", "::", "*", "")


@dataclass(frozen=True, slots=True)
class Peer:
    """A node of the cluster, as `--cluster-nodes` names it."""

    id: str
    host: str
    peer_port: int


@dataclass(frozen=True, slots=True)
class Config:
    """A node's settings. Raise `ConfigError` for what makes no sense, naming the option."""

    node_id: str = "n1"
    cluster_nodes: tuple[Peer, ...] = (Peer("n1", "127.0.0.1", PEER_PORT),)
    cluster_name: str = "raftmq"
    join: str = ""  #: peer addresses of nodes to ask, host:port,...; for a new node's first start
    data_dir: str = "raftmq-data"

    host: str = "127.0.0.1"  #: where clients are served
    port: int = PORT
    peer_host: str = "127.0.0.1"  #: where the other nodes are listened to
    peer_port: int = PEER_PORT
    http_host: str = "127.0.0.1"
    http_port: int = HTTP_PORT
    advertise_host: str = ""  #: what clients are told; empty: `host`, or the own cluster entry

    # --- shards and time ---------------------------------------------------------------

    shards: int = 8  #: Raft groups; shard 0 has topology and sessions, the others the queues
    replication_factor: int = 3  #: nodes that keep a copy of each shard
    tick_ms: int = 50
    heartbeat_ticks: int = 4
    election_ticks: int = 20
    beat_ms: int = 1000  #: between signs of life to each client
    grace_ms: int = 5000  #: how long a client may be away that wishes for nothing (0)
    grace_ms_max: int = 600_000  #: longer wishes are cut to it
    link_lost_ms: int = 3000  #: without a sign of life a link counts as lost
    leave_ms: int = 2000  #: for handing over what is led here when told to stop
    hello_ms_max: int = 10_000  #: a Hello that shard 0 has not answered by then is forgotten
    audit_ms: int = 60_000  #: between comparisons of a shard's replicas that work; 0: none

    # --- limits on what clients send: refused, the connection lives ----------------------
    # Those of queues, exchanges, bindings, sessions and consumers are part of what `apply`
    # decides, so the log has them: these are only what a founding leader writes there.

    frame_bytes_max: int = 64 << 20  #: libzmq closes a link that sends a larger one
    body_bytes_max: int = 16 << 20
    header_bytes_max: int = 1 << 20  #: properties, options or arguments of one operation
    name_bytes_max: int = 255
    window_max: int = 65_535  #: messages that one consumer may hold
    queues_max: int = 10_000
    exchanges_max: int = 10_000
    bindings_max: int = 100_000
    sessions_max: int = 10_000
    consumers_per_session_max: int = 1000
    volatile_messages_max: int = 10_000  #: ready in one memory-only queue; more are dropped

    # --- limits of the node ---------------------------------------------------------------

    unconfirmed_bytes_max: int = 256 << 20  #: per shard, waiting to be proposed; then refused
    session_bytes_max: int = 128 << 20  #: the same of one session
    unread_bytes_max: int = 256 << 20  #: to a client that says nothing; then its link is dropped
    proposed_bytes_max: int = 2 << 20  #: per shard, waiting for a majority; the rest waits its turn
    entry_bytes_max: int = 1 << 20  #: commands batched into one entry; one always fits
    entry_commands_max: int = 10_000
    replay_commands_max: int = 200_000  #: over all shards, about; then checkpoints are made
    log_bytes_max: int = 64 << 20  #: per shard, behind its checkpoint; then one is made
    sweep_entries_max: int = 512  #: entries or bodies looked at in one tick, of one shard
    store_bytes_max: int = 64 << 30  #: of the data file; the node stops when it is full
    scrub_bytes_per_s: int = 4 << 20  #: read of old records, to find damage early; 0: none
    scrub_pass_ms: int = 3_600_000  #: from one reading of all of them to the next, at least
    mapped_bytes_max: int = 96 << 20  #: pages of files counted as the node's; then let go
    cache_bytes_max: int = 64 << 20  #: recent entries of all shards kept in memory
    snapshot_bytes_per_s: int = 64 << 20  #: received of all snapshots together; then they wait
    snapshot_part_bytes: int = 512 << 10  #: of bodies sent at a time; one always fits

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_cluster()
        self._check_fit()

    def _check_numbers(self) -> None:
        """Each number by itself."""
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type != "int":
                continue
            least = 0 if field.name in MAY_BE_ZERO else 1
            if value < least:
                raise ConfigError(f"{option(field.name)} {value} must be at least {least}")
            if field.name in PORTS and value > PORT_MAX:
                raise ConfigError(f"{option(field.name)} {value} is not between 1 and {PORT_MAX}")
        if not 2 <= self.shards < 0xFFFF:
            raise ConfigError(f"--shards {self.shards} is not between 2 and 65534")

    def _check_cluster(self) -> None:
        """The cluster's list, and this node's place in it."""
        if not self.cluster_name:
            raise ConfigError("--cluster-name is empty: give every node of the cluster one name")
        if not self.data_dir:
            raise ConfigError("--data-dir is empty: name a directory that this node may keep")
        if self.join:
            self._check_join()
            return
        ids = [peer.id for peer in self.cluster_nodes]
        for id in ids:
            if not NODE_NAME.fullmatch(id):
                raise ConfigError(
                    f"--cluster-nodes: {id!r} is no name for a node: use 1 to 64 letters, digits, "
                    f"dots, dashes and underscores"
                )
        for peer in self.cluster_nodes:
            if peer.host in WILDCARDS or not HOST_NAME.fullmatch(peer.host):
                # Its own address too: a node tells it to the others, who connect to it.
                raise ConfigError(
                    f"--cluster-nodes: {peer.host!r} of {peer.id} is no host that other nodes "
                    f"can connect to: give its name or address; where to listen is --peer-host"
                )
        if self.node_id not in ids:
            raise ConfigError(
                f"--node-id {self.node_id!r} is not one of --cluster-nodes ({', '.join(ids)}): "
                f"use one of these names, or add this node to the list on every node"
            )
        if len(set(ids)) != len(ids):
            raise ConfigError(f"--cluster-nodes names a node twice: {', '.join(ids)}")
        addresses = {(peer.host, peer.peer_port) for peer in self.cluster_nodes}
        if len(addresses) != len(ids):
            raise ConfigError("--cluster-nodes gives two nodes the same address: correct one")
        if len({raft_id(id) for id in ids}) != len(ids):
            raise ConfigError(f"--cluster-nodes: rename one of {', '.join(ids)}; their ids collide")
        own = self.peer(self.node_id)
        if own.peer_port != self.peer_port:
            raise ConfigError(
                f"--peer-port {self.peer_port} is not the port {own.peer_port} that "
                f"--cluster-nodes gives for {self.node_id}: make them equal"
            )
        self._check_own_ports()

    def _check_join(self) -> None:
        """A new node's name; whom it belongs to it will be told."""
        parse_addresses(self.join)
        if not NODE_NAME.fullmatch(self.node_id):
            raise ConfigError(
                f"--node-id {self.node_id!r} is no name for a node: use 1 to 64 letters, digits, "
                f"dots, dashes and underscores"
            )
        self._check_own_ports()

    def _check_own_ports(self) -> None:
        """Nothing of this node listens where something else of it does."""
        taken = {"port": self.host, "peer_port": self.peer_host, "http_port": self.http_host}
        for one, other in combinations(PORTS, 2):
            shared = {taken[one], taken[other]}
            if getattr(self, one) == getattr(self, other) and (
                len(shared) == 1 or not shared.isdisjoint(WILDCARDS)
            ):
                raise ConfigError(
                    f"{option(one)} and {option(other)} are both {getattr(self, one)}: "
                    f"give each a port of its own"
                )

    def _check_fit(self) -> None:
        """Settings that only make sense together: the first must be below the second."""
        # The frame of a message of the greatest size carries its headers and some names too.
        message_bytes = self.body_bytes_max + self.header_bytes_max + FRAME_OVERHEAD_BYTES
        for low, high, least, why in (
            (
                "heartbeat_ticks",
                "election_ticks",
                self.heartbeat_ticks + 1,
                "a leader must be heard",
            ),
            ("grace_ms", "grace_ms_max", self.grace_ms, "it is its limit"),
            (
                "snapshot_part_bytes",
                "snapshot_bytes_per_s",
                self.snapshot_part_bytes // 4,
                "a leader that is not asked for more within 5 seconds gives up",
            ),
            ("body_bytes_max", "frame_bytes_max", message_bytes, "a message must fit a frame"),
            ("body_bytes_max", "unconfirmed_bytes_max", message_bytes, "a message must be taken"),
        ):
            if getattr(self, high) < least:
                raise ConfigError(
                    f"{option(high)} {getattr(self, high)} is too small for {option(low)} "
                    f"{getattr(self, low)}: make it {least} or more; {why}"
                )

    def peer(self, node: str) -> Peer:
        """The cluster's entry for a node."""
        return next(peer for peer in self.cluster_nodes if peer.id == node)

    @property
    def client_address(self) -> str:
        """host:port where this node's clients are to connect."""
        host = self.advertise_host or self.host
        if host in WILDCARDS:
            host = self.peer(self.node_id).host
        return f"{host}:{self.port}"

    @property
    def cluster_id(self) -> bytes:
        """Eight bytes that differ between clusters of other names or founding nodes."""
        names = ",".join(sorted(peer.id for peer in self.cluster_nodes))
        return blake2b(f"{self.cluster_name}/{names}".encode(), digest_size=8).digest()


def option(field: str) -> str:
    """How a field of `Config` is called on the command line."""
    return "--" + field.replace("_", "-")


def raft_id(node: str) -> int:
    """A node's id in Raft: 48 bits of its name's hash, for ever. A replaced node has a new name."""
    return int.from_bytes(blake2b(node.encode(), digest_size=6).digest(), "big") or 1


def parse_cluster_nodes(text: str) -> tuple[Peer, ...]:
    """`n1:host:port,n2:host:port,...` as peers; `ConfigError` says which part is wrong."""
    peers = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        id, _, address = part.partition(":")
        host, _, port = address.rpartition(":")
        if not id or not host or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
            raise ConfigError(
                f"--cluster-nodes: {part!r} is not of the form name:host:peer-port, "
                f"as in n1:10.0.0.1:7651"
            )
        peers.append(Peer(id, host.strip("[]"), int(port)))
    if not peers:
        raise ConfigError("--cluster-nodes is empty: name each node as name:host:peer-port")
    return tuple(peers)


def parse_addresses(text: str) -> tuple[Peer, ...]:
    """`host:port,host:port,...` as nameless peers; `ConfigError` says which part is wrong."""
    peers = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        host, port = split_address(part)
        if not host:
            raise ConfigError(
                f"--join: {part!r} is not of the form host:peer-port, as in 10.0.0.1:7651"
            )
        peers.append(Peer("", host, port))
    if not peers:
        raise ConfigError("--join is empty: name a node of the cluster as host:peer-port")
    return tuple(peers)


def split_address(text: str) -> tuple[str, int]:
    """(host, port) of `host:port`; ("", 0) when it is no such thing."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not HOST_NAME.fullmatch(host) or not port.isdecimal() or not 0 < int(port) <= PORT_MAX:
        return "", 0
    return host, int(port)
