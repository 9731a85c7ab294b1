"""A bit of a real data file flips: the node says where and stops, and nobody is served by it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest
from kombu import Connection

from raftlog.record import group_key, seal, turn_bytes
from tests.cluster import ROOT, Cluster, ClusterNode, eventually, python_environment
from tests.end_to_end.traffic import queue_named, receive

pytestmark = pytest.mark.slow

COUNT = 60
BODY_BYTES = 20_000
DAMAGED = 5  # old enough to be in nobody's memory


def body(number: int) -> str:
    return f"<{number:05}>".ljust(BODY_BYTES, "x")


def flip_a_bit(node: ClusterNode, needle: bytes) -> None:
    """In the node's data file, where these bytes stand: also under a running node."""
    with (node.data_dir / "data.mdb").open("r+b") as file:
        data = file.read()
        places = [found.start() for found in re.finditer(re.escape(needle), data)]
        assert places, "the bytes are not in the file"
        for place in places:
            file.seek(place)
            file.write(bytes([data[place] ^ 1]))


def publish_all(cluster: Cluster) -> None:
    queue = queue_named("work")
    with Connection(cluster.url) as connection, connection.Producer() as producer:
        for number in range(COUNT):
            producer.publish(
                body(number), exchange=queue.exchange, routing_key=queue.name, declare=[queue]
            )


def test_a_damaged_entry_is_never_served_and_stops_its_node_alone(tmp_path: Path) -> None:
    # Without a cache to speak of each body is read from the disk.
    settings = {"RAFTMQ_CACHE_BYTES_MAX": "1", "RAFTMQ_SCRUB_BYTES_PER_S": "0"}
    with Cluster(tmp_path, settings=settings) as cluster:
        cluster.wait_ready()
        publish_all(cluster)
        cluster.wait_level()
        damaged = cluster.leader_of_queue("work")
        shard = cluster.queue("work").shard
        flip_a_bit(damaged, body(DAMAGED)[:7].encode())
        received = receive(cluster.url, "work", COUNT)
        assert sorted(text for text, _ in received) == [body(number) for number in range(COUNT)]
        eventually(lambda: not damaged.running, 10, "the damaged node to stop")
        assert damaged.process is not None
        assert damaged.process.returncode == 1
        last_words = damaged.log().splitlines()[-1]
        assert re.search(rf"entry \d+ of group {shard} in .* is damaged: its checksum", last_words)
        assert "Traceback" not in damaged.log()
        assert len(cluster.running) == 2


def test_damage_is_found_before_it_is_needed_and_stops_nobody(tmp_path: Path) -> None:
    settings = {"RAFTMQ_SCRUB_PASS_MS": "100", "RAFTMQ_CACHE_BYTES_MAX": "1"}
    with Cluster(tmp_path, settings=settings) as cluster:
        cluster.wait_ready()
        publish_all(cluster)
        cluster.wait_level()
        node = cluster.node("n2")
        shard = cluster.queue("work").shard
        flip_a_bit(node, body(DAMAGED)[:7].encode())
        name = "raftmq_damaged_records_total"
        eventually(lambda: node.metric(name) == 1, 15, "the damage to be found")
        passes = node.metric("raftmq_scrub_passes_total")
        eventually(lambda: node.metric("raftmq_scrub_passes_total") > passes + 1, 15, "more passes")
        assert node.metric(name) == 1
        assert re.search(rf"entry \d+ of group {shard} .*raftmq node repair", node.log())
        assert len(cluster.running) == 3
        assert [other.metric(name) for other in cluster.nodes if other is not node] == [0, 0]


def node_command(*words: str) -> subprocess.CompletedProcess[str]:
    """`raftmq node ...`, run to its end."""
    return subprocess.run(
        [sys.executable, "-m", "broker.cli", "node", *words],
        env=python_environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def verify(node: ClusterNode) -> tuple[int, dict[str, Any]]:
    """(exit code, what it says as JSON)."""
    done = node_command("verify", "--data-dir", str(node.data_dir), "--json")
    return done.returncode, json.loads(done.stdout) if done.stdout else {}


def test_verify_names_the_damaged_entry_of_a_stopped_node(tmp_path: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        publish_all(cluster)
        cluster.wait_level()
        node = cluster.node("n2")
        shard = cluster.queue("work").shard
        running = node_command("verify", "--data-dir", str(node.data_dir))
        assert running.returncode == 2 and "another process works in" in running.stderr
        cluster.terminate(node)
        code, report = verify(node)
        assert (code, report["damages"]) == (0, [])
        assert report["node"] == "n2" and report["records"] > COUNT

        flip_a_bit(node, body(DAMAGED)[:7].encode())
        code, report = verify(node)
        assert code == 1
        (damage,) = report["damages"]
        assert (damage["database"], damage["group"]) == ("log", shard)
        assert "checksum" in damage["wrong"]
        text = node_command("verify", "--data-dir", str(node.data_dir))
        assert text.returncode == 1
        assert f"entry {damage['number']} of group {shard}" in text.stdout
        assert "raftmq node repair" in text.stdout


def repair(cluster: Cluster, node: ClusterNode) -> subprocess.CompletedProcess[str]:
    """`raftmq node repair` with the options of the node."""
    words = cluster.arguments(node)
    return node_command("repair", *words[words.index("node") + 1 :])


def lead(cluster: Cluster, node: ClusterNode, queue: str) -> None:
    """Until this node leads the queue's shard, one other node after the other is started again."""
    for _ in range(10):
        leader = cluster.leader_of_queue(queue)
        if leader is node:
            return
        cluster.terminate(leader)
        cluster.wait_ready()
        if cluster.leader_of_queue(queue) is node:
            cluster.restart(leader)
            cluster.wait_ready()
            return
        cluster.restart(leader)
        cluster.wait_ready()
    raise AssertionError(f"{node.id} did not come to lead {queue}")


def test_a_damaged_node_is_healed_from_its_peers_and_serves_again(tmp_path: Path) -> None:
    with Cluster(tmp_path, settings={"RAFTMQ_CACHE_BYTES_MAX": "1"}) as cluster:
        cluster.wait_ready()
        publish_all(cluster)
        cluster.wait_level()
        node = cluster.node("n2")
        shard = cluster.queue("work").shard
        running = repair(cluster, node)
        assert running.returncode == 2 and "another process works in" in running.stderr

        cluster.terminate(node)
        healthy = repair(cluster, node)
        assert (healthy.returncode, "none of them damaged" in healthy.stdout) == (0, True)
        # Two neighbours, of which neither can prove the other, and one that stands alone.
        for number in (DAMAGED, DAMAGED + 1, DAMAGED + 20):
            flip_a_bit(node, body(number)[:7].encode())
        code, report = verify(node)
        indices = [damage["number"] for damage in report["damages"]]
        assert code == 1 and len(indices) == 3

        # Nobody answers: nothing changes, and the tool says what to do.
        others = [other for other in cluster.nodes if other is not node]
        for other in others:
            cluster.pause(other)
        alone = repair(cluster, node)
        for other in others:
            cluster.resume(other)
        assert alone.returncode == 1
        assert "does not answer" in alone.stdout and "run this again" in alone.stdout
        assert verify(node)[1]["damages"] == report["damages"]

        cluster.wait_ready(nodes=others)
        healed = repair(cluster, node)
        assert healed.returncode == 0, healed.stdout + healed.stderr
        first, second, third = indices
        assert f"entries {first} to {second} of group {shard}: healed with" in healed.stdout
        assert f"entry {third} of group {shard}: healed with" in healed.stdout
        assert verify(node) == (0, {**report, "damages": [], "text": []})

        cluster.restart(node)
        cluster.wait_ready()
        lead(cluster, node, "work")
        received = receive(cluster.url, "work", COUNT)
        assert sorted(text for text, _ in received) == [body(number) for number in range(COUNT)]
        assert node.running


def test_what_cannot_be_proved_is_left_alone_and_said(tmp_path: Path) -> None:
    """The state of a group has nothing beside it that could prove a copy."""
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        publish_all(cluster)
        node = cluster.node("n2")
        cluster.terminate(node)
        shard = cluster.queue("work").shard
        damage_the_state(node, shard)
        code, report = verify(node)
        assert code == 1
        assert [(d["database"], d["group"]) for d in report["damages"]] == [("state", shard)]
        before = (node.data_dir / "data.mdb").read_bytes()
        refused = repair(cluster, node)
        assert refused.returncode == 1
        assert f"the state of group {shard}: no copy of another node can prove it" in refused.stdout
        assert "under a new name" in refused.stdout
        assert (node.data_dir / "data.mdb").read_bytes() == before
        cluster.restart(node)
        eventually(lambda: not node.running, 15, "the damaged node to refuse to start")
        assert node.process is not None
        assert node.process.returncode == 1
        assert f"the state of group {shard}" in node.log().splitlines()[-1]
        assert len(cluster.running) == 2


def damage_the_state(node: ClusterNode, group: int) -> None:
    """A flipped bit, written as LMDB would read it back."""
    with lmdb.open(str(node.data_dir), max_dbs=8, map_size=1 << 30) as env:
        states = env.open_db(b"state")
        with env.begin(write=True) as txn:
            record = bytearray(txn.get(group_key(group), db=states))
            record[-1] ^= 1
            txn.put(group_key(group), bytes(record), db=states)
            txn.put(b"turn", seal(b"turn", turn_bytes(txn.id())))
