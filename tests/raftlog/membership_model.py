"""A second implementation of membership changes and of what decides, written from the thesis.

Slow and plain: it gives each node its place now and its place then, and counts by trying out.
"""

from __future__ import annotations

from itertools import chain, combinations

from raftlog.membership import Change, StepKind, Transition
from raftlog.messages import Membership


def quorums(membership: Membership) -> list[set[int]]:
    """All sets of nodes that can decide something."""
    everybody = sorted({*membership.voters, *membership.outgoing})
    subsets = chain.from_iterable(combinations(everybody, n) for n in range(len(everybody) + 1))
    return [
        set(subset)
        for subset in subsets
        if all(
            2 * len(set(subset) & set(half)) > len(half)
            for half in (membership.voters, membership.outgoing)
            if half
        )
    ]


def model(current: Membership, change: Change) -> Membership | None:
    """One node at a time, each with its place now and its place then; None: refused."""
    joint = bool(current.outgoing)
    if joint != (not change.steps):
        return None
    place = dict.fromkeys(current.learners, "learner") | dict.fromkeys(current.voters, "voter")
    if not change.steps:
        place |= dict.fromkeys(current.learners_next, "learner")
        outgoing: tuple[int, ...] = ()
        enters = False
    else:
        enters = len(change.steps) > 1 or change.transition is not Transition.AUTO
        outgoing = current.voters if enters else ()
        for step in change.steps:
            place.pop(step.node, None)
            if step.kind is not StepKind.REMOVE:
                place[step.node] = "voter" if step.kind is StepKind.ADD_VOTER else "learner"
    pick = {
        kind: {node for node, its in place.items() if its == kind} for kind in ("voter", "learner")
    }
    if not pick["voter"]:
        return None
    return Membership(
        voters=tuple(sorted(pick["voter"])),
        outgoing=outgoing,
        learners=tuple(sorted(pick["learner"] - set(outgoing))),
        learners_next=tuple(sorted(pick["learner"] & set(outgoing))),
        auto_leave=enters and change.transition is not Transition.JOINT_EXPLICIT,
    )
