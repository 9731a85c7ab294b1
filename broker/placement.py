"""How a group gets from the nodes that keep it to those that should, one safe step at a time.

    learner first   whoever is missing gets the log, and no vote
    swap            once all of them have it: in with them and out with the old, jointly
    hand over       a leader that is to go first gives the leadership to one that stays

Pure: the leader's own view goes in, what it should do next comes out. Each step is one change
of Raft's, so a new leader that looks at the same group goes on where the old one stopped.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple, TypeAlias

from raftlog.membership import Change, Step, StepKind, is_joint, members
from raftlog.messages import Membership


class Target(NamedTuple):
    """Who should keep a group, by Raft ids."""

    voters: tuple[int, ...]  #: first the one that is to lead it
    learners: tuple[int, ...] = ()


class HandOver(NamedTuple):
    """Give the leadership to this voter."""

    to: int


class Wait(NamedTuple):
    """Nothing can be done now."""

    why: str
    for_nodes: tuple[int, ...] = ()  #: whose progress is waited for


Move: TypeAlias = Change | HandOver | Wait | None
"""None: the group is where it should be."""


def majority(count: int) -> int:
    """How many of so many voters decide."""
    return count // 2 + 1


def next_move(
    membership: Membership,
    target: Target,
    *,
    leader: int,
    level: Collection[int],
    live: Collection[int],
) -> Move:
    """What the leader of a group does next.

    level: the members that have nearly all of the log. live: those that were heard lately, the
    leader among them.
    """
    if is_joint(membership):
        return Wait("a joint phase ends")
    wanted = {*target.voters, *target.learners}
    there = members(membership)
    for node in membership.learners:
        if node not in wanted:
            return Change((Step(StepKind.REMOVE, node),))
    for node in sorted(wanted - set(there)):
        return Change((Step(StepKind.ADD_LEARNER, node),))
    voters = set(membership.voters)
    coming = sorted(set(target.voters) - voters)
    going = sorted(voters - set(target.voters))
    if not coming and not going:
        return None
    late = tuple(node for node in coming if node not in level)
    if late:
        return Wait("a new replica catches up", late)
    if leader in going:
        heir = _heir(target.voters, voters, level, live)
        if heir is not None:
            return HandOver(heir)
        if not coming:
            return Wait("no other voter has all of the log")
        going = []  # they come first, and then one of them leads
    after = (voters - set(going)) | set(coming)
    if len(after.intersection(live)) < majority(len(after)):
        silent = tuple(sorted(after.difference(live)))
        return Wait("too few of those who would vote are heard", silent)
    steps = [Step(StepKind.ADD_VOTER, node) for node in coming]
    steps += [Step(StepKind.REMOVE, node) for node in going]
    return Change(tuple(steps))


def _heir(
    wanted: Sequence[int], voters: set[int], level: Collection[int], live: Collection[int]
) -> int | None:
    """The voter that is to lead in place of one that goes."""
    return next((n for n in wanted if n in voters and n in level and n in live), None)
