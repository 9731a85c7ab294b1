"""One connection to one node: a DEALER socket and the monitor that tells what becomes of it.

    connecting --handshake--> up --disconnected--> down      (never back: the next is a new one)
         \\--refused, failed------------------------^

libzmq's own reconnecting is off: a link that comes back by itself would hide that the node
lost our session's frames. A link belongs to the thread that made it.
"""

from __future__ import annotations

import os
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

HEARTBEAT_MS = 1_000
SILENCE_MS = 3_000
GOODBYE_LINGER_MS = 1_000

_UP = int(zmq.EVENT_HANDSHAKE_SUCCEEDED)
_DOWN = int(
    zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_POLLIN = int(zmq.POLLIN)


class Link:
    """Connects at once. `OSError` for an address that cannot be one."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], node: str, wake_fd: int) -> None:
        self.node = node
        self.up = False
        self.down = False
        socket: Any = context.socket(zmq.DEALER)
        self._socket = socket
        try:
            # A random identity: the node never confuses two links. It may not begin with 0.
            socket.set(zmq.ROUTING_ID, b"c" + os.urandom(15))
            for option, value in (
                (zmq.LINGER, 0),
                (zmq.IMMEDIATE, 1),
                (zmq.SNDHWM, 0),
                (zmq.RCVHWM, 0),
                (zmq.RECONNECT_IVL, -1),
                (zmq.HEARTBEAT_IVL, HEARTBEAT_MS),
                (zmq.HEARTBEAT_TIMEOUT, SILENCE_MS),
                (zmq.TCP_KEEPALIVE, 1),
                (zmq.TCP_KEEPALIVE_IDLE, 10),
                (zmq.TCP_KEEPALIVE_INTVL, 5),
                (zmq.TCP_KEEPALIVE_CNT, 3),
                (zmq.IPV6, int("[" in node)),
            ):
                socket.set(option, value)
            self._monitor: Any = socket.get_monitor_socket(_UP | _DOWN)
            self._monitor.linger = 0
            socket.connect(f"tcp://{node}")
        except zmq.ZMQError as error:
            self.close()
            raise OSError(error.errno, f"{node}: {error}") from error
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)
        self._poller.register(self._monitor, zmq.POLLIN)
        self._poller.register(wake_fd, zmq.POLLIN)

    def wait(self, timeout_ms: int) -> None:
        """Until something came, from the node or from a caller, or the time is over."""
        self._poller.poll(timeout_ms)

    def look(self) -> None:
        """Learn whether the link is up or down."""
        while self._monitor.get(zmq.EVENTS) & _POLLIN:
            event = parse_monitor_message(self._monitor.recv_multipart(zmq.NOBLOCK))["event"]
            if event == _UP:
                self.up = True
            else:
                self.down = True

    def send(self, frame: bytes) -> bool:
        """False when the link is down."""
        try:
            self._socket.send(frame, zmq.NOBLOCK)
        except zmq.Again:
            self.down = True
            return False
        return True

    def receive(self) -> bytes | None:
        """The next frame, if there is one."""
        if not self._socket.get(zmq.EVENTS) & _POLLIN:
            return None
        parts: list[bytes] = self._socket.recv_multipart(zmq.NOBLOCK)
        return parts[-1]

    def close(self, *, linger_ms: int = 0) -> None:
        """What was sent and did not leave within `linger_ms` is dropped. Does not wait."""
        if self._socket.closed:
            return
        if getattr(self, "_monitor", None) is not None:
            self._socket.disable_monitor()
            self._monitor.close(0)
        self._socket.close(linger_ms)
