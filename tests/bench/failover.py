"""How long confirmed publishing stands still when the leader of a queue is killed.

publish, publish, ... --kill -9--> (nobody answers) --> the next confirm, publish, ...
                         |<------------- pause ----------->|
"""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import dataclass, field

from kombu import Connection, Exchange, Producer, Queue

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu
from tests.cluster import Cluster, eventually

STEADY = 50
"""Confirms before the kill, and after it, that make a round."""
ROUND_S = 30.0


@dataclass(frozen=True, slots=True)
class Pause:
    """One kill: the longest time without a confirm after it, and what was killed."""

    seconds: float
    home: bool  #: whether the publisher's session lived on the node that was killed


@dataclass(slots=True)
class _Publisher:
    """Publishes until told to stop; the times of all confirms."""

    url: str
    queue: Queue
    confirmed_at: list[float] = field(default_factory=list)
    error: BaseException | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        try:
            with Connection(self.url) as connection:
                producer = Producer(connection.channel(), self.queue.exchange, self.queue.name)
                while not self.stop.is_set():
                    producer.publish({"n": len(self.confirmed_at)}, retry=True)
                    self.confirmed_at.append(time.monotonic())
        except BaseException as error:
            self.error = error
            raise

    def wait_more(self, count: int) -> None:
        goal = len(self.confirmed_at) + count
        eventually(
            lambda: len(self.confirmed_at) >= goal or self.error is not None,
            ROUND_S,
            f"{count} more confirms",
        )
        if self.error is not None:
            raise RuntimeError("the publisher failed") from self.error


def failover(cluster: Cluster, rounds: int) -> list[Pause]:
    """Kill the leader of a queue's shard that often; it comes back before the next time."""
    name = "bench-failover"
    queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
    with Connection(cluster.url) as connection:
        queue(connection.default_channel).declare()
    return [_round(cluster, queue) for _ in range(rounds)]


def _round(cluster: Cluster, queue: Queue) -> Pause:
    publisher = _Publisher(cluster.url, queue)
    thread = threading.Thread(target=publisher.run, daemon=True)
    thread.start()
    try:
        publisher.wait_more(STEADY)
        leader = cluster.leader_of_queue(queue.name)
        home = any(session.node == leader.id for session in cluster.status(leader).sessions)
        killed_at = time.monotonic()
        cluster.kill(leader)
        publisher.wait_more(STEADY)
    finally:
        publisher.stop.set()
        thread.join(ROUND_S)
    cluster.restart(leader)
    cluster.wait_ready()
    cluster.wait_level()
    return Pause(longest_pause(publisher.confirmed_at, killed_at), home)


def longest_pause(confirmed_at: list[float], killed_at: float) -> float:
    """From the kill on; a confirm that was on its way at that moment does not end the pause."""
    after = [killed_at, *(at for at in confirmed_at if at > killed_at)]
    return max(later - earlier for earlier, later in itertools.pairwise(after))
