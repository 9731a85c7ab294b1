"""A cluster of real node processes on free ports, for tests that need the real thing.

    with Cluster(tmp_path, nodes=3) as cluster:
        cluster.wait_ready()
        ... Client(cluster.url) ...
        cluster.kill(cluster.leader_of_queue("celery"))

Every wait is bounded and polls what the nodes say of themselves over HTTP. On `stop` the end
of each node's log is printed, which pytest shows for a test that failed. Nodes are ended by
their process ids, and by the kernel should this process die first.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import itertools
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from broker.status import NodeStatus, QueueStatus, decode_status

ROOT = Path(__file__).resolve().parent.parent
LOG_LINES_SHOWN = 60
POLL_S = 0.05
_PR_SET_PDEATHSIG = 1
_T = TypeVar("_T")


class ClusterError(AssertionError):
    """The cluster did not do what a test waited for."""


def eventually(condition: Callable[[], _T], timeout_s: float, what: str) -> _T:
    """The first truthy value of `condition`, polled; `ClusterError` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {timeout_s:g} s: {what} (last seen: {value!r})")
        time.sleep(POLL_S)


# Below the range from which the kernel takes ports for outgoing connections: a client that
# reconnects to a dead node could otherwise be given that very port, and connect to itself.
_PORTS = range(15000, 30000)
_next_port = itertools.count(random.randrange(len(_PORTS)))


def free_port() -> int:
    """A port nobody listens on, and which this process was not given before.

    One after the other from a random start: ports drawn at random met in one cluster now and
    then, since nobody listens yet on a port that was just given out.
    """
    for step in itertools.islice(_next_port, len(_PORTS)):
        port = _PORTS[step % len(_PORTS)]
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ClusterError(f"no free port between {_PORTS.start} and {_PORTS.stop}")


def die_with_parent() -> None:
    """In a new child: have the kernel end it when the test process goes, however it goes."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def python_environment(**more: str) -> dict[str, str]:
    """This process's environment without its RAFTMQ_ settings, and with this checkout."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("RAFTMQ_")}
    environment["PYTHONPATH"] = str(ROOT)
    environment["PYTHONUNBUFFERED"] = "1"
    environment.update(more)
    return environment


class ClusterNode:
    """One node: its addresses, its folder and, while it runs, its process."""

    def __init__(self, id: str, directory: Path) -> None:
        self.id = id
        self.directory = directory
        self.data_dir = directory / "data"
        self.log_path = directory / "node.log"
        self.port, self.peer_port, self.http_port = free_port(), free_port(), free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self.paused = False

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def log(self) -> str:
        """All it has printed, over all its starts."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def http(self, path: str, timeout_s: float = 2.0) -> tuple[int, bytes]:
        """(HTTP status, body); status 0 when nobody answers."""
        try:
            with urllib.request.urlopen(self.http_url + path, timeout=timeout_s) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()
        except OSError as error:
            return 0, str(error).encode()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series of /metrics; 0 when there is none."""
        wanted = {f'{key}="{value}"' for key, value in labels.items()}
        for line in self.http("/metrics")[1].decode().splitlines():
            series, _, value = line.rpartition(" ")
            bare, _, inside = series.partition("{")
            if bare == name and wanted <= set(inside.rstrip("}").split(",")):
                return float(value)
        return 0.0


class Cluster:
    """Node processes n1, n2, ... with their data below `directory`."""

    def __init__(
        self,
        directory: Path,
        nodes: int = 3,
        *,
        shards: int = 4,
        settings: dict[str, str] | None = None,
    ) -> None:
        """settings: more RAFTMQ_ environment variables for every node."""
        self.directory = directory
        self.shards = shards
        self.settings = dict(settings or {})
        self.nodes = [ClusterNode(f"n{i + 1}", directory / f"n{i + 1}") for i in range(nodes)]
        self.founders = list(self.nodes)
        atexit.register(self._end_all)

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # --- where it is ----------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The broker URL with all nodes."""
        return f"raftmq://{','.join(node.address for node in self.nodes)}//"

    def url_of(self, node: ClusterNode | str) -> str:
        """The broker URL that names one node only."""
        return f"raftmq://{self.node(node).address}//"

    @property
    def http_urls(self) -> list[str]:
        return [node.http_url for node in self.nodes]

    def node(self, node: ClusterNode | str) -> ClusterNode:
        """The node with this id."""
        if isinstance(node, ClusterNode):
            return node
        return next(known for known in self.nodes if known.id == node)

    @property
    def running(self) -> list[ClusterNode]:
        """The nodes whose process lives, be it stopped by a signal or not."""
        return [node for node in self.nodes if node.running]

    @property
    def answering(self) -> list[ClusterNode]:
        """The running nodes that are not paused."""
        return [node for node in self.running if not node.paused]

    # --- what happens to it ---------------------------------------------------------------

    def start(self) -> None:
        """Start all nodes that do not run; does not wait."""
        for node in self.nodes:
            if not node.running:
                self._spawn(node)

    def join(self, id: str) -> ClusterNode:
        """A new node, not started yet: it will ask the founders whether it may join."""
        node = ClusterNode(id, self.directory / id)
        self.nodes.append(node)
        return node

    def stop(self, timeout_s: float = 10.0) -> None:
        """End all nodes cleanly, those that will not by force, and print what they logged."""
        for node in self.running:
            assert node.process is not None
            node.process.send_signal(signal.SIGCONT)
            node.process.terminate()
        deadline = time.monotonic() + timeout_s
        late = [node.id for node in self.nodes if not _ended(node, deadline)]
        self._end_all()
        for node in self.nodes:
            print(f"--- {node.id} (end of {node.log_path}) ---")
            print("\n".join(node.log().splitlines()[-LOG_LINES_SHOWN:]))
        if late:
            raise ClusterError(f"did not stop within {timeout_s:g} s of SIGTERM: {late}")

    def terminate(self, node: ClusterNode | str, timeout_s: float = 10.0) -> int:
        """End one node cleanly; its exit code."""
        node = self.node(node)
        assert node.process is not None
        node.process.terminate()
        return node.process.wait(timeout_s)

    def kill(self, node: ClusterNode | str) -> None:
        """kill -9."""
        node = self.node(node)
        assert node.process is not None
        node.process.kill()
        node.process.wait(10)

    def pause(self, node: ClusterNode | str) -> None:
        """SIGSTOP: the process is there, and silent."""
        node = self.node(node)
        assert node.process is not None
        node.process.send_signal(signal.SIGSTOP)
        node.paused = True

    def resume(self, node: ClusterNode | str) -> None:
        """SIGCONT."""
        node = self.node(node)
        assert node.process is not None
        node.process.send_signal(signal.SIGCONT)
        node.paused = False

    def restart(self, node: ClusterNode | str) -> None:
        """Start a node again on its data, after `kill` or `terminate`; does not wait."""
        node = self.node(node)
        assert not node.running, f"{node.id} still runs"
        self._spawn(node)

    # --- what it says ---------------------------------------------------------------------

    def wait_ready(self, timeout_s: float = 20.0, nodes: list[ClusterNode] | None = None) -> None:
        """Until all running nodes (or those named) answer /ready with 200."""
        waited = self.answering if nodes is None else nodes
        assert waited, "no node runs"

        def all_ready() -> bool:
            for node in waited:
                if not node.running:
                    code = node.process.returncode if node.process else None
                    raise ClusterError(f"{node.id} ended with code {code}:\n{node.log()[-3000:]}")
            return all(node.http("/ready")[0] == 200 for node in waited)

        try:
            eventually(all_ready, timeout_s, "all ready")
        except ClusterError as error:
            said = {node.id: node.http("/ready") for node in waited}
            raise ClusterError(f"{error}; they say: {said}") from error

    def status(self, node: ClusterNode | str) -> NodeStatus:
        """What a node knows of the cluster; `ClusterError` when it does not answer."""
        node = self.node(node)
        code, body = node.http("/status")
        if code != 200:
            raise ClusterError(f"{node.id}: /status gave {code} {body[:200]!r}")
        return decode_status(body)

    def leader_of(self, shard: int, timeout_s: float = 15.0) -> ClusterNode:
        """The running node that leads the shard in the highest term seen; waits for one."""

        def find() -> ClusterNode | None:
            best: tuple[int, ClusterNode] | None = None
            for node in self.answering:
                with contextlib.suppress(ClusterError):
                    for view in self.status(node).shards:
                        if view.shard == shard and view.role == "leader":
                            best = max(best or (0, node), (view.term, node), key=lambda x: x[0])
            return best[1] if best else None

        found = eventually(find, timeout_s, f"a leader of shard {shard}")
        assert found is not None
        return found

    def queue(self, name: str, vhost: str = "/", timeout_s: float = 10.0) -> QueueStatus:
        """A queue as the leader of its shard sees it; waits until the queue exists."""

        def find() -> QueueStatus | None:
            for node in self.answering:
                with contextlib.suppress(ClusterError):
                    for queue in self.status(node).queues:
                        if (queue.name, queue.vhost) == (name, vhost):
                            return queue
            return None

        seen = eventually(find, timeout_s, f"a queue {name!r}")
        assert seen is not None
        with contextlib.suppress(ClusterError):
            leader = self.leader_of(seen.shard, timeout_s)
            for queue in self.status(leader).queues:
                if (queue.name, queue.vhost) == (name, vhost):
                    return queue
        return seen

    def leader_of_queue(self, name: str, vhost: str = "/") -> ClusterNode:
        """The node that leads the shard of this queue."""
        return self.leader_of(self.queue(name, vhost).shard)

    def wait_level(self, timeout_s: float = 20.0) -> None:
        """Until all running nodes have applied the same entries of every shard."""

        def level() -> bool:
            views = []
            for node in self.answering:
                try:
                    shards = self.status(node).shards
                except ClusterError:
                    return False
                views.append({view.shard: view.applied for view in shards})
            return all(view == views[0] for view in views)

        eventually(level, timeout_s, "all nodes at the same applied index")

    # --- processes ------------------------------------------------------------------------

    def arguments(self, node: ClusterNode) -> list[str]:
        """The command line of a node."""
        peers = [(other.id, f"127.0.0.1:{other.peer_port}") for other in self.founders]
        founds = node in self.founders
        options = {
            "--node-id": node.id,
            "--host": "127.0.0.1",
            "--port": node.port,
            "--peer-host": "127.0.0.1",
            "--peer-port": node.peer_port,
            "--http-host": "127.0.0.1",
            "--http-port": node.http_port,
            "--data-dir": node.data_dir,
        }
        if founds:
            options["--cluster-nodes"] = ",".join(f"{id}:{address}" for id, address in peers)
            options["--cluster-name"] = "test"
            options["--shards"] = self.shards
        elif not node.data_dir.exists():
            options["--join"] = ",".join(address for _, address in peers)
        words = [str(word) for option in options.items() for word in option]
        return [sys.executable, "-m", "broker.cli", "node", *words]

    def _spawn(self, node: ClusterNode) -> None:
        node.directory.mkdir(parents=True, exist_ok=True)
        node.paused = False
        with node.log_path.open("ab") as log:
            node.process = subprocess.Popen(
                self.arguments(node),
                cwd=node.directory,
                env=python_environment(**self.settings),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )

    def _end_all(self) -> None:
        for node in self.running:
            assert node.process is not None
            node.process.kill()
            node.process.wait(10)


def _ended(node: ClusterNode, deadline: float) -> bool:
    if node.process is None:
        return True
    try:
        node.process.wait(max(0.01, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return False
    return True
