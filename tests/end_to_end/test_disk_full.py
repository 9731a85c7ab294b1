"""A disk that is full stops its node, with a clear message, and nobody else."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu
from tests.cluster import Cluster, eventually
from tests.end_to_end.traffic import queue_named

DISK_BYTES = 8 << 20
BODY_BYTES = 128 << 10
MESSAGES = 100  # more than the small disk holds

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of `DISK_BYTES`."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "n3" / "data"
    disk.mkdir(parents=True)
    options = f"size={DISK_BYTES}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_stops_its_node_alone(tmp_path: Path, small_disk: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        full = cluster.node("n3")
        queue = queue_named("work")
        body = "x" * BODY_BYTES
        with Connection(cluster.url) as connection, connection.Producer() as producer:
            for _ in range(MESSAGES):
                producer.publish(
                    body, exchange=queue.exchange, routing_key=queue.name, declare=[queue]
                )
        eventually(lambda: not full.running, 15, "the node with the full disk to stop")
        assert full.process is not None
        assert full.process.returncode == 1
        last_words = full.log()[-3000:]
        assert "No space left" in last_words or "full" in last_words, last_words
        cluster.wait_ready()
        assert cluster.queue("work").ready == MESSAGES
