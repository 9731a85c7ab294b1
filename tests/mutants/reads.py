"""Bugs of linearizable reads: each answers with what was true once."""

from __future__ import annotations

import pytest

from raftlog.leader import Leader
from raftlog.raft import Raft
from raftlog.reads import ReadRounds
from tests.mutants.edit import edit
from tests.mutants.judges import GROUP
from tests.mutants.mutant import mutant


@mutant(GROUP)
def read_context_reused(patch: pytest.MonkeyPatch) -> None:
    """A follower's reads share one name: an old answer is taken for a new one (etcd#20418)."""
    edit(patch, Raft, "read_index", "self._read_context += 1", "pass")


@mutant(GROUP)
def read_context_repeats_after_a_restart(patch: pytest.MonkeyPatch) -> None:
    """A follower numbers its reads from the same number in each of its lives (etcd#20418)."""
    edit(patch, Raft, "__init__", "self._chance.randrange(1 << 48) << 14", "0")


@mutant(GROUP)
def read_without_round(patch: pytest.MonkeyPatch) -> None:
    """A leader answers from its commit index without asking whether it still leads."""
    edit(
        patch,
        Leader,
        "answer_reads",
        "joint_index(membership.voters, membership.outgoing, acked)",
        "reads.round",
    )


@mutant(GROUP)
def read_confirmed_by_an_earlier_round(patch: pytest.MonkeyPatch) -> None:
    """A read is confirmed by answers to heartbeats that left before it was asked."""
    edit(patch, ReadRounds, "add", "self.round + 1", "self.round")


@mutant(GROUP)
def read_before_the_first_commit_of_the_term(patch: pytest.MonkeyPatch) -> None:
    """A new leader reads at a commit index of before its time (etcd#7331, tikv#6340)."""
    edit(patch, Leader, "read", "self.committed_in_term", "True")


@mutant(GROUP)
def postponed_reads_dropped(patch: pytest.MonkeyPatch) -> None:
    """Reads of before the first commit of a term are never answered (etcd#12762)."""
    edit(patch, ReadRounds, "resume", "self.add(requester, context, index)", "pass")


@mutant(GROUP)
def read_rounds_answered_by_learners(patch: pytest.MonkeyPatch) -> None:
    """A learner's answer counts for the majority that confirms a read."""
    edit(
        patch,
        Leader,
        "answer_reads",
        "joint_index(membership.voters, membership.outgoing, acked)",
        "joint_index((*membership.voters, *membership.learners), membership.outgoing, acked)",
    )
