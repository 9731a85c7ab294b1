"""What is left of a log that was dropped: a vote as careful as before."""

from __future__ import annotations

import pytest

from raftlog.config import Config
from raftlog.messages import (
    Entry,
    HardState,
    HeartbeatRequest,
    Membership,
    PreVoteReply,
    PreVoteRequest,
    StaleTerm,
    VoteReply,
    VoteRequest,
)
from raftlog.node import RawNode
from raftlog.ready import Role
from raftlog.storage import MemoryStorage

DROPPED = HardState(term=5, vote=2, commit=7).after_drop(5, 9)


def made_anew() -> tuple[RawNode, MemoryStorage]:
    """Replica 3 after it has dropped a log that ended with entry 9 of term 5."""
    storage = MemoryStorage(Membership())
    storage.set_hard_state(DROPPED)
    return RawNode(Config(id=3), storage), storage


def test_a_dropped_log_leaves_its_end_and_a_term_of_its_own() -> None:
    """Acknowledgements of term 5 may be on their way, and are not those of the next replica."""
    assert HardState(6, 0, 0, 5, 9) == DROPPED


def test_a_leader_of_the_term_that_was_dropped_in_is_told_so() -> None:
    node, _ = made_anew()
    node.step(HeartbeatRequest(1, 3, 5, 7, 0))
    (reply,) = node.ready().messages
    assert reply == StaleTerm(3, 1, 6)


def test_the_end_of_a_shorter_log_dropped_later_does_not_lower_the_floor() -> None:
    assert DROPPED.after_drop(4, 20) == HardState(7, 0, 0, 5, 9)
    assert DROPPED.after_drop(6, 1) == HardState(7, 0, 0, 6, 1)


@pytest.mark.parametrize(
    ("term", "index", "granted"), [(5, 8, False), (4, 100, False), (5, 9, True), (6, 1, True)]
)
def test_a_replica_made_anew_votes_as_the_one_before(term: int, index: int, granted: bool) -> None:
    node, _ = made_anew()
    node.step(PreVoteRequest(1, 3, 7, index, term))
    ready = node.ready()
    (reply,) = ready.messages
    assert isinstance(reply, PreVoteReply)
    assert reply.granted is granted
    node.advance(ready)
    node.step(VoteRequest(1, 3, 7, index, term))
    (answer,) = node.ready().messages_after
    assert isinstance(answer, VoteReply)
    assert answer.granted is granted


def test_the_floor_outlives_the_writes_of_later_terms() -> None:
    node, _ = made_anew()
    node.step(VoteRequest(1, 3, 8, 9, 5))
    hard_state = node.ready().hard_state
    assert hard_state is not None
    assert (hard_state.term, hard_state.vote) == (8, 1)
    assert (hard_state.floor_term, hard_state.floor_index) == (5, 9)


def test_a_log_above_the_floor_counts_by_itself() -> None:
    _, storage = made_anew()
    storage.set_membership(Membership(voters=(1, 2, 3)))
    storage.append([Entry(index, 6, 0, b"") for index in range(1, 12)])
    node = RawNode(Config(id=3), storage)
    node.step(PreVoteRequest(1, 3, 7, 10, 6))
    (reply,) = node.ready().messages
    assert isinstance(reply, PreVoteReply)
    assert not reply.granted


def test_a_replica_made_anew_does_not_stand_with_a_log_that_it_would_not_vote_for() -> None:
    """An old snapshot may call it a voter again, and another voter may lack as much."""
    log = [Entry(index, 5, 0, b"") for index in range(1, 9)]
    storage, other = MemoryStorage(Membership()), MemoryStorage(Membership(voters=(1, 2, 3)))
    storage.set_hard_state(DROPPED)
    storage.set_membership(Membership(voters=(1, 2, 3)))
    for each in (storage, other):
        each.append(log)
    node, voter = RawNode(Config(id=3), storage), RawNode(Config(id=2), other)
    _campaign(node, voter)
    assert node.role is not Role.LEADER
    assert node.term == DROPPED.term
    storage.append([Entry(9, 5, 0, b"")])
    node = RawNode(Config(id=3), storage)
    _campaign(node, voter)
    assert node.role is Role.LEADER


def _campaign(node: RawNode, voter: RawNode) -> None:
    """One round of pre-votes and one of votes between these two."""
    node.campaign()
    for _ in range(2):
        for sender, receiver in ((node, voter), (voter, node)):
            while sender.has_ready():
                ready = sender.ready()
                sender.advance(ready)
                for message in (*ready.messages, *ready.messages_after):
                    receiver.step(message)
