"""How long a calm client waits for its confirms while another floods the same queue.

    flooding   frames of publishes, one after the other, as fast as the link takes them
    calm       one publish at a time, each waiting for its confirm

Both speak the protocol by hand: the product's client would not flood, it has a window.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass

from broker import protocol
from tests.bench.meter import Latencies
from tests.cluster import Cluster
from tests.end_to_end.raw_client import RawClient

QUEUE = "bench-fairness"
BODY = b"x" * 1024
PUBLISHES_PER_FRAME = 200
CALM_S = 0.02
"""Between two publishes of the calm client."""
FLOOD_BEFORE_S = 2.0
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Calm:
    """What the calm client saw."""

    alone: Latencies
    beside: Latencies  #: a flood
    flooded: int  #: messages that the flooding client sent


def fairness(cluster: Cluster, seconds: float) -> Calm:
    """Both at home on the leader of the queue, where all that waits is in one place."""
    with RawClient(cluster.nodes[0].port) as first:
        first.greet()
        first.ask(protocol.DeclareQueue(first.next_seq(), QUEUE))
    port = cluster.leader_of_queue(QUEUE).port
    with RawClient(port) as calm:
        calm.greet(grace_ms=60_000)
        alone = _publish_calmly(calm, seconds)
        stop, sent = threading.Event(), [0]
        flood = threading.Thread(target=_flood, args=(port, stop, sent), daemon=True)
        flood.start()
        try:
            time.sleep(FLOOD_BEFORE_S)
            beside = _publish_calmly(calm, seconds)
        finally:
            stop.set()
            flood.join(ANSWER_S)
    return Calm(alone, beside, sent[0])


def _publish_calmly(client: RawClient, seconds: float) -> Latencies:
    latencies, ends = Latencies(), time.monotonic() + seconds
    while time.monotonic() < ends:
        began, seq = time.monotonic(), client.next_seq()
        publish = protocol.Publish(seq, "", QUEUE, False, 0, None, BODY)
        client.say(publish, floor=seq)
        while not _confirms(client, publish):
            if time.monotonic() - began > ANSWER_S:
                raise TimeoutError(f"no confirm in {ANSWER_S:g} s")
        latencies.seconds.append(time.monotonic() - began)
        time.sleep(CALM_S)
    return latencies


def _confirms(client: RawClient, publish: protocol.Publish) -> bool:
    """Whether the next frame does; a publish that may have got lost is said again."""
    for answer in client.answers():
        if isinstance(answer, protocol.Confirmed) and publish.seq in answer.seqs:
            return True
        if isinstance(answer, protocol.Resync):
            client.say(publish, floor=publish.seq)
    return False


def _flood(port: int, stop: threading.Event, sent: list[int]) -> None:
    with RawClient(port) as client:
        client.greet(grace_ms=60_000)
        while not stop.is_set():
            first = client.seq + 1
            client.seq += PUBLISHES_PER_FRAME
            client.say(
                *(
                    protocol.Publish(seq, "", QUEUE, False, 0, None, BODY)
                    for seq in range(first, first + PUBLISHES_PER_FRAME)
                ),
                floor=max(1, first - 100_000),
            )
            sent[0] += PUBLISHES_PER_FRAME
            while client.answers(timeout_ms=0):
                pass
