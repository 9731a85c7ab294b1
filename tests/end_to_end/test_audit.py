"""A real node whose state is not that of the others stops by itself, and the others go on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ROOT, Cluster, ClusterNode, eventually
from tests.end_to_end.traffic import Publisher, assert_each_once, publish, receive

pytestmark = pytest.mark.slow


class OddCluster(Cluster):
    """One node of three has a machine that goes wrong (odd_node.py)."""

    odd = "n3"  #: "" from when it is well again

    def arguments(self, node: ClusterNode) -> list[str]:
        words = super().arguments(node)
        if node.id == self.odd:
            assert words[1:3] == ["-m", "broker.cli"]
            words[1:3] = [str(ROOT / "tests" / "end_to_end" / "odd_node.py")]
        return words


def test_equal_replicas_are_compared_and_go_on(tmp_path: Path) -> None:
    with Cluster(tmp_path, settings={"RAFTMQ_AUDIT_MS": "300"}) as cluster:
        cluster.wait_ready()
        publish(cluster.url, "work", range(50))
        for node in cluster.nodes:
            eventually(
                lambda node=node: node.metric("raftmq_audits_equal_total") >= 4,  # type: ignore[misc]
                15,
                f"{node.id} to find its replicas equal to those of the others",
            )
        assert all(node.metric("raftmq_audits_different_total") == 0 for node in cluster.nodes)
        assert len(cluster.running) == 3


def test_a_replica_that_differs_stops_alone_and_says_what_to_do(tmp_path: Path) -> None:
    with OddCluster(tmp_path, settings={"RAFTMQ_AUDIT_MS": "300"}) as cluster:
        cluster.wait_ready()
        odd = cluster.node(cluster.odd)
        with Publisher(cluster.url, "work") as publisher:
            publisher.wait_more(20)
            assert odd.running
            publish(cluster.url, "other", ["odd"])  # type: ignore[arg-type]
            eventually(lambda: not odd.running, 15, "the odd node to stop")
            publisher.wait_more(20)
        assert odd.process is not None
        assert odd.process.returncode == 1
        last_words = odd.log()[-2000:]
        shard = cluster.queue("other").shard
        assert f"the state of shard {shard} on node n3 after entry" in last_words
        assert "keep its directory" in last_words and "under a new name" in last_words
        assert [node.id for node in cluster.running] == ["n1", "n2"]

        # Whoever starts it again, and however often: what is on its disk is not to be trusted.
        cluster.odd = ""
        cluster.restart(odd)
        eventually(lambda: not odd.running, 15, "the odd node to refuse to start")
        assert odd.process.returncode == 1
        assert "this node has stopped for good" in odd.log().splitlines()[-1]
        assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)
