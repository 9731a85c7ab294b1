"""Majorities and changes of small groups against a second implementation: all there are.

The second implementation knows no arithmetic: it goes over all sets of nodes and looks which of
them decide.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, combinations, product

import pytest

from raftlog.errors import ChangeInvalid
from raftlog.membership import (
    Change,
    Step,
    StepKind,
    Transition,
    is_joint,
    is_voter,
    members,
    next_membership,
    validate,
)
from raftlog.messages import Membership
from raftlog.quorum import INDEX_MAX, VoteResult, joint_index, joint_vote
from tests.raftlog.membership_model import model, quorums

NODES = (1, 2, 3, 4, 5)
STEPS = [Step(kind, node) for kind in StepKind for node in (1, 2, 3, 4)]


def subsets(nodes: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return chain.from_iterable(combinations(nodes, n) for n in range(len(nodes) + 1))


HALVES = list(subsets(NODES))
PAIRS = [Membership(voters=v, outgoing=o) for v in HALVES if v for o in HALVES]


@pytest.mark.parametrize("size", range(1, 6))
def test_every_commit_index_of_every_pair_of_majorities(size: int) -> None:
    """All pairs of halves of five nodes, all that they may have acknowledged of 0 to 2."""
    for membership in (pair for pair in PAIRS if len(pair.voters) == size):
        everybody = sorted({*membership.voters, *membership.outgoing})
        deciding = quorums(membership)
        for indexes in product(range(3), repeat=len(everybody)):
            acked = dict(zip(everybody, indexes, strict=True))
            expected = max(min(acked[node] for node in quorum) for quorum in deciding)
            assert joint_index(membership.voters, membership.outgoing, acked) == expected


@pytest.mark.parametrize("size", range(1, 6))
def test_every_election_of_every_pair_of_majorities(size: int) -> None:
    """All pairs of halves, and each node has granted, refused or not answered."""
    for membership in (pair for pair in PAIRS if len(pair.voters) == size):
        everybody = sorted({*membership.voters, *membership.outgoing})
        deciding = quorums(membership)
        for answers in product((True, False, None), repeat=len(everybody)):
            votes = {n: a for n, a in zip(everybody, answers, strict=True) if a is not None}
            result = joint_vote(membership.voters, membership.outgoing, votes)
            granted = {node for node, vote in votes.items() if vote}
            possible = granted | (set(everybody) - votes.keys())
            won = any(quorum <= granted for quorum in deciding)
            assert (result is VoteResult.WON) == won
            # A quorum that is still possible is one of each half: then, and only then, pending.
            open_still = any(quorum <= possible for quorum in deciding)
            assert (result is VoteResult.LOST) == (not open_still)


def test_nobody_agrees_to_everything() -> None:
    assert joint_index((), (), {}) == INDEX_MAX
    assert joint_vote((), (), {}) is VoteResult.WON


def test_every_change_of_every_membership_of_four_nodes() -> None:
    """All memberships that can be reached, all changes of one or two steps, and leaving."""
    changes = [Change()]
    for steps in chain(product(STEPS, repeat=1), product(STEPS, repeat=2)):
        changes += [Change(steps, transition) for transition in Transition]
    first = [Membership(voters=half) for half in subsets((1, 2, 3, 4)) if half]
    seen, waiting = set(map(repr, first)), first
    met: set[tuple[Membership, Membership]] = set()
    refused = made = 0
    while waiting:
        current = waiting.pop()
        before = quorums(current)
        for change in changes:
            expected = model(current, change)
            if expected is None:
                with pytest.raises(ChangeInvalid):
                    next_membership(current, change)
                refused += 1
                continue
            after = next_membership(current, change)
            assert after == expected
            made += 1
            if repr(after) not in seen:
                seen.add(repr(after))
                waiting.append(after)
                validate(after)
                _is_described(after)
            if (current, after) not in met:
                met.add((current, after))
                assert all(one & other for one in before for other in quorums(after))
    assert len(seen) > 500 and made > 20_000 and refused > 20_000


def _is_described(membership: Membership) -> None:
    everybody = set(members(membership))
    assert everybody == {*membership.voters, *membership.outgoing, *membership.learners}
    deciding = set().union(*quorums(membership))
    assert deciding == {node for node in NODES if is_voter(membership, node)}
    assert is_joint(membership) == bool(membership.outgoing)
