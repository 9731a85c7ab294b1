"""Bugs of the machines: replicas that differ, and what a checkpoint forgets."""

from __future__ import annotations

import pytest

from broker.machines import consumer, machine, queue, sessions
from broker.machines.lane import Lane
from broker.machines.machine import Machine
from broker.machines.queue import Queue
from broker.machines.registry import Registry
from broker.machines.sessions import Session
from tests.mutants.edit import edit
from tests.mutants.judges import CLUSTER, MACHINES
from tests.mutants.mutant import mutant


@mutant(CLUSTER)
def nothing_remembered(patch: pytest.MonkeyPatch) -> None:
    """A repeated operation is done again: what was published twice is there twice."""
    patch.setattr(Session, "remember", lambda self, seq, answer: None)


@mutant(CLUSTER)
def remembered_operations_not_in_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """After a restart or snapshot a node does again what was done before it."""
    edit(patch, sessions, "session_from", "session.remember(seq, None)", "pass")
    edit(
        patch,
        sessions,
        "session_from",
        "session.done[packed[0]] = _unpack(state.id, packed)",
        "pass",
    )
    patch.setattr(machine, "session_from", sessions.session_from)


@mutant(CLUSTER)
def checkouts_not_in_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """After a restart or snapshot nobody holds what was delivered."""
    forgetful = queue.queue_from

    def queue_from(state: queue.QueueState) -> tuple[Queue, list[consumer.Consumer]]:
        found, keepers = forgetful(state)
        found.checked_out.clear()
        for holder in (*found.consumers.values(), *keepers):
            holder.held.clear()
        return found, keepers

    patch.setattr(machine, "queue_from", queue_from)


@mutant(CLUSTER)
def set_order_in_apply(patch: pytest.MonkeyPatch) -> None:
    """Who is served next is taken from a set, whose order differs from node to node."""
    taken = "next(iter({*self.rotation})); self.rotation.remove(consumer)"
    edit(patch, Queue, "_hand_over", "self.rotation.popleft()", taken)


@mutant(CLUSTER)
def local_clock_in_apply(patch: pytest.MonkeyPatch) -> None:
    """A machine looks at its own clock instead of the entry's time."""
    edit(patch, Machine, "apply", "max(self.now_ms, now_ms)", "__import__('time').monotonic_ns()")


@mutant(CLUSTER)
def chance_in_apply(patch: pytest.MonkeyPatch) -> None:
    """Something that is not in the log decides in `apply`."""
    moody = "consumer is None or consumer.session != session"
    edit(patch, Queue, "settle", moody, f"{moody} or __import__('random').random() < 0.01")


@mutant(CLUSTER)
def expiry_of_a_deposed_leader(patch: pytest.MonkeyPatch) -> None:
    """A stalled node ends sessions that have been resumed elsewhere since (etcd#15247)."""
    edit(
        patch,
        Registry,
        "close",
        "record is None or epoch not in (0, record.epoch)",
        "record is None",
    )


@mutant(CLUSTER)
def requeued_message_lost(patch: pytest.MonkeyPatch) -> None:
    """A message given back by its consumer is gone."""
    edit(patch, Queue, "settle", "outcome == _REQUEUE", "False")


@mutant(CLUSTER)
def messages_of_an_ended_session_lost(patch: pytest.MonkeyPatch) -> None:
    """What a dead consumer held does not return to its queue."""
    edit(
        patch,
        Queue,
        "take_back",
        "self._put_back(id, packed & PRIORITY_MASK, packed >> PRIORITY_BITS)",
        "pass",
    )


@mutant(CLUSTER)
def ended_session_keeps_what_it_held(patch: pytest.MonkeyPatch) -> None:
    """What a dead consumer held stays checked out to nobody."""
    edit(patch, Machine, "_end_session", "self._queues[holder.queue].take_back(holder)", "pass")


@mutant(MACHINES)
def settled_by_anybody(patch: pytest.MonkeyPatch) -> None:
    """A settlement counts for a message that another session holds by now."""
    edit(
        patch,
        Queue,
        "settle",
        "consumer is None or consumer.session != session",
        "consumer is None",
    )


@mutant(CLUSTER)
def newest_message_first(patch: pytest.MonkeyPatch) -> None:
    """What waits in a queue is served from its end: not first in, first out."""
    patch.setattr(Lane, "take", _take_last)


def _take_last(self: Lane) -> int:
    if self.returned:
        return self.returned.pop()
    return self.ids.pop()


@mutant(CLUSTER)
def held_messages_not_sent_again(patch: pytest.MonkeyPatch) -> None:
    """A client that comes back does not get what was delivered while it was away."""
    edit(patch, Machine, "_attach", "sorted(missing)", "()")
