"""The arithmetic of majorities, and of two majorities at once: plain values in and out.

An empty set of voters agrees to everything: so a joint configuration whose second half is
empty is an ordinary one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

INDEX_MAX = (1 << 63) - 1
"""Above every index of a log: what an empty majority has agreed to."""


class VoteResult(Enum):
    """How an election stands."""

    PENDING = "pending"
    LOST = "lost"
    WON = "won"


def majority_index(voters: Sequence[int], acked: Mapping[int, int]) -> int:
    """The highest index that a majority has acknowledged; who is missing acknowledged 0."""
    count = len(voters)
    if count == 0:
        return INDEX_MAX
    get = acked.get
    return sorted([get(voter, 0) for voter in voters])[(count - 1) >> 1]


def joint_index(voters: Sequence[int], outgoing: Sequence[int], acked: Mapping[int, int]) -> int:
    """The highest index that both majorities have acknowledged."""
    index = majority_index(voters, acked)
    return min(index, majority_index(outgoing, acked)) if outgoing else index


def majority_vote(voters: Sequence[int], votes: Mapping[int, bool]) -> VoteResult:
    """How a vote of one majority stands; who is missing has not answered."""
    count = len(voters)
    need = (count >> 1) + 1 if count else 0
    granted = sum(votes.get(voter, False) for voter in voters)
    if granted >= need:
        return VoteResult.WON
    refused = sum(not votes.get(voter, True) for voter in voters)
    return VoteResult.LOST if count - refused < need else VoteResult.PENDING


def joint_vote(
    voters: Sequence[int], outgoing: Sequence[int], votes: Mapping[int, bool]
) -> VoteResult:
    """Both majorities must be won; one that is lost loses it all."""
    results = (majority_vote(voters, votes), majority_vote(outgoing, votes))
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON
