"""`raftmq demo` shows what it says, and its exit code is worth something."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli.demo import Pauses
from tests.cluster import python_environment

TASKS = 300

pytestmark = pytest.mark.slow


def test_nothing_is_lost_and_nothing_runs_twice(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", "demo", "--tasks", str(TASKS)],
        cwd=tmp_path,
        env=python_environment(),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    table = dict(re.findall(r"^(\S.*?)  +(\S+)$", done.stdout, re.MULTILINE))
    assert table["sent and confirmed"] == str(TASKS)
    assert table["executed"] == str(TASKS)
    assert table["lost"] == table["executed twice"] == "0"
    assert int(table["longest pause of confirmed publishes, ms"]) > 0
    assert re.search(r"^n\d rejoined and caught up +yes$", done.stdout, re.MULTILINE)
    assert "kill -9" in done.stdout


def test_the_longest_pause_is_between_two_confirms() -> None:
    pauses = Pauses()
    for now_s in (10.0, 10.5, 13.5, 13.6):
        pauses.confirmed(now_s)
    assert (pauses.count, pauses.longest_s) == (4, 3.0)
    pauses.begin(20.0)  # the first task of a worker was waited for
    pauses.confirmed(20.5)
    assert (pauses.count, pauses.longest_s) == (5, 3.0)
