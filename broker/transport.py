"""The node's ZeroMQ sockets: one ROUTER for clients, one ROUTER and a DEALER each for peers.

    clients  ROUTER  bind          identity, frame
    peers    ROUTER  bind          identity, frame      received from; who asks to join is answered
             DEALER  connect x n            frame       only sent to
             DEALER  connect, when needed   frame       ... with parts of snapshots alone

ZeroMQ's file descriptors are edge-triggered: a receive that does not end in EAGAIN, and every
send, may have used an edge up. `receive` therefore drains, and after sends to clients
`has_client_input` looks again. Each look costs several system calls, so none is made in vain.
A ROUTER does not say that a peer has gone: heartbeats of libzmq's own thread
close dead links, and a send to a closed one fails (`ROUTER_MANDATORY`).
"""

from __future__ import annotations

from collections.abc import Iterator

import zmq
from zmq.utils.monitor import recv_monitor_message

from broker.config import Config
from broker.errors import ConfigError

HEARTBEAT_MS = 1000
CLIENT_FRAMES_MAX = 1000
"""From one client, waiting to be read; then libzmq stops reading its link, and TCP makes it wait.
Clients bound what they have under way; this is for one that does not."""

PARTS_MAX = 4
"""Parts of snapshots that wait for a link to one peer; more are dropped, and pulled again."""

UNREAD_FRAMES_MAX = 10_000
"""For one client that does not read; then its link counts as lost, and it may come back."""


class Transport:
    """All sockets of a node. Not thread-safe; the loop owns it."""

    def __init__(self, config: Config) -> None:
        """Bind and connect; raise `ConfigError` when an address cannot be had."""
        self._context = zmq.Context(1)
        self._config = config
        self._places: dict[str, tuple[str, int]] = {}
        self._dealers: dict[str, zmq.Socket[bytes]] = {}
        self._part_dealers: dict[str, zmq.Socket[bytes]] = {}
        self._monitors: dict[int, tuple[str, zmq.Socket[bytes]]] = {}
        try:
            self.clients = self._router(
                config, config.host, config.port, "port", frames_max=CLIENT_FRAMES_MAX
            )
            self.peers = self._router(
                config, config.peer_host, config.peer_port, "peer-port", frames_max=0
            )
            # Peers batch; what they may send is bounded by Raft's limits.
            self.peers.maxmsgsize = -1
            for peer in config.cluster_nodes:
                if peer.id != config.node_id:
                    self._connect(config, peer.id, peer.host, peer.peer_port)
        except BaseException:
            self.close()
            raise

    def follow(self, endpoints: dict[str, tuple[str, int]]) -> list[str]:
        """Connect to these nodes and to no others; what is wrong with an address."""
        faults = []
        for node in [node for node in self._dealers if endpoints.get(node) != self._places[node]]:
            self._disconnect(node)
        for node, (host, port) in endpoints.items():
            if node not in self._dealers:
                try:
                    self._connect(self._config, node, host, port)
                except ConfigError as error:
                    faults.append(str(error))
        return faults

    def _disconnect(self, node: str) -> None:
        fd, monitor = next(
            (fd, monitor) for fd, (name, monitor) in self._monitors.items() if name == node
        )
        del self._monitors[fd]
        self._dealers[node].disable_monitor()
        monitor.close(0)
        self._dealers.pop(node).close(0)
        del self._places[node]
        if node in self._part_dealers:
            self._part_dealers.pop(node).close(0)

    def _router(
        self, config: Config, host: str, port: int, option: str, *, frames_max: int
    ) -> zmq.Socket[bytes]:
        """frames_max: from each link, waiting to be received; 0: no limit."""
        socket = self._context.socket(zmq.ROUTER)
        self._set_up(socket, config)
        socket.rcvhwm = frames_max
        socket.sndhwm = UNREAD_FRAMES_MAX
        socket.router_mandatory = 1
        socket.router_handover = 1
        socket.maxmsgsize = config.frame_bytes_max
        try:
            socket.bind(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            socket.close(0)
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror or error}): "
                f"choose another --{option}, or end the process that uses it"
            ) from error
        return socket

    @staticmethod
    def _set_up(socket: zmq.Socket[bytes], config: Config) -> None:
        socket.linger = 0
        socket.rcvhwm = 0  # bounded by windows and by Raft's inflight limits
        socket.sndhwm = 0
        socket.heartbeat_ivl = HEARTBEAT_MS
        socket.heartbeat_timeout = config.link_lost_ms
        socket.heartbeat_ttl = config.link_lost_ms
        socket.setsockopt(zmq.IPV6, 1)

    def _connect(self, config: Config, node: str, host: str, port: int) -> None:
        socket = self._dealer(config)
        socket.immediate = 1  # nothing is queued for a peer that is away
        monitor = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._dealers[node] = socket
        self._places[node] = (host, port)
        self._monitors[_fd(monitor)] = (node, monitor)
        try:
            socket.connect(f"tcp://{host}:{port}")
        except zmq.ZMQError as error:
            raise ConfigError(
                f"{host}:{port}, in --cluster-nodes or the list, is no address for node {node} "
                f"({error.strerror or error}): give a host's name or address and a port"
            ) from error

    def _dealer(self, config: Config) -> zmq.Socket[bytes]:
        socket = self._context.socket(zmq.DEALER)
        self._set_up(socket, config)
        socket.reconnect_ivl = 50
        socket.reconnect_ivl_max = 500
        socket.connect_timeout = 1000
        return socket

    @property
    def clients_fd(self) -> int:
        """Readable when something may have come from clients."""
        return _fd(self.clients)

    @property
    def peers_fd(self) -> int:
        """Readable when something may have come from peers."""
        return _fd(self.peers)

    @property
    def monitor_fds(self) -> list[int]:
        """Readable when a link to a peer may have been reset."""
        return list(self._monitors)

    def has_client_input(self) -> bool:
        """Whether clients sent something; arms the descriptor again after our own sends.

        The peers' ROUTER is hardly ever sent to, and is drained again after that.
        """
        return bool(_events(self.clients) & zmq.POLLIN)

    def receive(self, socket: zmq.Socket[bytes]) -> Iterator[tuple[bytes, bytes]]:
        """(identity, frame) of what waits on a ROUTER; at its end the ROUTER is drained."""
        receive = socket.recv_multipart
        while True:
            try:
                parts = receive(zmq.NOBLOCK)
            except zmq.Again:
                return
            # Anything but two parts was not sent by ours: an empty frame is malformed above.
            yield parts[0], parts[1] if len(parts) == 2 else b""

    def resets(self) -> list[str]:
        """Peers whose link was reset since the last call."""
        nodes = []
        for node, monitor in self._monitors.values():
            while _events(monitor) & zmq.POLLIN:
                recv_monitor_message(monitor, zmq.NOBLOCK)
                nodes.append(node)
        return nodes

    def send_peer(self, node: str, frame: bytes) -> None:
        """Send, or drop when the peer is not connected."""
        socket = self._dealers.get(node)
        if socket is None:
            return  # it is listed since a moment, or not any more
        try:
            socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            pass

    def answer_stranger(self, identity: bytes, frame: bytes) -> None:
        """Send back over the link that a frame came by, or drop it."""
        try:
            self.peers.send_multipart([identity, frame], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise

    def send_part(self, node: str, frame: bytes) -> None:
        """Send a part of a snapshot, or drop it when as many wait already."""
        socket = self._part_dealers.get(node)
        if socket is None:
            if node not in self._places:
                return
            socket = self._part_dealers[node] = self._dealer(self._config)
            socket.sndhwm = PARTS_MAX
            host, port = self._places[node]
            socket.connect(f"tcp://{host}:{port}")
        try:
            socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            pass  # it is pulled again

    def send_client(self, identity: bytes, frame: bytes) -> bool:
        """Send; False when this client cannot be reached any more."""
        try:
            self.clients.send(identity, zmq.SNDMORE | zmq.NOBLOCK)
            self.clients.send(frame, zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno not in (zmq.EHOSTUNREACH, zmq.EAGAIN):
                raise
            return False
        return True

    def close(self) -> None:
        """Close everything at once; nothing lingers."""
        for node, monitor in self._monitors.values():
            self._dealers[node].disable_monitor()
            monitor.close(0)
        self._context.destroy(linger=0)


def _fd(socket: zmq.Socket[bytes]) -> int:
    fd = socket.getsockopt(zmq.FD)
    assert isinstance(fd, int)
    return fd


def _events(socket: zmq.Socket[bytes]) -> int:
    events = socket.getsockopt(zmq.EVENTS)
    assert isinstance(events, int)
    return events
