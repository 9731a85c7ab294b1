"""A bit of a real data file flips: the node says where and stops, and nobody is served by it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection

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
