"""Nodes come and go in a running cluster: real processes, real disks, traffic all the while."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker.status import ClusterStatus, decode_cluster
from tests.cluster import Cluster, ClusterNode, eventually, python_environment
from tests.end_to_end.traffic import Publisher, assert_each_once, receive

pytestmark = pytest.mark.slow
MOVED_S = 40.0
QUEUE = "moving"


def raftmq(cluster: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    """`raftmq cluster ...`, asked of the nodes that answer."""
    urls = ",".join(node.http_url for node in cluster.answering)
    return subprocess.run(
        [sys.executable, "-m", "broker.cli", "cluster", *words, "--url", urls],
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def done(cluster: Cluster, *words: str) -> None:
    """The same, until it is done: shards may still be on their way."""

    def once() -> bool:
        ran = raftmq(cluster, *words)
        assert ran.returncode in (0, 1), ran.stderr
        return ran.returncode == 0

    eventually(once, MOVED_S, f"raftmq cluster {' '.join(words)}")


def members(cluster: Cluster) -> ClusterStatus:
    ran = raftmq(cluster, "members", "--json")
    assert ran.returncode == 0, ran.stderr
    return decode_cluster(ran.stdout.encode())


def wait_settled(cluster: Cluster) -> ClusterStatus:
    eventually(lambda: members(cluster).settled, MOVED_S, "a settled list")
    return members(cluster)


def state_of(cluster: Cluster, name: str) -> str:
    return {node.node: node.state for node in members(cluster).nodes}[name]


def wait_ended(node: ClusterNode) -> int:
    eventually(lambda: not node.running, MOVED_S, f"{node.id} to end")
    assert node.process is not None
    return node.process.returncode


def add(cluster: Cluster, name: str) -> ClusterNode:
    """A new node, from nothing to a member."""
    node = cluster.join(name)
    done(cluster, "add", name, f"127.0.0.1:{node.peer_port}")
    cluster.restart(node)
    done(cluster, "promote", name)
    wait_settled(cluster)
    return node


def test_three_nodes_become_five_and_the_leader_goes(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=3, shards=5) as cluster:
        cluster.wait_ready()
        with Publisher(cluster.url, QUEUE) as traffic:
            traffic.wait_more(50)
            add(cluster, "n4")
            add(cluster, "n5")
            seen = wait_settled(cluster)
            kept = {node.node: node.votes for node in seen.nodes}
            assert all(0 in votes for votes in kept.values())
            assert kept["n4"] != [0] or kept["n5"] != [0], "nothing has moved"
            traffic.wait_more(50)

            leader = cluster.leader_of(0)
            done(cluster, "remove", leader.id)
            assert wait_ended(leader) == 0
            assert "was removed from the cluster" in leader.log()
            wait_settled(cluster)
            assert state_of(cluster, leader.id) == "removed"
            traffic.wait_more(50)

            cluster.restart(leader)
            assert wait_ended(leader) == 0, "it was told again"
        confirmed = traffic.confirmed
        assert_each_once(receive(cluster.url, QUEUE, confirmed), confirmed)


def test_a_node_that_joined_starts_again_by_itself(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=3, shards=4) as cluster:
        cluster.wait_ready()
        node = add(cluster, "n4")
        cluster.kill(node)
        assert "--join" not in cluster.arguments(node)
        cluster.restart(node)
        cluster.wait_ready(nodes=[node])
        eventually(lambda: all(n.connected for n in members(cluster).nodes), 10.0, "all connected")


def test_a_node_that_is_not_listed_waits_and_says_what_for(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=3, shards=2) as cluster:
        cluster.wait_ready()
        node = cluster.join("n4")
        cluster.restart(node)
        eventually(lambda: "cluster add n4" in node.log(), 10.0, "to be told what is missing")
        assert node.running
        done(cluster, "add", "n4", f"127.0.0.1:{node.peer_port}")
        cluster.wait_ready(nodes=[node])
        assert state_of(cluster, "n4") == "joining"


def test_a_lost_disk_is_replaced_under_a_new_name_alone(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=3, shards=4) as cluster:
        cluster.wait_ready()
        wait_settled(cluster)
        with Publisher(cluster.url, QUEUE) as traffic:
            traffic.wait_more(50)
            lost = cluster.leader_of(1)
            cluster.kill(lost)
            shutil.rmtree(lost.data_dir)
            traffic.wait_more(20)

            cluster.restart(lost)
            assert wait_ended(lost) == 2, "an empty disk under the old name is believed by nobody"
            assert f"cluster remove {lost.id}" in lost.log()
            traffic.wait_more(20)

            done(cluster, "remove", lost.id)
            wait_settled(cluster)
            add(cluster, "n4")
            assert [n.node for n in members(cluster).nodes if n.state == "member"].count("n4") == 1
            traffic.wait_more(50)
        confirmed = traffic.confirmed
        assert_each_once(receive(cluster.url, QUEUE, confirmed), confirmed)
        refused = raftmq(cluster, "add", lost.id, "127.0.0.1:9")
        assert refused.returncode == 1
        assert "never used again" in refused.stderr


def test_what_would_lose_the_majority_is_refused(tmp_path: Path) -> None:
    with Cluster(tmp_path, nodes=3, shards=2) as cluster:
        cluster.wait_ready()
        wait_settled(cluster)
        cluster.kill("n3")
        eventually(
            lambda: not {n.node: n.connected for n in members(cluster).nodes}["n3"], 15.0, "silence"
        )
        refused = raftmq(cluster, "remove", "n2")
        assert refused.returncode == 1
        assert "majority" in refused.stderr
        assert "n3" in refused.stderr
        assert state_of(cluster, "n2") == "member"
        done(cluster, "remove", "n3")  # the dead one may go
        wait_settled(cluster)
        assert state_of(cluster, "n3") == "removed"
