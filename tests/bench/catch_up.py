"""How a node that was away for a deep backlog catches up, and what that costs those at work.

`python -m tests.bench.catch_up [--messages 300000]`: three nodes on this machine with default
settings; one is killed, the backlog is published (1 KiB each, one queue), the node is started
again. A client publishes to the same queue, one message at a time, before and meanwhile.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from broker.client import Client
from broker.ring import preferred_leader, replicas_of
from tests.bench.meter import process_cpu_s
from tests.cluster import Cluster, ClusterNode, eventually

QUEUE = "backlog"
BODY_BYTES = 1024
THINK_S = 0.005
BEFORE_S = 5.0
LIMIT_S = 900.0


@dataclass
class Prober:
    """One client that publishes and waits for each confirm."""

    url: str
    seconds: list[float] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        with Client(self.url) as client:
            while not self.stop.wait(THINK_S):
                start = time.perf_counter()
                client.publish(bytes(BODY_BYTES), routing_key=QUEUE)
                self.seconds.append(time.perf_counter() - start)

    def take(self) -> str:
        """What was measured since the last time, in words."""
        seconds, self.seconds = self.seconds, []
        cuts = statistics.quantiles(seconds, n=100, method="inclusive")
        return (
            f"{len(seconds)} confirms, p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms, "
            f"slowest {max(seconds) * 1e3:.0f} ms"
        )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=300_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Cluster(Path(directory), shards=8) as cluster:
        cluster.wait_ready()
        _measure(cluster, options.messages)


def _measure(cluster: Cluster, messages: int) -> None:
    _fill(cluster, 1)
    number = cluster.queue(QUEUE).shard
    home = preferred_leader(replicas_of(number, [node.id for node in cluster.nodes], 3))
    absent = next(node for node in cluster.nodes if node.id != home)
    cluster.kill(absent)
    start = time.monotonic()
    _fill(cluster, messages)
    print(f"{messages} messages of 1 KiB in {time.monotonic() - start:.1f} s", flush=True)
    prober = Prober(cluster.url)
    thread = threading.Thread(target=prober.run)
    thread.start()
    try:
        time.sleep(BEFORE_S)
        print(f"before:    {prober.take()}", flush=True)
        _catch_up(cluster, absent, number, prober)
        time.sleep(BEFORE_S)
        print(f"after:     {prober.take()}", flush=True)
    finally:
        prober.stop.set()
        thread.join(30)


def _catch_up(cluster: Cluster, absent: ClusterNode, number: int, prober: Prober) -> None:
    others = [node for node in cluster.nodes if node is not absent]
    elections = sum(node.metric("raftmq_elections_total") for node in others)
    used = [process_cpu_s(node.process.pid) for node in others if node.process]
    start = time.monotonic()
    cluster.restart(absent)
    eventually(
        lambda: absent.metric("raftmq_snapshots_received_total") >= 1, LIMIT_S, "the snapshot"
    )
    arrived = time.monotonic() - start
    size = absent.metric("raftmq_snapshot_bytes_received_total")
    leader = cluster.leader_of(number)

    def level() -> bool:
        views = [_applied(cluster, node, number) for node in (leader, absent)]
        return views[1] >= views[0] - 20

    eventually(level, LIMIT_S, "the node to be level")
    seconds = time.monotonic() - start
    cpu = [process_cpu_s(node.process.pid) for node in others if node.process]
    print(f"meanwhile: {prober.take()}")
    print(
        f"{size / (1 << 20):.0f} MiB of snapshots in {arrived:.1f} s, level after {seconds:.1f} s; "
        f"{sum(node.metric('raftmq_elections_total') for node in others) - elections:.0f} "
        f"elections; CPU of the others {', '.join(_share(cpu, used, seconds))}",
        flush=True,
    )
    for node in cluster.nodes:
        assert node.process is not None
        print(f"  {node.id}: {_own_mb(node.process.pid):.0f} MiB of memory of its own")


def _own_mb(pid: int) -> float:
    """Without the pages of the data file, which the kernel takes back when it likes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024


def _share(after: list[float], before: list[float], seconds: float) -> list[str]:
    return [f"{(b - a) / seconds:.0%}" for a, b in zip(before, after, strict=True)]


def _applied(cluster: Cluster, node: ClusterNode, number: int) -> int:
    return next(view.applied for view in cluster.status(node).shards if view.shard == number)


def _fill(cluster: Cluster, count: int) -> None:
    body = bytes(BODY_BYTES)
    with Client(cluster.url) as client:
        client.declare_queue(QUEUE)
        for _ in range(count):
            client.publish_nowait(body, routing_key=QUEUE)
        client.flush()


if __name__ == "__main__":
    main()
