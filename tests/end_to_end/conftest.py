"""Clusters for the tests of this folder: a test's own to break, or a module's to share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    """Three nodes of the test's own, in service."""
    with Cluster(tmp_path) as cluster:
        cluster.wait_ready()
        yield cluster


@pytest.fixture(scope="module")
def calm_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes in service, for all tests of a module that leave them as they were."""
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.wait_ready()
        yield cluster
