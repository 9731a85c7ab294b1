"""`raftmq dev`: a whole cluster in one terminal, real node processes included.

    starting --all ready--> serving --SIGINT, SIGTERM--> stopped, code 0
        |                      '-----every node ended--> code 1
        '--a node ends, or too slow--> code of the node, or 1

stdout gets one line, `ready raftmq://...`; all logs go to stderr. A node that dies while the
cluster serves is not restarted: what a cluster does without it is what one wants to see.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

from broker.cli.local_cluster import LocalCluster, LocalNode

START_S = 30.0
POLL_S = 0.1


@click.command("dev")
@click.option("--nodes", type=click.IntRange(1, 9), default=3, show_default=True)
@click.option(
    "--port",
    type=click.IntRange(1, 65000),
    default=7650,
    show_default=True,
    help="Client port of the first node; peers meet 100 above, HTTP is 200 above.",
)
@click.option("--http-port", type=click.IntRange(1, 65000), help="HTTP port of the first node.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep data here; without it they are gone at the end.",
)
def dev(nodes: int, port: int, http_port: int | None, data_dir: Path | None) -> None:
    """Run a cluster on this machine for development."""
    with _folder(data_dir) as folder:
        cluster = LocalCluster(folder, nodes, port=port, http_port=http_port, on_line=_print)
        stop = _stop_on_signal()
        try:
            code = _serve(cluster, stop)
        finally:
            cluster.stop()
    sys.exit(code)


def _serve(cluster: LocalCluster, stop: threading.Event) -> int:
    cluster.start()
    deadline = time.monotonic() + START_S
    while not cluster.ready:
        dead = next((node for node in cluster.nodes if not node.running), None)
        if dead is not None:
            return _died_at_start(dead)
        if time.monotonic() > deadline:
            click.echo(f"raftmq: the cluster is not ready after {START_S:g} s", err=True)
            return 1
        if stop.wait(POLL_S):
            return 0
    click.echo(f"ready {cluster.url}")
    return _watch(cluster, stop)


def _watch(cluster: LocalCluster, stop: threading.Event) -> int:
    running = cluster.running
    while not stop.wait(POLL_S):
        for node in [node for node in running if not node.running]:
            running.remove(node)
            assert node.process is not None
            _print(node.id, f"ended with code {node.process.returncode}; it is not restarted")
        if not running:
            click.echo("raftmq: every node has ended", err=True)
            return 1
    return 0


def _died_at_start(node: LocalNode) -> int:
    assert node.process is not None
    code = node.process.returncode
    click.echo(f"raftmq: node {node.id} ended at start with code {code}", err=True)
    return code if code > 0 else 1


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, on_signal)
    signal.signal(signal.SIGTERM, on_signal)
    return stop


@contextlib.contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield data_dir.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="raftmq-dev-") as folder:
        yield Path(folder)


def _print(node: str, line: str) -> None:
    click.echo(f"{node} | {line}", err=True)
