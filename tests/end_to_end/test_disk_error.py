"""One write or sync that the disk refuses ends the process, before anything hangs on it.

The disk is real; a library loaded before libc (failing_disk.c) makes one call on the data file
fail with EIO, and then never again. A node that tried once more would get away with it, and with
having lost what the failed call was about: so it must not try.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterNode, eventually
from tests.end_to_end.traffic import Publisher, assert_each_once, receive

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The failing disk, compiled."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the failing disk with")
    built = tmp_path_factory.mktemp("failing_disk") / "failing_disk.so"
    source = Path(__file__).with_name("failing_disk.c")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", built, source, "-ldl"], check=True, timeout=60
    )
    return built


class FailingDisk:
    """The files by which a node's disk is made to fail, and tells of it."""

    def __init__(self, directory: Path, library: Path, call: str) -> None:
        self.when, self.log = directory / "fail_now", directory / "calls_after"
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAIL_CALL": call,
            "FAIL_WHEN": str(self.when),
            "FAIL_LOG": str(self.log),
        }

    def fail(self) -> None:
        self.when.touch()

    @property
    def calls(self) -> list[str]:
        """The call that failed, and all on the data file since."""
        return self.log.read_text().split() if self.log.exists() else []


def start_with(cluster: Cluster, node: ClusterNode, disk: FailingDisk | None) -> None:
    """Start a node that is down, on this disk."""
    before = dict(cluster.settings)
    cluster.settings.update(disk.environment if disk is not None else {})
    cluster.restart(node)
    cluster.settings.clear()
    cluster.settings.update(before)


def assert_ended_by(disk: FailingDisk, node: ClusterNode, call: str) -> None:
    eventually(lambda: not node.running, 15, f"{node.id}, whose disk failed, to stop")
    assert node.process is not None
    assert node.process.returncode == 1, node.log()[-3000:]
    last_words = node.log()[-3000:]
    assert "look at the disk" in last_words and "Input/output error" in last_words, last_words
    assert disk.calls[0] == call
    # LMDB itself puts an old meta page back after it could not write a new one.
    assert disk.calls[1:] in ([], ["meta"]), "it has tried again"


@pytest.mark.parametrize("call", ["sync", "data", "meta"])
def test_a_failed_call_ends_the_process_and_nothing_was_confirmed_by_it(
    tmp_path: Path, library: Path, call: str
) -> None:
    """A node alone: each confirm hangs on this disk, so a wrong one is a lost message."""
    cluster = Cluster(tmp_path, nodes=1)
    (node,) = cluster.nodes
    disk = FailingDisk(tmp_path, library, call)
    start_with(cluster, node, disk)
    try:
        cluster.wait_ready()
        with Publisher(cluster.url, "work") as publisher:
            publisher.wait_more(50)
            disk.fail()
            assert_ended_by(disk, node, call)
            start_with(cluster, node, None)
            cluster.wait_ready()
            publisher.wait_more(50)
        assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)
    finally:
        cluster.stop()


def test_the_other_nodes_go_on_and_the_node_comes_back(tmp_path: Path, library: Path) -> None:
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        with Publisher(cluster.url, "work") as publisher:
            publisher.wait_more(50)
            node = cluster.leader_of_queue("work")
            disk = FailingDisk(tmp_path, library, "sync")
            cluster.terminate(node)
            start_with(cluster, node, disk)
            cluster.wait_ready()
            publisher.wait_more(50)
            disk.fail()
            assert_ended_by(disk, node, "sync")
            publisher.wait_more(50)
            start_with(cluster, node, None)
            cluster.wait_ready()
            publisher.wait_more(50)
        cluster.wait_level()
        assert_each_once(receive(cluster.url, "work", publisher.confirmed), publisher.confirmed)
