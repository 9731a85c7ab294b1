"""How long confirmed publishing stands still when a node that leads is killed, or told to stop.

a publisher on a queue of each shard, all at work
kill -9 of the leader of one queue (which leads other shards too, and is home to publishers)
    |<--- pause, of each shard --->| the next confirm
it comes back, and the next one is killed
"""

from __future__ import annotations

import itertools
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from kombu import Connection, Exchange, Producer, Queue

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu
from tests.cluster import Cluster, ClusterNode, eventually

STEADY = 10
"""Confirms of each publisher before a kill, and after it, that make a round."""
ROUND_S = 30.0
THINK_S = 0.01
"""Between two publishes of one publisher."""
BUCKETS_MS = (100, 150, 200, 250, 300, 400, 500, 750, 1000, 1500)


@dataclass(frozen=True, slots=True)
class Pause:
    """One kill or stop: the longest time without a confirm after it, by shard."""

    led: dict[int, float]  #: seconds, of the shards that the node led
    others: dict[int, float]  #: and of those that others led

    @property
    def slowest(self) -> float:
        """Of the shards that lost their leader."""
        return max(self.led.values())


@dataclass(slots=True)
class _Publisher:
    """Publishes until told to stop; the times of all confirms."""

    url: str
    queue: Queue
    shard: int
    confirmed_at: list[float] = field(default_factory=list)
    error: BaseException | None = None

    def run(self, stop: threading.Event) -> None:
        try:
            with Connection(self.url) as connection:
                producer = Producer(connection.channel(), self.queue.exchange, self.queue.name)
                while not stop.is_set():
                    producer.publish({"n": len(self.confirmed_at)}, retry=True)
                    self.confirmed_at.append(time.monotonic())
                    stop.wait(THINK_S)
        except BaseException as error:
            self.error = error
            raise


@dataclass(slots=True)
class Load:
    """Publishers on a queue of every shard that holds queues."""

    cluster: Cluster
    publishers: list[_Publisher]

    def wait_more(self, count: int) -> None:
        """Until each has so many more confirms."""
        goals = [len(publisher.confirmed_at) + count for publisher in self.publishers]

        def reached() -> bool:
            for publisher in self.publishers:
                if publisher.error is not None:
                    raise RuntimeError("a publisher failed") from publisher.error
            pairs = zip(self.publishers, goals, strict=True)
            return all(len(publisher.confirmed_at) >= goal for publisher, goal in pairs)

        eventually(reached, ROUND_S, f"{count} more confirms of each publisher")

    def led_by(self, node: ClusterNode) -> set[int]:
        """The shards among those of the publishers that a node leads."""
        shards = self.cluster.status(node).shards
        return {s.shard for s in shards if s.role == "leader"} & self.shards

    @property
    def shards(self) -> set[int]:
        return {publisher.shard for publisher in self.publishers}

    def pause(self, led: set[int], began: float) -> Pause:
        """What the publishers have seen since then."""
        pauses = {p.shard: longest_pause(p.confirmed_at, began) for p in self.publishers}
        return Pause(
            {shard: pause for shard, pause in pauses.items() if shard in led},
            {shard: pause for shard, pause in pauses.items() if shard not in led},
        )


@contextmanager
def load(cluster: Cluster) -> Iterator[Load]:
    """A publisher at work on each shard but shard 0, which holds no queues."""
    queues = _queue_of_each_shard(cluster)
    publishers = [_Publisher(cluster.url, queue, shard) for shard, queue in queues.items()]
    stop = threading.Event()
    threads = [threading.Thread(target=p.run, args=(stop,), daemon=True) for p in publishers]
    for thread in threads:
        thread.start()
    try:
        yield Load(cluster, publishers)
    finally:
        stop.set()
        for thread in threads:
            thread.join(ROUND_S)


def _queue_of_each_shard(cluster: Cluster) -> dict[int, Queue]:
    queues: dict[int, Queue] = {}
    with Connection(cluster.url) as connection:
        for number in itertools.count():
            if len(queues) == cluster.shards - 1:
                return queues
            name = f"bench-failover-{number}"
            queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
            queue(connection.default_channel).declare()
            queues.setdefault(cluster.queue(name).shard, queue)
    raise AssertionError("names end")


def failover(cluster: Cluster, rounds: int) -> list[Pause]:
    """Kill the leader of one shard after the other; it comes back before the next time."""
    with load(cluster) as at_work:
        turns = itertools.islice(itertools.cycle(sorted(at_work.shards)), rounds)
        return [_round(cluster, at_work, shard) for shard in turns]


def _round(cluster: Cluster, at_work: Load, shard: int) -> Pause:
    at_work.wait_more(STEADY)
    victim = cluster.leader_of(shard)
    led = at_work.led_by(victim) | {shard}
    killed_at = time.monotonic()
    cluster.kill(victim)
    at_work.wait_more(STEADY)
    pause = at_work.pause(led, killed_at)
    _bring_back(cluster, victim)
    return pause


def _bring_back(cluster: Cluster, node: ClusterNode) -> None:
    cluster.restart(node)
    cluster.wait_ready()
    eventually(
        lambda: min(_applied(cluster, node)) > -1000,
        ROUND_S,
        f"{node.id} to be level with the others, but for what is under way",
    )


def _applied(cluster: Cluster, node: ClusterNode) -> list[int]:
    """How far a node is ahead of the others, shard by shard; behind: below 0."""
    own = {view.shard: view.applied for view in cluster.status(node).shards}
    return [
        own[view.shard] - view.applied
        for other in cluster.nodes
        for view in cluster.status(other).shards
    ]


def rolling(cluster: Cluster) -> list[Pause]:
    """Tell each node in turn to stop, and start it again: what that costs each shard."""
    pauses = []
    with load(cluster) as at_work:
        for node in cluster.nodes:
            at_work.wait_more(STEADY)
            led = at_work.led_by(node)
            began = time.monotonic()
            cluster.terminate(node)
            at_work.wait_more(STEADY)
            pauses.append(at_work.pause(led, began))
            _bring_back(cluster, node)
            at_work.wait_more(STEADY)
    return pauses


def longest_pause(confirmed_at: Sequence[float], began: float) -> float:
    """From then on; a confirm that was on its way at that moment does not end the pause."""
    after = [began, *(at for at in confirmed_at if at > began)]
    return max(later - earlier for earlier, later in itertools.pairwise(after))


def summary(seconds: Sequence[float]) -> str:
    """Median, 90th percentile and worst, in ms."""
    ms = sorted(1000 * each for each in seconds)
    p90 = ms[min(len(ms) - 1, int(0.9 * len(ms)))]
    return f"median {statistics.median(ms):.0f} ms, p90 {p90:.0f} ms, worst {ms[-1]:.0f} ms"


def histogram(seconds: Sequence[float]) -> str:
    """A line for each bucket, up to the worst."""
    ms = [1000 * each for each in seconds]
    lines, low = [], 0
    for high in (*BUCKETS_MS, 1_000_000):
        count = sum(low <= each < high for each in ms)
        lines.append(
            f"  {low:>5} - {high if high < 1_000_000 else '':>5} ms {count:>4} {'#' * count}"
        )
        low = high
    while lines and not lines[-1].endswith("#"):
        lines.pop()
    return "\n".join(lines)
