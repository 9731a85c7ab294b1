"""Bugs of elections: pre-votes, votes, leases, and leaders without a majority."""

from __future__ import annotations

import pytest

from raftlog.leader import Leader
from raftlog.log import Log
from raftlog.node import RawNode
from raftlog.raft import Raft
from tests.mutants.edit import edit
from tests.mutants.judges import GROUP, STEPS
from tests.mutants.mutant import mutant


@mutant(GROUP)
def vote_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """A vote leaves before it is on disk (sofa-jraft#1241: two leaders after a crash)."""
    edit(
        patch,
        Raft,
        "_answer_vote",
        "self.messages_after.append(reply)",
        "self.messages.append(reply)",
    )


@mutant(GROUP)
def candidacy_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """A candidate asks for votes before its own term and vote are on disk (sofa-jraft#1241)."""
    edit(patch, Raft, "_stand", "self.messages_after.append", "self.messages.append")


@mutant(GROUP)
def vote_not_persisted(patch: pytest.MonkeyPatch) -> None:
    """The vote is not part of what is written: after a restart a node votes twice in a term."""
    edit(
        patch,
        RawNode,
        "_hard_state",
        "HardState(term, vote, commit, *raft.log.floor)",
        "HardState(term, 0, commit, *raft.log.floor)",
    )


@mutant(GROUP)
def votes_for_shorter_logs(patch: pytest.MonkeyPatch) -> None:
    """A voter does not compare logs: a leader without committed entries (thesis 3.6.1)."""
    edit(
        patch,
        Log,
        "is_up_to_date",
        "(last_term, last_index) >= max((self.last_term(), self.last), self.floor)",
        "True",
    )


@mutant(GROUP)
def votes_by_length_alone(patch: pytest.MonkeyPatch) -> None:
    """A voter compares the lengths of logs and not the terms of their ends."""
    edit(
        patch,
        Log,
        "is_up_to_date",
        "(last_term, last_index) >= max((self.last_term(), self.last), self.floor)",
        "last_index >= self.last",
    )


@mutant(STEPS)
def removed_node_votes_for_shorter_logs(patch: pytest.MonkeyPatch) -> None:
    """Who is removed votes for logs that reach its own applied index, for it counts no more.

    With a leader that does not know of the removal it still does; this one was our own.
    """
    complete = "self.log.is_up_to_date(request.last_index, request.last_term)"
    applied = "(self.log.term(self.log.applied), self.log.applied)"
    tolerant = (
        f"({complete} or (self.id not in (*self.membership.voters, *self.membership.outgoing)"
        " and self.log.snapshot is None and not self._has_change(self.log.last)"
        f" and (request.last_term, request.last_index) >= {applied}))"
    )
    edit(patch, Raft, "_answer_pre_vote", complete, tolerant)
    edit(patch, Raft, "_answer_vote", complete, tolerant)


@mutant(GROUP)
def pre_vote_bumps_the_term(patch: pytest.MonkeyPatch) -> None:
    """A question for pre-votes makes others take over its term (ra PR#608)."""
    edit(
        patch,
        Raft,
        "_meet_higher_term",
        "return not self._sticks_to_leader()",
        "self.become_follower(message.term, NOBODY)",
    )


@mutant(GROUP)
def pre_vote_resets_the_timer(patch: pytest.MonkeyPatch) -> None:
    """Answering a pre-vote restarts the election timer: who cannot win keeps others from it."""
    edit(
        patch,
        Raft,
        "_answer_pre_vote",
        "self.messages.append(reply)",
        "self.messages.append(reply); self.election_elapsed = 0",
    )


@mutant(GROUP)
def pre_candidate_keeps_its_leader(patch: pytest.MonkeyPatch) -> None:
    """Who asks for pre-votes still believes in its old leader, and refuses others (etcd#8334)."""
    edit(
        patch,
        Raft,
        "_begin",
        "self.leader = NOBODY",
        "self.leader = self.leader if role is Role.PRE_CANDIDATE else NOBODY",
    )


@mutant(GROUP)
def no_leader_stickiness(patch: pytest.MonkeyPatch) -> None:
    """Who hears a leader votes all the same: one broken link moves leadership to and fro."""
    patch.setattr(Raft, "_sticks_to_leader", lambda self: False)


@mutant(GROUP)
def check_quorum_skipped(patch: pytest.MonkeyPatch) -> None:
    """A leader that hears no majority goes on leading for ever (thesis 6.2)."""
    edit(patch, Leader, "_check_quorum", "return False", "return True")
    edit(patch, Leader, "_check_quorum", "raft.become_follower(raft.term, NOBODY)", "pass")


@mutant(GROUP)
def check_quorum_stops_only_heartbeats(patch: pytest.MonkeyPatch) -> None:
    """A leader without a majority stops its heartbeats but appends on (openraft#2080).

    A voter between it and the others sticks to it, and the others cannot do without that one.
    """
    edit(
        patch,
        Leader,
        "_check_quorum",
        "raft.become_follower(raft.term, NOBODY)",
        "self.heartbeat_elapsed = -1000000",
    )


@mutant(GROUP)
def campaign_with_an_unapplied_change(patch: pytest.MonkeyPatch) -> None:
    """A committed change is not applied, and its node stands by the old one (etcd#7280)."""
    edit(patch, Raft, "_may_stand", "not self._has_change(self.log.committed)", "True")


@mutant(GROUP)
def takes_over_a_commit_by_its_index_alone(patch: pytest.MonkeyPatch) -> None:
    """A commit that a refused vote tells of is believed for another entry of that index."""
    edit(
        patch,
        Raft,
        "_hear_refusal",
        "log.has(reply.commit_index, reply.commit_term)",
        "reply.commit_index <= log.last",
    )


@mutant(STEPS)
def dropped_log_forgotten(patch: pytest.MonkeyPatch) -> None:
    """A replica made anew under an old number votes as if it had never helped to commit."""
    edit(
        patch,
        Log,
        "is_up_to_date",
        "max((self.last_term(), self.last), self.floor)",
        "(self.last_term(), self.last)",
    )


@mutant(STEPS)
def stands_with_less_than_was_acknowledged(patch: pytest.MonkeyPatch) -> None:
    """A replica made anew stands by an old membership, with a log that it would not vote for."""
    edit(
        patch,
        Raft,
        "_may_stand",
        "and log.is_up_to_date(log.last, log.last_term())",
        "",
    )
