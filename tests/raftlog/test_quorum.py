"""The arithmetic of majorities against its definition, by trying everything."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog.quorum import (
    INDEX_MAX,
    VoteResult,
    joint_index,
    joint_vote,
    majority_index,
    majority_vote,
)

VOTERS = st.lists(st.integers(1, 9), unique=True, max_size=7)
ACKED = st.dictionaries(st.integers(1, 9), st.integers(0, 12))
VOTES = st.dictionaries(st.integers(1, 9), st.booleans())


def has_majority(voters: list[int], agreeing: set[int]) -> bool:
    return not voters or 2 * len(agreeing & set(voters)) > len(voters)


@given(VOTERS, VOTERS, ACKED)
def test_an_index_is_agreed_when_both_majorities_have_it(
    voters: list[int], outgoing: list[int], acked: dict[int, int]
) -> None:
    def agreed(index: int) -> bool:
        have = {voter for voter in {*voters, *outgoing} if acked.get(voter, 0) >= index}
        return has_majority(voters, have) and has_majority(outgoing, have)

    index = joint_index(voters, outgoing, acked)
    if index == INDEX_MAX:
        assert not voters and not outgoing
    else:
        assert agreed(index)
        assert not agreed(index + 1)


@given(VOTERS, VOTERS, VOTES)
def test_a_vote_is_decided_when_no_answer_can_change_it(
    voters: list[int], outgoing: list[int], votes: dict[int, bool]
) -> None:
    silent = sorted({*voters, *outgoing} - votes.keys())
    outcomes = set()
    for answers in product((True, False), repeat=len(silent)):
        final = votes | dict(zip(silent, answers, strict=True))
        granted = {voter for voter, vote in final.items() if vote}
        outcomes.add(has_majority(voters, granted) and has_majority(outgoing, granted))
    expected = {
        frozenset({True}): VoteResult.WON,
        frozenset({False}): VoteResult.LOST,
    }.get(frozenset(outcomes), VoteResult.PENDING)
    result = joint_vote(voters, outgoing, votes)
    if {*voters} == {*outgoing} or not voters or not outgoing:
        assert result is expected
    elif result is not VoteResult.PENDING:
        # Two halves that can only be won by different voters are looked at one by one: the
        # answer may come later than it could, but never wrong.
        assert result is expected


@pytest.mark.parametrize(
    ("voters", "acked", "index"),
    [
        ([], {}, INDEX_MAX),
        ([1], {1: 5}, 5),
        ([1, 2], {1: 5, 2: 3}, 3),
        ([1, 2, 3], {1: 5, 2: 3}, 3),
        ([1, 2, 3, 4], {1: 5, 2: 4, 3: 3, 4: 9}, 4),
        ([1, 2, 3, 4, 5], {1: 5, 2: 4, 3: 3}, 3),
    ],
)
def test_majority_index(voters: list[int], acked: dict[int, int], index: int) -> None:
    assert majority_index(voters, acked) == index


def test_votes_of_strangers_do_not_count() -> None:
    assert majority_vote([1, 2, 3], {1: True, 8: True, 9: True}) is VoteResult.PENDING
    assert majority_vote([1, 2, 3], {2: False, 8: True, 3: False}) is VoteResult.LOST
