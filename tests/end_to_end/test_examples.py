"""Every example runs, on a real cluster, as its own text says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.celery_worker import Worker
from tests.cluster import ROOT, Cluster, eventually, python_environment

LIMIT_S = 30.0

pytestmark = pytest.mark.slow


def run(cluster: Cluster, *words: str) -> str:
    """What an example prints; it must end well."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        env=python_environment(RAFTMQ_URL=cluster.url),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_celery_app(calm_cluster: Cluster, tmp_path: Path) -> None:
    environment = {"RAFTMQ_URL": calm_cluster.url}
    application = "examples.celery_app.tasks"
    with Worker(
        calm_cluster.url, tmp_path, application=application, environment=environment
    ) as worker:
        worker.wait_ready()
        assert "11 tasks are on disk" in run(calm_cluster, "-m", "examples.celery_app.send", "10")
        eventually(lambda: "done after 2 retries" in worker.log(), 20, "the fragile task")
        eventually(
            lambda: len(re.findall(r"tasks\.add\[.* succeeded", worker.log())) == 10, 20, "the sums"
        )


def test_kombu_plain(calm_cluster: Cluster) -> None:
    assert "published 5 orders" in run(calm_cluster, "examples/kombu_plain/producer.py", "5")
    consumed = run(calm_cluster, "examples/kombu_plain/consumer.py")
    assert consumed.splitlines() == [*(f"order {n}" for n in range(5)), "no more orders"]


def test_client_api(calm_cluster: Cluster) -> None:
    printed = run(calm_cluster, "examples/client_api/orders.py")
    assert "refused: " in printed
    assert "handled them all; 0 are left" in printed
