"""Safety at every step and progress in the end, in bad networks from many seeds."""

from __future__ import annotations

import os

import pytest

from tests.raftlog.network import run

FIRST = int(os.environ.get("RAFT_SEED", "1"))
SEEDS = int(os.environ.get("RAFT_SEEDS", "60"))
STEPS = 4000


@pytest.mark.parametrize("seed", [100134, 100274, 100369, 101296, 200132, 200558])
def test_networks_that_once_failed(seed: int) -> None:
    run(seed, 6000, swarm=False)


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, 10))
def test_bad_networks(first: int) -> None:
    committed = answered = 0
    for seed in range(first, min(first + 10, FIRST + SEEDS)):
        network = run(seed, STEPS)
        committed += len(network.checker.committed)
        answered += network.answered
    # The troubles must leave something to check.
    assert committed > 300
    assert answered > 50
