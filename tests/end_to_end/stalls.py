"""Nodes whose disk stalls when a test says so: the process lives, its commit does not return."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cluster import Cluster, ClusterNode

SOURCE = Path(__file__).with_name("stalling_disk.c")


def stalling_cluster(directory: Path) -> Cluster:
    """Three nodes with such disks. Skips the test where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler to build the stalling disk with")
    library = directory / "stalling_disk.so"
    words = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"]
    subprocess.run(words, check=True, timeout=60)
    return Cluster(directory, settings={"LD_PRELOAD": str(library)})


def stall(node: ClusterNode) -> None:
    """From now on no write or sync of the node returns."""
    (node.directory / "stalled").touch()


def unstall(node: ClusterNode) -> None:
    """All that waited goes on."""
    (node.directory / "stalled").unlink()
