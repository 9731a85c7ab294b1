"""What mutants are shown to, from the cheapest to the dearest."""

from __future__ import annotations

import contextlib
import io

import pytest

from tests.mutants.mutant import Judge
from tests.raftlog import network
from tests.simulation import scenario
from tests.simulation.levels import LEVELS
from tests.simulation.violation import Violation

CALLS = 4000
"""Steps of a group, each of one node, before it is healed."""

CHAOS_MS = 12_000.0


STEP_TESTS = ("scripts", "steps", "floor")


class _First:
    """A plugin that remembers which test failed first."""

    def __init__(self) -> None:
        self.failed = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _run_tests(*paths: str) -> None:
    first = _First()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["-q", "-x", "-p", "no:cacheprovider", *paths], [first])
    if code:
        raise Violation(first.failed or f"pytest, exit code {code}", said.getvalue())


STEPS = Judge(
    "steps",
    lambda seed: _run_tests(*(f"tests/raftlog/test_{name}.py" for name in STEP_TESTS)),
    seeds=1,
)
"""The golden scripts and the single steps, for what a group of such nodes cannot show, or shows
to one seed of many thousands."""

MACHINES = Judge(
    "machines", lambda seed: _run_tests("tests/broker/machines/test_scripts.py"), seeds=1
)
"""The machines' golden scripts and properties, for what the broker around them never lets in."""

STORE = Judge("store", lambda seed: _run_tests("tests/raftlog/test_lmdb_store.py"), seeds=1)
"""The store's own tests, in which what is on disk gets damaged."""

GROUP = Judge("group", lambda seed: network.run(seed, CALLS), seeds=2000)
"""One Raft group in a bad network, some 100 ms a seed."""

RAFT = Judge("raft", lambda seed: LEVELS["raft"].run(seed), seeds=300)
"""One Raft group in virtual time, in place of GROUP when asked for: who is caught there too?"""

CLUSTER = Judge("cluster", lambda seed: scenario.run(seed, CHAOS_MS), seeds=100)
"""The whole cluster with its clients, some seconds a seed."""
