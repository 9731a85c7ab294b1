"""The steps from one set of nodes to another: what comes first, and that it always arrives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.placement import HandOver, Move, Target, Wait, majority, next_move
from raftlog.membership import Change, Step, StepKind, is_joint, members, next_membership
from raftlog.messages import Membership

THREE = Membership(voters=(1, 2, 3))
ALL = frozenset(range(1, 10))


def move(
    membership: Membership,
    *voters: int,
    learners: tuple[int, ...] = (),
    leader: int = 1,
    level: frozenset[int] = ALL,
    live: frozenset[int] = ALL,
) -> Move:
    return next_move(membership, Target(voters, learners), leader=leader, level=level, live=live)


def change(*steps: tuple[StepKind, int]) -> Change:
    return Change(tuple(Step(kind, node) for kind, node in steps))


def test_nothing_is_to_be_done_where_all_is_as_wanted() -> None:
    assert move(THREE, 3, 1, 2) is None


def test_who_is_missing_learns_first_one_after_the_other() -> None:
    assert move(THREE, 1, 2, 3, 5, 4) == change((StepKind.ADD_LEARNER, 4))
    with_one = Membership(voters=(1, 2, 3), learners=(4,))
    assert move(with_one, 1, 2, 3, 5, 4) == change((StepKind.ADD_LEARNER, 5))


def test_a_replica_that_has_not_caught_up_is_waited_for() -> None:
    learning = Membership(voters=(1, 2, 3), learners=(4,))
    assert move(learning, 1, 2, 4, level=ALL - {4}) == Wait("a new replica catches up", (4,))


def test_in_and_out_are_one_joint_change() -> None:
    learning = Membership(voters=(1, 2, 3), learners=(4,))
    assert move(learning, 1, 2, 4) == change((StepKind.ADD_VOTER, 4), (StepKind.REMOVE, 3))


def test_a_joint_phase_ends_by_itself() -> None:
    assert isinstance(move(Membership((1, 2, 4), (1, 2, 3), auto_leave=True), 1, 2), Wait)


def test_a_leader_that_goes_hands_over_first_to_the_preferred_one() -> None:
    assert move(THREE, 3, 2) == HandOver(3)
    assert move(THREE, 3, 2, level=ALL - {3}) == HandOver(2)
    assert move(THREE, 3, 2, live=ALL - {3}) == HandOver(2)
    assert isinstance(move(THREE, 3, 2, level=frozenset({1})), Wait)


def test_a_leader_that_nobody_else_can_follow_lets_the_others_in_first() -> None:
    alone = Membership(voters=(1,), learners=(2,))
    assert move(alone, 2) == change((StepKind.ADD_VOTER, 2))


def test_a_learner_that_nobody_wants_goes() -> None:
    assert move(Membership((1, 2, 3), learners=(4,)), 1, 2, 3) == change((StepKind.REMOVE, 4))


def test_a_learner_that_is_to_stay_one_stays() -> None:
    assert move(Membership((1, 2, 3), learners=(4,)), 1, 2, 3, learners=(4,)) is None


def test_a_majority_of_those_who_would_vote_must_be_heard() -> None:
    assert move(THREE, 1, 2, live=frozenset({1, 3})) == Wait(
        "too few of those who would vote are heard", (2,)
    )
    assert move(THREE, 1, 2, live=frozenset({1, 2})) == change((StepKind.REMOVE, 3))


NODES = st.sets(st.integers(1, 7), min_size=1, max_size=5).map(sorted).map(tuple)


@given(before=NODES, after=NODES, learners=st.sets(st.integers(1, 7), max_size=2), data=st.data())
def test_every_way_arrives_and_never_without_a_living_majority(
    before: tuple[int, ...], after: tuple[int, ...], learners: set[int], data: st.DataObject
) -> None:
    """Whoever leads on the way, and whoever is heard: the steps are valid, and they end."""
    target = Target(after, tuple(sorted(learners - set(after))))
    membership, leader = Membership(voters=before), before[0]
    for _ in range(40):
        if is_joint(membership):
            membership = next_membership(membership, Change())
            continue
        live = ALL - data.draw(st.sets(st.integers(1, 7), max_size=1)) | {leader}
        step = next_move(membership, target, leader=leader, level=ALL, live=live)
        match step:
            case None:
                assert set(membership.voters) == set(target.voters)
                assert set(membership.learners) == set(target.learners)
                return
            case HandOver(to=to):
                assert to in membership.voters
                assert to in after
                leader = to
            case Change():
                membership = next_membership(membership, step)
                voters = set(membership.voters)
                if any(each.kind is not StepKind.ADD_LEARNER for each in step.steps):
                    removed_learner = set(members(membership)) and voters == set(before)
                    heard = len(voters & live) >= majority(len(voters))
                    assert heard or removed_learner
                assert leader in members(membership), "a leader never removes itself"
            case Wait():
                pass
    raise AssertionError(f"{before} never became {target}: {membership}")
