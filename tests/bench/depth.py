"""`make bench-depth`: a million messages in one queue, on three real nodes.

    empty --publish--> deep --kill -9 and start the leader--> deep --drain--> empty --publish--> ...

Prints, at each step, the rate and the nodes' CPU for a message, their memory and their disk.
CPU tells more than the rate where other programs run on the machine. Memory is told apart:
RssAnon is the process's own; RssFile are pages of files, nearly all of the store's, which the
kernel takes back when somebody needs the room, and the node beyond `mapped_bytes_max`.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from broker.client import Client, Delivery
from tests.bench.meter import process_cpu_s
from tests.cluster import Cluster, ClusterNode, eventually

QUEUE = "deep"
STEPS = 20
PREFETCH = 500
SETTLE_S = 120.0


@dataclass(frozen=True, slots=True)
class Memory:
    """MiB of the node that uses most."""

    anonymous: float
    file: float


def memory(nodes: list[ClusterNode]) -> Memory:
    """Of the node that uses most, each."""
    return Memory(
        max(_status_mb(node, "RssAnon") for node in nodes),
        max(_status_mb(node, "RssFile") for node in nodes),
    )


def _status_mb(node: ClusterNode, field: str) -> float:
    assert node.process is not None
    for line in Path(f"/proc/{node.process.pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def disk_mb(cluster: Cluster) -> float:
    """Of the node that uses most, on the disk."""
    files = [node.data_dir / "data.mdb" for node in cluster.nodes]
    return max(file.stat().st_blocks * 512 for file in files) / (1 << 20)


@dataclass(slots=True)
class Steps:
    """Prints a line for each part of a long piece of work; remembers them."""

    cluster: Cluster
    what: str
    rates: list[float]
    cpu_us: list[float]
    _at: float = 0.0
    _cpu: float = 0.0

    def begin(self) -> None:
        """The work begins."""
        self._at, self._cpu = time.monotonic(), self._cpu_s()

    def step(self, done: int, total: int) -> None:
        """So many more are done, so many in all."""
        now, cpu = time.monotonic(), self._cpu_s()
        self.rates.append(done / (now - self._at))
        self.cpu_us.append(1e6 * (cpu - self._cpu) / done)
        self._at, self._cpu = now, cpu
        used = memory(self.cluster.running)
        print(
            f"{self.what} {total:>9,}: {self.rates[-1]:7,.0f}/s, {self.cpu_us[-1]:5.0f} us of the "
            f"nodes' CPU each; RssAnon {used.anonymous:4.0f}, RssFile {used.file:5.0f}, "
            f"disk {disk_mb(self.cluster):6.0f} MiB",
            flush=True,
        )

    def _cpu_s(self) -> float:
        nodes = self.cluster.running
        return sum(process_cpu_s(node.process.pid) for node in nodes if node.process is not None)


def main() -> None:
    """Run it, and print the summary."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.depth", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--bytes", type=int, default=1024, help="of each body")
    parser.add_argument("--shards", type=int, default=8)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="raftmq-depth-") as folder:
        cluster = Cluster(Path(folder), nodes=3, shards=given.shards)
        cluster.start()
        try:
            cluster.wait_ready()
            _measure(cluster, given.messages, bytes(given.bytes))
        finally:
            for node in cluster.running:
                cluster.terminate(node)


def _measure(cluster: Cluster, messages: int, body: bytes) -> None:
    with Client(cluster.url, timeout=60.0) as client:
        client.declare_queue(QUEUE)
    filled = _fill(cluster, messages, body)
    restarted_s = _restart(cluster)
    deep = memory(cluster.running)
    disk_deep = disk_mb(cluster)
    drained = _drain(cluster, messages)
    _wait_swept(cluster)
    disk_empty = disk_mb(cluster)
    again = _fill(cluster, messages // 2, body)
    disk_again = disk_mb(cluster)
    used = memory(cluster.running)
    print(
        f"\n{messages:,} messages of {len(body):,} bytes\n"
        f"publish: empty {filled.rates[0]:,.0f}/s and {filled.cpu_us[0]:.0f} us, "
        f"deep {filled.rates[-1]:,.0f}/s and {filled.cpu_us[-1]:.0f} us\n"
        f"drain: {_mean(drained.rates):,.0f}/s, first {drained.rates[0]:,.0f}/s, "
        f"last {drained.rates[-1]:,.0f}/s\n"
        f"memory of a node: deep RssAnon {deep.anonymous:.0f} MiB, RssFile {deep.file:.0f} MiB; "
        f"at the end RssAnon {used.anonymous:.0f} MiB\n"
        f"the leader, killed and started, is ready after {restarted_s:.1f} s\n"
        f"disk of a node: deep {disk_deep:,.0f} MiB, drained {disk_empty:,.0f} MiB, "
        f"half as many published again {disk_again:,.0f} MiB ({again.rates[-1]:,.0f}/s)"
    )


def _mean(rates: list[float]) -> float:
    return len(rates) / sum(1 / rate for rate in rates)


def _fill(cluster: Cluster, messages: int, body: bytes) -> Steps:
    steps, each = Steps(cluster, "published", [], []), max(1, messages // STEPS)
    with Client(cluster.url, timeout=60.0) as client:
        steps.begin()
        for done in range(each, messages + 1, each):
            for _ in range(each):
                client.publish_nowait(body, routing_key=QUEUE)
            client.flush()
            steps.step(each, done)
    return steps


def _drain(cluster: Cluster, messages: int) -> Steps:
    steps, each = Steps(cluster, "taken", [], []), max(1, messages // STEPS)
    with Client(cluster.url, timeout=60.0) as client:
        channel = client.channel()
        channel.set_prefetch(PREFETCH)
        channel.consume(QUEUE)
        steps.begin()
        for done in range(1, messages + 1):
            event = client.next_event(30.0)
            assert isinstance(event, Delivery), event
            event.ack()
            if done % each == 0:
                steps.step(each, done)
    return steps


def _restart(cluster: Cluster) -> float:
    """kill -9 of the queue's leader; seconds from its start until it serves clients."""
    leader = cluster.leader_of_queue(QUEUE)
    cluster.kill(leader)
    cluster.leader_of_queue(QUEUE)  # another one
    began = time.monotonic()
    cluster.restart(leader)
    cluster.wait_ready(60.0, [leader])
    ready_s = time.monotonic() - began
    with Client(cluster.url_of(leader), timeout=60.0) as client:
        info = client.declare_queue(QUEUE)
    print(f"{leader.id} was killed and is ready after {ready_s:.1f} s; {info}", flush=True)
    cluster.wait_level(60.0)
    return ready_s


def _wait_swept(cluster: Cluster) -> None:
    """Until the nodes have removed what they removed."""

    def quiet() -> bool:
        before = sum(node.metric("raftmq_commits_total") for node in cluster.running)
        time.sleep(3.0)
        return sum(node.metric("raftmq_commits_total") for node in cluster.running) - before < 30

    eventually(quiet, SETTLE_S, "the nodes are quiet")


if __name__ == "__main__":
    main()
