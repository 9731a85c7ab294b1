"""A leader that stands still for ten seconds, by SIGSTOP or by its disk, and wakes.

stands still --- election timeout ---> others lead, confirms go on, its clients move
             --- wakes --------------> follows: confirms and tells nothing that is stale
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker import protocol
from broker.client import Client
from tests.cluster import Cluster, ClusterNode, eventually
from tests.end_to_end.raw_client import RawClient
from tests.end_to_end.stalls import stall, stalling_cluster, unstall
from tests.end_to_end.traffic import Publisher, assert_each_once, receive

STILL_S = 10.0
ELECTED_S = 3.0
"""The longest election timeout, and a second for the election on a busy machine."""
MOVED_S = 8.0
"""Until a client has noticed the silence of its node (3.5 s), resumed and been answered."""

pytestmark = pytest.mark.slow


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with stalling_cluster(tmp_path) as cluster:
        cluster.wait_ready()
        yield cluster


def _pause(cluster: Cluster, node: ClusterNode) -> Callable[[], None]:
    cluster.pause(node)
    return lambda: cluster.resume(node)


def _stall(cluster: Cluster, node: ClusterNode) -> Callable[[], None]:
    stall(node)
    return lambda: unstall(node)


def _leader_seen_by(cluster: Cluster, nodes: list[ClusterNode], shard: int) -> str:
    """Whom all of these nodes take for the leader; "" when they do not agree."""
    seen = {v.leader for node in nodes for v in cluster.status(node).shards if v.shard == shard}
    return seen.pop() if len(seen) == 1 else ""


@pytest.mark.parametrize("stop", [_pause, _stall])
def test_a_leader_that_stands_still_is_replaced_and_wakes_harmlessly(
    cluster: Cluster, stop: Callable[[Cluster, ClusterNode], Callable[[], None]]
) -> None:
    with Publisher(cluster.url, "work") as publisher, Client(cluster.url) as client:
        publisher.wait_more(100)
        client.declare_queue("gone")
        shard = cluster.queue("work").shard
        before = cluster.leader_of(shard)
        others = [node for node in cluster.nodes if node is not before]
        with Client(cluster.url_of(before)) as at_home, RawClient(before.port) as asleep:
            at_home.declare_queue("from-home")
            asleep.greet(grace_ms=60_000)
            began = time.monotonic()
            wake = stop(cluster, before)
            asleep.say(protocol.Publish(1, "", "work", True, 0, None, b"from its sleep"))
            eventually(
                lambda: _leader_seen_by(cluster, others, shard) not in ("", before.id),
                ELECTED_S,
                "another leader",
            )
            at_home.publish(b"moved", routing_key="from-home", mandatory=True, timeout=MOVED_S)
            publisher.wait_more(100)
            client.delete_queue("gone")
            asleep.say(protocol.DeclareQueue(2, "gone", passive=True))
            asleep.say(protocol.Get(3, "gone"))
            eventually(lambda: time.monotonic() - began > STILL_S, STILL_S + 1, "its sleep to end")
            wake()
            answers = _all_answers(asleep)
        publisher.wait_more(50)
        cluster.wait_ready()
        confirmed = any(isinstance(a, protocol.Confirmed) and 1 in a.seqs for a in answers)
    refused = {a.seq: a.code for a in answers if isinstance(a, protocol.RefusedAnswer)}
    told = [a for a in answers if isinstance(a, protocol.Replied | protocol.Fetched)]
    assert not told, "it told of a queue that was deleted while it slept"
    assert set(refused.values()) <= {404}
    assert f"leads shard {shard} no more" in before.log()
    cluster.wait_level()
    assert before.running
    received = receive(cluster.url, "work", publisher.confirmed + confirmed)
    from_sleep = [item for item in received if not isinstance(item[0], int)]
    assert len(from_sleep) <= 1
    assert len(from_sleep) == 1 or not confirmed, "confirmed by a leader that was none any more"
    assert_each_once([item for item in received if item not in from_sleep], publisher.confirmed)


def _all_answers(client: RawClient) -> list[protocol.AnyAnswer]:
    """Until nothing but signs of life has come for three seconds."""
    answers: list[protocol.AnyAnswer] = []
    last = time.monotonic()
    while time.monotonic() - last < 3:
        news = [a for a in client.answers(500) if not isinstance(a, protocol.Beat)]
        if news:
            last = time.monotonic()
        answers += news
    return answers


def test_a_follower_with_a_stalled_disk_is_not_noticed(cluster: Cluster) -> None:
    with Client(cluster.url) as client:
        client.declare_queue("work")
    leader = cluster.leader_of_queue("work")
    follower = next(node for node in cluster.nodes if node is not leader)
    with Publisher(cluster.url_of(leader), "work") as publisher:
        publisher.wait_more(100)
        publisher.longest_pause_s = 0.0
        stall(follower)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > STILL_S, STILL_S + 1, "the stall to end")
        assert publisher.longest_pause_s < 1.0
        unstall(follower)
        publisher.wait_more(50)
        cluster.wait_ready()
    cluster.wait_level()
    assert follower.running
    assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)
