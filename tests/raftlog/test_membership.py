"""Membership changes against a second implementation, and what makes them safe."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftlog.errors import ChangeInvalid
from raftlog.membership import (
    Change,
    Step,
    StepKind,
    Transition,
    decode_change,
    encode_change,
    members,
    next_membership,
    validate,
)
from raftlog.messages import Membership
from tests.raftlog.membership_model import model, quorums

NODES = st.integers(1, 6)
STEPS = st.lists(st.builds(Step, st.sampled_from(StepKind), NODES), min_size=1, max_size=4)
CHANGES = st.one_of(
    st.just(Change()),
    st.builds(Change, STEPS.map(tuple), st.sampled_from(Transition), st.binary(max_size=3)),
)


@given(st.sets(NODES, min_size=1, max_size=4), st.lists(CHANGES, max_size=8))
def test_changes_are_those_of_the_model_and_keep_majorities_overlapping(
    voters: set[int], changes: list[Change]
) -> None:
    current = Membership(voters=tuple(sorted(voters)))
    for change in changes:
        expected = model(current, change)
        if expected is None:
            with pytest.raises(ChangeInvalid):
                next_membership(current, change)
            continue
        after = next_membership(current, change)
        assert after == expected
        validate(after)
        for before_quorum in quorums(current):
            assert all(before_quorum & after_quorum for after_quorum in quorums(after))
        assert set(members(after)) >= {*after.voters, *after.outgoing, *after.learners_next}
        current = after


@given(CHANGES)
def test_a_change_survives_its_encoding(change: Change) -> None:
    assert decode_change(encode_change(change)) == change


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x91\x01", b"\x93\x91\x92\x07\x01\x00\xc4\x00"])
def test_other_bytes_are_no_change(data: bytes) -> None:
    with pytest.raises(ChangeInvalid):
        decode_change(data)


@pytest.mark.parametrize(
    "membership",
    [
        Membership(),
        Membership(voters=(1,), learners=(1,)),
        Membership(voters=(1,), outgoing=(2,), learners=(2,)),
        Membership(voters=(1,), learners_next=(2,)),
        Membership(voters=(1, 2), outgoing=(1, 2), learners_next=(2,)),
        Membership(voters=(1,), auto_leave=True),
        Membership(voters=(0,)),
    ],
)
def test_contradictions_are_found(membership: Membership) -> None:
    with pytest.raises(ChangeInvalid):
        validate(membership)
