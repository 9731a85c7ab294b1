"""What a client holds stays its own while nodes go, and only then comes back."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from broker.client import Channel, Client, Delivery
from tests.cluster import Cluster, ClusterNode, eventually

HELD = 20
COUNT = 60

pytestmark = pytest.mark.slow


def kill(cluster: Cluster, node: ClusterNode) -> None:
    cluster.kill(node)


def pause(cluster: Cluster, node: ClusterNode) -> None:
    cluster.pause(node)


def take(client: Client, count: int, timeout_s: float = 15.0) -> list[Delivery]:
    """The next deliveries, unsettled."""
    taken: list[Delivery] = []
    ends = time.monotonic() + timeout_s
    while len(taken) < count and time.monotonic() < ends:
        event = client.next_event(0.5)
        if isinstance(event, Delivery):
            taken.append(event)
    return taken


@pytest.mark.parametrize("lose", [kill, pause])
def test_deliveries_in_hand_outlive_the_node_of_the_client(
    cluster: Cluster, lose: Callable[[Cluster, ClusterNode], None]
) -> None:
    with Client(cluster.url) as client:
        client.declare_queue("work")
        for number in range(COUNT):
            client.publish_nowait(b"%d" % number, routing_key="work")
        client.flush()
        channel = client.channel()
        channel.set_prefetch(HELD)
        channel.consume("work")
        held = take(client, HELD)
        assert len(held) == HELD

        home = cluster.node(client.node)
        session = client.session
        lose(cluster, home)
        client.publish(b"%d" % COUNT, routing_key="work", timeout=20)
        assert client.node != home.id
        assert client.session == session

        for delivery in held:
            delivery.ack()
        rest = []
        while len(rest) < COUNT + 1 - HELD:
            new = take(client, 1)
            assert new, f"only {len(rest)} of {COUNT + 1 - HELD} came"
            new[0].ack()
            rest += new
        got = [int(delivery.payload) for delivery in held + rest]
        assert got == list(range(COUNT + 1))
        assert not any(delivery.redelivered for delivery in held + rest)
        assert take(client, 1, timeout_s=1.0) == []
        channel.close()


def test_a_home_that_wakes_up_leaves_the_queues_of_those_who_moved(cluster: Cluster) -> None:
    """A reply queue goes with its session to the new home; the old one only forgets its copy."""
    with Client(cluster.url) as client:
        client.declare_queue("replies", exclusive=True, auto_delete=True)
        client.channel().consume("replies")
        home = cluster.node(client.node)
        cluster.pause(home)
        eventually(lambda: client.node != home.id, 15, "the client to move")
        client.publish(b"1", routing_key="replies", timeout=20)
        cluster.resume(home)
        cluster.wait_ready()
        cluster.wait_level()
        ends = time.monotonic() + 2.5  # longer than the broker's rounds of upkeep
        seen = []
        while time.monotonic() < ends:
            event = client.next_event(0.1)
            if event is not None:
                seen.append(event)
        client.publish(b"2", routing_key="replies", mandatory=True)
        seen += take(client, 1)
        assert [getattr(event, "payload", event) for event in seen] == [b"1", b"2"]


def test_a_clean_end_returns_messages_at_once_and_a_lost_client_after_its_grace(
    calm_cluster: Cluster,
) -> None:
    url = calm_cluster.url
    with Client(url, grace=2.0) as other:
        other.declare_queue("handed")
        channel = other.channel()

        other.publish(b"0", routing_key="handed")
        polite = Client(url, grace=60.0)
        first = polite.channel().get("handed")
        assert first is not None
        polite.close()
        began = time.monotonic()
        again = wait_get(channel, "handed")
        assert time.monotonic() - began < 2.0
        assert (again.payload, again.redelivered) == (b"0", True)

        again.ack()

        other.publish(b"1", routing_key="handed")
        rude = Client(url, grace=2.0)
        second = rude.channel().get("handed")
        assert second is not None
        rude.collect()  # not a word to the broker
        began = time.monotonic()
        again = wait_get(channel, "handed")
        assert 1.0 < time.monotonic() - began < 12.0
        assert (again.payload, again.redelivered) == (b"1", True)


def wait_get(channel: Channel, queue: str, timeout_s: float = 15.0) -> Delivery:
    """Fetch until there is something."""
    delivery = eventually(lambda: channel.get(queue), timeout_s, f"a message in {queue!r}")
    assert delivery is not None
    return delivery
