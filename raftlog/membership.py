"""Changes of a group's membership, as a pure function from one membership to the next.

    one majority --simple change of at most one voter--------------> one majority
    one majority --joint change--> two majorities --empty change---> one majority

A change of one voter keeps any two majorities overlapping, so it needs no joint phase
(thesis §4.1); all others go through one (§4.3). While it lasts every decision needs a
majority of the new voters and one of the old.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from raftlog.errors import ChangeInvalid, assert_never
from raftlog.messages import Membership


class StepKind(IntEnum):
    """What a step of a change does to one node."""

    ADD_VOTER = 0  #: a learner is promoted
    ADD_LEARNER = 1  #: a voter is demoted
    REMOVE = 2


class Transition(IntEnum):
    """How a change is made."""

    AUTO = 0  #: simple when it is one step, otherwise joint and left by the leader itself
    JOINT_AUTO = 1  #: joint, and left by the leader itself
    JOINT_EXPLICIT = 2  #: joint until somebody proposes an empty change


class Step(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One node's part in a change."""

    kind: StepKind
    node: int


class Change(msgspec.Struct, frozen=True, array_like=True):
    """A proposed change: the data of an entry of kind CHANGE.

    Without steps it ends a joint phase. `context` is the proposer's own and comes back.
    """

    steps: tuple[Step, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Change)


def encode_change(change: Change) -> bytes:
    """The data of the entry that carries this change."""
    return _encoder.encode(change)


def decode_change(data: bytes) -> Change:
    """The change an entry carries. Raise `ChangeInvalid` when it is none."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ChangeInvalid(f"not a membership change: {error}") from error


def is_joint(membership: Membership) -> bool:
    """Whether two majorities are needed."""
    return bool(membership.outgoing)


def is_voter(membership: Membership, node: int) -> bool:
    """Whether the node's vote counts, in either majority."""
    return node in membership.voters or node in membership.outgoing


def members(membership: Membership) -> tuple[int, ...]:
    """Everybody to whom the log is replicated, sorted."""
    return tuple(sorted({*membership.voters, *membership.outgoing, *membership.learners}))


def next_membership(current: Membership, change: Change) -> Membership:
    """The membership after this change. Raise `ChangeInvalid` when it cannot be made now."""
    if not change.steps:
        return _leave_joint(current)
    if is_joint(current):
        raise ChangeInvalid("a joint phase runs; only its end can be proposed")
    if change.transition is Transition.AUTO and len(change.steps) == 1:
        return _simple(current, change)
    return _enter_joint(current, change)


def validate(membership: Membership) -> None:
    """Raise `ChangeInvalid` when the membership contradicts itself."""
    voters, outgoing = set(membership.voters), set(membership.outgoing)
    learners, later = set(membership.learners), set(membership.learners_next)
    if not voters:
        raise ChangeInvalid("a group needs a voter")
    if (voters | outgoing) & learners:
        raise ChangeInvalid("a node is a learner and a voter")
    if not later <= outgoing or later & voters:
        raise ChangeInvalid("a learner to be must be a voter who goes")
    if membership.auto_leave and not outgoing:
        raise ChangeInvalid("there is no joint phase to leave")
    if min(voters | outgoing | learners) <= 0:
        raise ChangeInvalid("a node's id is a positive number")


def _simple(current: Membership, change: Change) -> Membership:
    after = _take_steps(current, change.steps)
    assert len(set(current.voters) ^ set(after.voters)) <= 1
    return after


def _enter_joint(current: Membership, change: Change) -> Membership:
    start = msgspec.structs.replace(current, outgoing=current.voters)
    after = _take_steps(start, change.steps)
    return msgspec.structs.replace(
        after, auto_leave=change.transition is not Transition.JOINT_EXPLICIT
    )


def _leave_joint(current: Membership) -> Membership:
    if not is_joint(current):
        raise ChangeInvalid("there is no joint phase to leave")
    learners = tuple(sorted({*current.learners, *current.learners_next}))
    after = Membership(voters=current.voters, learners=learners)
    validate(after)
    return after


def _take_steps(current: Membership, steps: tuple[Step, ...]) -> Membership:
    voters, learners = set(current.voters), set(current.learners)
    later = set(current.learners_next)
    outgoing = set(current.outgoing)
    for step in steps:
        node = step.node
        voters.discard(node)
        learners.discard(node)
        later.discard(node)
        match step.kind:
            case StepKind.ADD_VOTER:
                voters.add(node)
            case StepKind.ADD_LEARNER:
                # Who still votes in the old majority cannot be a learner before it ends.
                (later if node in outgoing else learners).add(node)
            case StepKind.REMOVE:
                pass
            case _:
                assert_never(step.kind)
    after = Membership(
        voters=tuple(sorted(voters)),
        outgoing=current.outgoing,
        learners=tuple(sorted(learners)),
        learners_next=tuple(sorted(later)),
    )
    validate(after)
    return after
