"""Locust, headless and for a few seconds, against a real cluster."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import ROOT, Cluster, python_environment

LOCUSTFILE = Path(__file__).with_name("locustfile.py")
RUN_S = 5
LIMIT_S = RUN_S + 40


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        cluster.wait_ready()
        yield cluster


def run_locust(cluster: Cluster, *arguments: str) -> dict[str, dict[str, Any]]:
    """Locust's figures by the kind of event, of four users for `RUN_S` seconds."""
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)]
    command += ["--host", cluster.url, "--headless", "--json", "--loglevel", "WARNING"]
    command += ["--users", "4", "--spawn-rate", "4", "--run-time", f"{RUN_S}s", *arguments]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=python_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, f"locust ended with {done.returncode}:\n{done.stderr[-3000:]}"
    return {entry["method"]: entry for entry in json.loads(done.stdout)}


@pytest.mark.slow
@pytest.mark.parametrize("through", ["kombu", "client"])
def test_users_publish_and_receive_without_a_failure(cluster: Cluster, through: str) -> None:
    seen = run_locust(cluster, "--through", through, "--queue", f"load-{through}")
    assert set(seen) == {"publish", "consume"}
    for kind, entry in seen.items():
        assert entry["num_failures"] == 0, f"{kind}: {entry}"
        assert entry["num_requests"] > 0, f"{kind}: {entry}"
    # What is in flight when the users are stopped stays in the queue; nothing comes twice.
    assert seen["consume"]["num_requests"] <= seen["publish"]["num_requests"] + 4
