"""How the repair of a stopped node's directory talks to the other nodes.

It listens on the node's own peer port and speaks in its name, for that is where the others send
their answers. It asks for copies and does nothing else: what they say of Raft is passed over, so
it promises nothing, votes for nobody, and counts for no majority.
"""

from __future__ import annotations

import time
from types import TracebackType

import zmq

from broker.config import Config
from broker.errors import ConfigError
from broker.peer_protocol import (
    EntryPart,
    EntryPull,
    PeerProtocolError,
    decode_peer_frame,
    encode_peer_frame,
)
from broker.peers import Head

ASK_AGAIN_S = 1.0
"""An answer is lost when the other node has not connected yet."""
PATIENCE_S = 8.0
"""Then a node that has not answered counts as away."""


class RepairLink:
    """Sockets to all other nodes, for as long as a `with` lasts."""

    def __init__(self, config: Config, *, cluster: bytes, disk: bytes) -> None:
        """`cluster` and `disk` as the directory has them. Raise `ConfigError`."""
        own = config.peer(config.node_id)
        # Without an address for clients: none of them is to be sent here.
        self._head = Head(
            cluster, config.node_id, time.time_ns(), "", disk, f"{own.host}:{own.peer_port}"
        )
        self._number = 0
        self._frames = 0
        self._context = zmq.Context(1)
        self._router = self._context.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.setsockopt(zmq.IPV6, 1)
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        try:
            self._router.bind(f"tcp://{config.peer_host}:{config.peer_port}")
        except zmq.ZMQError as error:
            self._context.destroy(linger=0)
            raise ConfigError(
                f"cannot listen on {config.peer_host}:{config.peer_port} "
                f"({error.strerror or error}): stop the node {config.node_id} first"
            ) from error
        for peer in config.cluster_nodes:
            if peer.id != config.node_id:
                dealer = self._context.socket(zmq.DEALER)
                dealer.linger = 0
                dealer.setsockopt(zmq.IPV6, 1)
                dealer.connect(f"tcp://{peer.host}:{peer.peer_port}")
                self._dealers[peer.id] = dealer

    def __enter__(self) -> RepairLink:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=0)

    @property
    def nodes(self) -> list[str]:
        """The names of the other nodes."""
        return list(self._dealers)

    def ask(
        self, node: str, group: int, incarnation: int, *, entries: list[int], bodies: list[int]
    ) -> EntryPart | None:
        """What a node has of these, in part when it is much; None when it does not answer."""
        self._number += 1
        pull = EntryPull(self._number, group, incarnation, entries, bodies)
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            self._frames += 1
            frame = self._head.frame(self._frames, 0, [pull])
            self._dealers[node].send(encode_peer_frame(frame))
            part = self._await(pull.number, node, min(end, time.monotonic() + ASK_AGAIN_S))
            if part is not None:
                return part
        return None

    def _await(self, number: int, node: str, end: float) -> EntryPart | None:
        while (left := end - time.monotonic()) > 0:
            if not self._router.poll(int(left * 1000) + 1):
                return None
            parts = self._router.recv_multipart()
            try:
                frame = decode_peer_frame(parts[-1])
            except PeerProtocolError:
                continue
            if frame.sender != node or frame.cluster != self._head.cluster:
                continue
            for record in frame.records:
                if isinstance(record, EntryPart) and record.number == number:
                    return record
        return None
