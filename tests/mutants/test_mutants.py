"""Every mutant still fits the product, and the harness still catches: `make mutants` runs all."""

from __future__ import annotations

import pytest

from tests.mutants.catalogue import MUTANTS
from tests.mutants.edit import EditFailed, edit
from tests.mutants.judges import GROUP
from tests.mutants.mutant import Mutant, hunt
from tests.raftlog import network
from tests.raftlog.network import Network

CHEAP = [
    "vote_before_fsync",
    "votes_for_shorter_logs",
    "pre_vote_bumps_the_term",
    "check_quorum_stops_only_heartbeats",
    "append_reply_before_fsync",
    "read_without_round",
    "snapshot_without_membership",
    "learner_counted_in_the_quorum",
]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_fits_the_product(name: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        MUTANTS[name].apply(patch)


@pytest.mark.parametrize("name", CHEAP)
def test_a_mutant_is_caught(name: str) -> None:
    sentence = hunt(MUTANTS[name], seeds=100)
    assert sentence.checker, f"nobody noticed {MUTANTS[name].text}"


def test_a_mutant_that_breaks_nothing_survives() -> None:
    harmless = Mutant("harmless", "", "", lambda patch: None, GROUP, 1, 3)
    assert not hunt(harmless).checker


def test_an_edit_is_undone_and_wants_its_text_once() -> None:
    before = Network.step
    with pytest.MonkeyPatch.context() as patch:
        edit(patch, Network, "tick", "host.node.tick()", "pass")
        assert Network.step is before
        with pytest.raises(EditFailed):
            edit(patch, Network, "tick", "host.node.tick()", "pass")  # it is gone
        with pytest.raises(EditFailed):
            edit(patch, network, "run", "network", "pass")  # more than once
