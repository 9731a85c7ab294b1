"""A cluster of node processes on this machine, as `raftmq dev` and the demo run it.

    stopped --start--> running --stop (SIGTERM), kill (SIGKILL), or by itself--> ended
                          ^--------------------start_node------------------------'

Every line a node prints is handed on with the node's name. The kernel ends the nodes when
this process dies, however that happens (Linux; elsewhere only `stop` does).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from broker.cli.http_view import is_ready, status_of
from broker.status import NodeStatus

HOST = "127.0.0.1"
PEER_PORT_OFFSET = 100
HTTP_PORT_OFFSET = 200
STOP_S = 10.0
_PR_SET_PDEATHSIG = 1
# Loaded here: between fork and exec nothing may take a lock another thread might hold.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None

OnLine = Callable[[str, str], None]
"""Called with (node, line) in a thread of its own for each node."""


@dataclass(slots=True)
class LocalNode:
    """One node's addresses and, once started, its process."""

    id: str
    port: int
    peer_port: int
    http_port: int
    data_dir: Path
    process: subprocess.Popen[str] | None = None

    @property
    def http_url(self) -> str:
        return f"http://{HOST}:{self.http_port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


class LocalCluster:
    """Nodes n1, n2, ... with consecutive ports and their data below one folder."""

    def __init__(
        self,
        directory: Path,
        nodes: int,
        *,
        port: int,
        http_port: int | None = None,
        cluster_name: str = "dev",
        on_line: OnLine,
    ) -> None:
        """port, http_port: those of the first node; the next node has the next ones."""
        http = port + HTTP_PORT_OFFSET if http_port is None else http_port
        self.cluster_name = cluster_name
        self.nodes = [
            LocalNode(
                id=f"n{i + 1}",
                port=port + i,
                peer_port=port + PEER_PORT_OFFSET + i,
                http_port=http + i,
                data_dir=directory / f"n{i + 1}",
            )
            for i in range(nodes)
        ]
        self._on_line = on_line
        self._readers: list[threading.Thread] = []

    @property
    def url(self) -> str:
        """The broker URL that names every node."""
        return f"raftmq://{','.join(f'{HOST}:{node.port}' for node in self.nodes)}//"

    @property
    def running(self) -> list[LocalNode]:
        return [node for node in self.nodes if node.running]

    @property
    def ready(self) -> bool:
        """Whether every node serves clients."""
        return all(is_ready(node.http_url) for node in self.nodes)

    def start(self) -> None:
        for node in self.nodes:
            self.start_node(node)

    def start_node(self, node: LocalNode) -> None:
        """Start a node that does not run, on the data it has; does not wait for it."""
        assert not node.running
        node.process = subprocess.Popen(
            self._command(node),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            # A group of its own: Ctrl-C in the terminal is for us, who then end the nodes.
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        reader = threading.Thread(target=self._read, args=(node, node.process), daemon=True)
        reader.start()
        self._readers.append(reader)

    def kill(self, node: LocalNode) -> None:
        """kill -9."""
        assert node.process is not None
        node.process.kill()
        node.process.wait()

    def stop(self, timeout_s: float = STOP_S) -> None:
        """End all nodes cleanly, and by force those that still run after `timeout_s`."""
        for node in self.running:
            assert node.process is not None
            node.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + timeout_s
        for node in self.nodes:
            if node.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.process.wait(max(0.0, deadline - time.monotonic()))
        for node in self.running:
            self.kill(node)
        for reader in self._readers:
            reader.join(1.0)

    def leader_of(self, shard: int) -> LocalNode | None:
        """The node that leads the shard now, by the newest term that any node tells of."""
        best: tuple[int, LocalNode] | None = None
        for node, status in self._statuses():
            for view in status.shards:
                if view.shard == shard and view.role == "leader":
                    best = (view.term, node) if best is None or view.term > best[0] else best
        return best[1] if best else None

    def applied(self) -> dict[str, dict[int, int]]:
        """Per node that answers: the applied index of each shard."""
        return {
            node.id: {view.shard: view.applied for view in status.shards}
            for node, status in self._statuses()
        }

    def _statuses(self) -> list[tuple[LocalNode, NodeStatus]]:
        asked = ((node, status_of(node.http_url)) for node in self.running)
        return [(node, status) for node, status in asked if status is not None]

    def _command(self, node: LocalNode) -> list[str]:
        peers = ",".join(f"{other.id}:{HOST}:{other.peer_port}" for other in self.nodes)
        options = {
            "--node-id": node.id,
            "--host": HOST,
            "--port": node.port,
            "--peer-host": HOST,
            "--peer-port": node.peer_port,
            "--http-host": HOST,
            "--http-port": node.http_port,
            "--cluster-nodes": peers,
            "--cluster-name": self.cluster_name,
            "--data-dir": node.data_dir,
        }
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "-m", "broker.cli", "node", *words]

    def _read(self, node: LocalNode, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                self._on_line(node.id, line.rstrip())


def free_ports(count: int) -> int:
    """The first of `count` ports in a row such that the whole of a `LocalCluster` fits.

    Below the range from which the kernel takes ports for outgoing connections: a client that
    reconnects to a dead node could otherwise be given that very port, and talk to itself.
    """
    for base in range(17650 + os.getpid() % 8000, 32000, 10):
        offsets = (0, PEER_PORT_OFFSET, HTTP_PORT_OFFSET)
        if all(port_is_free(HOST, base + o + i) for o in offsets for i in range(count)):
            return base
    raise OSError("no free ports below 32000")


def port_is_free(host: str, port: int) -> bool:
    """Whether one could listen there now. OSError: `host` is no address of this machine."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def die_with_parent() -> None:
    """In a new child: have the kernel end it when the thread that started it goes."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
