"""The shard of memory-only queues that each node keeps for the sessions at home there.

It has no log and no replicas: a command is applied when it arrives, and what it holds ends
with the node, or with the session that owns the queue. Exclusive queues live here: replies,
remote control, events. A queue that nobody drains is bounded: what comes on top is dropped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.batch import command_id
from broker.machines.commands import AnyCommand, Enqueue, Purge, QueueDrop, SessionDown, Settle
from broker.machines.effects import Confirm, Effect
from broker.machines.machine import Machine


@dataclass(slots=True)
class VolatileShard:
    """The machine, and the bodies that a replicated shard would have in its log."""

    machine: Machine
    messages_max: int  #: ready messages in one queue
    index: int = 0
    dropped: int = 0  #: messages that found their queue full
    _bodies: dict[int, Enqueue] = field(default_factory=dict)

    def apply(self, now_ms: int, command: AnyCommand) -> list[Effect]:
        """Apply one command at once."""
        self.index += 1
        if isinstance(command, Enqueue):
            command = self._admitted(command)
            if not command.queues:
                return [Confirm(command.session, command.seq)]
            self._bodies[command_id(self.index, 0)] = command
        effects = self.machine.apply(self.index, now_ms, [command])
        if isinstance(command, Enqueue):
            # A repeat was not put anywhere: its body must not stay.
            self._forget((command_id(self.index, 0),))
        elif isinstance(command, Settle):
            self._forget(command.ids)
        elif isinstance(command, Purge | QueueDrop | SessionDown):
            self._forget(tuple(self._bodies))
        return effects

    def message(self, id: int) -> Enqueue:
        """The command that carried a message."""
        return self._bodies[id]

    def _admitted(self, command: Enqueue) -> Enqueue:
        counts, limit = self.machine.counts, self.messages_max
        known = [queue for queue in command.queues if self.machine.knows(queue)]
        queues = tuple(queue for queue in known if counts(queue)[0] < limit)
        self.dropped += len(known) - len(queues)
        if queues == command.queues:
            return command
        return Enqueue(
            command.session,
            command.seq,
            command.floor,
            queues,
            command.exchange,
            command.routing_key,
            command.priority,
            command.options,
            command.payload,
        )

    def _forget(self, ids: tuple[int, ...]) -> None:
        holds = self.machine.holds
        for id in ids:
            command = self._bodies.get(id)
            if command is not None and not any(holds(queue, id) for queue in command.queues):
                del self._bodies[id]
