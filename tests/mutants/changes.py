"""Bugs of membership changes."""

from __future__ import annotations

import pytest

from raftlog import leader, membership, quorum, raft
from raftlog.leader import Leader
from raftlog.raft import Raft
from tests.mutants.edit import edit, edit_everywhere
from tests.mutants.judges import GROUP
from tests.mutants.mutant import mutant


@mutant(GROUP)
def joint_commit_by_the_new_voters_alone(patch: pytest.MonkeyPatch) -> None:
    """In a joint phase the old majority is not asked to commit (thesis 4.3)."""
    edit_everywhere(
        patch,
        "joint_index",
        "min(index, majority_index(outgoing, acked)) if outgoing else index",
        "index",
        quorum,
        leader,
    )


@mutant(GROUP)
def joint_votes_of_the_new_voters_alone(patch: pytest.MonkeyPatch) -> None:
    """In a joint phase the old majority is not asked for votes (thesis 4.3)."""
    edit_everywhere(
        patch,
        "joint_vote",
        "(majority_vote(voters, votes), majority_vote(outgoing, votes))",
        "(majority_vote(voters, votes),)",
        quorum,
        leader,
        raft,
    )


@mutant(GROUP)
def learner_counted_in_the_quorum(patch: pytest.MonkeyPatch) -> None:
    """A learner's acknowledgement helps to commit."""
    edit(
        patch,
        Leader,
        "commit",
        "joint_index(membership.voters, membership.outgoing, acked)",
        "joint_index((*membership.voters, *membership.learners), membership.outgoing, acked)",
    )


@mutant(GROUP)
def several_voters_changed_at_once(patch: pytest.MonkeyPatch) -> None:
    """Two voters change without a joint phase: majorities that do not meet (thesis 4.1)."""
    edit(
        patch,
        membership,
        "next_membership",
        "change.transition is Transition.AUTO and len(change.steps) == 1",
        "change.transition is Transition.AUTO",
    )
    edit(
        patch,
        membership,
        "_simple",
        "assert len(set(current.voters) ^ set(after.voters)) <= 1",
        "pass",
    )
    patch.setattr(leader, "next_membership", membership.next_membership)
    patch.setattr(raft, "next_membership", membership.next_membership)


@mutant(GROUP)
def change_while_another_is_not_applied(patch: pytest.MonkeyPatch) -> None:
    """A change is proposed while one is on its way: two steps, majorities that do not meet."""
    edit(patch, Leader, "propose_change", "self.pending_change > self._raft.log.applied", "False")


@mutant(GROUP)
def new_leader_forgets_a_pending_change(patch: pytest.MonkeyPatch) -> None:
    """A new leader takes a change at once, though it inherits one that is not applied."""
    edit(patch, Leader, "__init__", "self.pending_change = log.last", "self.pending_change = 0")


@mutant(GROUP)
def change_in_force_when_appended(patch: pytest.MonkeyPatch) -> None:
    """A leader counts by a new membership from its proposal on, the others when it is applied."""
    append = "self.pending_change = self.append(EntryKind.CHANGE, encode_change(change))"
    after = "next_membership(self._raft.membership, change)"
    now = f"{append}; self._raft.membership = {after}; self.reconfigure()"
    edit(patch, Leader, "propose_change", append, now)
    applied = "next_membership(self.membership, change)"
    done = "self.membership if self.leading and self.leading.pending_change else"
    edit(patch, Raft, "apply_change", applied, f"{done} {applied}")


@mutant(GROUP)
def learner_to_be_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A learner to be is forgotten when the joint phase ends."""
    edit(
        patch,
        membership,
        "_leave_joint",
        "{*current.learners, *current.learners_next}",
        "{*current.learners}",
    )
    patch.setattr(leader, "next_membership", membership.next_membership)
    patch.setattr(raft, "next_membership", membership.next_membership)
