"""The book that is kept of one shard: its history, and what by that must be true of its queues.

    entry, once any node has applied it -> a machine that has only ever applied entries
                                        -> who was put where, handed to whom, settled by whom

    conservation                 present = put and not settled; the counts add up
    a retry enqueues once        one payload, one message
    nothing after its settlement not even to another session, not even out of a snapshot
    one session per checkout     a live one, until it gave the message back
    first come, first served     per queue and priority, for the first delivery

What is written here comes from the commands and the effects alone; the machine is asked only
what it has and holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.batch import Batch, command_id
from broker.machines.commands import (
    Enqueue,
    Outcome,
    Purge,
    QueueDrop,
    SessionDown,
    Settle,
    decode,
)
from broker.machines.effects import Deliver, Fetched
from broker.machines.machine import Machine
from raftlog.messages import Entry, EntryKind
from tests.simulation.sessions import SessionBook
from tests.simulation.violation import Violation

COUNT_EVERY = 64
"""Entries between two comparisons of all that is present."""

_REMOVES = (Outcome.ACK, Outcome.DROP)
_GIVES_BACK = (Outcome.REQUEUE, Outcome.RELEASE)


@dataclass
class Book:
    """Of one shard. `machine` is empty at first."""

    shard: int
    machine: Machine
    history: list[Entry | None] = field(default_factory=lambda: [None])  #: by index
    present: dict[int, dict[int, bytes]] = field(default_factory=dict)  #: queue -> id -> payload
    payloads: dict[bytes, int] = field(default_factory=dict)  #: of all that was ever put -> id
    settled: dict[int, int] = field(default_factory=dict)  #: id -> by which entry
    priorities: dict[int, int] = field(default_factory=dict)  #: of what was never delivered
    holders: dict[int, int] = field(default_factory=dict)  #: id -> session it was last handed to
    ended: dict[int, int] = field(default_factory=dict)  #: session -> by which entry
    _back: dict[int, int] = field(default_factory=dict)
    """Given back, by which entry, and not handed out since."""
    _newest: dict[tuple[int, int], int] = field(default_factory=dict)
    """(queue, priority) -> the last that was delivered for the first time."""
    _hash: tuple[int, bytes] = (-1, b"")
    _counted: int = 0
    sessions: SessionBook = field(default_factory=SessionBook)  #: of shard 0

    @property
    def index(self) -> int:
        """The last entry that any node has applied."""
        return len(self.history) - 1

    def see(self, entry: Entry, node: str) -> None:
        """A node has applied this."""
        index = entry.index
        if index <= self.index:
            known = self.history[index]
            if known is not entry and known != entry:
                text = f"entry {index} of shard {self.shard} differs on {node}"
                raise Violation("one history of commits", text)
            return
        if index != self.index + 1:
            text = f"{node} applies {index} of shard {self.shard} after {self.index}"
            raise Violation("one history of commits", text)
        self.history.append(entry)
        if entry.kind == EntryKind.NORMAL and entry.data:
            self._take(index, Batch(entry.data))

    def state_hash(self) -> bytes:
        """Of the fold of all of the history."""
        if self._hash[0] != self.index:
            self._hash = (self.index, self.machine.state_hash())
        return self._hash[1]

    # --- an entry -------------------------------------------------------------------------

    def _take(self, index: int, batch: Batch) -> None:
        commands = [decode(batch.command(offset)) for offset in range(batch.count)]
        effects = self.machine.apply(index, batch.now_ms, commands)
        settles: list[Settle] = []
        for offset, command in enumerate(commands):
            if type(command) is Enqueue:
                self._put(command_id(index, offset), command)
            elif type(command) is Settle:
                settles.append(command)
            elif type(command) is SessionDown:
                self.ended.setdefault(command.session, index)
            elif isinstance(command, Purge | QueueDrop):
                self._emptied(command)
        self._settle(settles)
        if self.shard == 0:
            sessions = {record.id for record in self.machine.registry}
            self.sessions.take(index, commands, sessions)
        for effect in effects:
            if type(effect) is Deliver or type(effect) is Fetched:
                self._handed(effect)
        if index - self._counted >= COUNT_EVERY:
            self.count()

    def _put(self, id: int, command: Enqueue) -> None:
        for queue in command.queues:
            if not self.machine.holds(queue, id):
                continue  # a repeat, a late one, refused or misrouted
            first = self.payloads.setdefault(command.payload, id)
            if first != id:
                text = f"{command.payload!r} is message {first} and {id} of shard {self.shard}"
                raise Violation("a retry enqueues once", text)
            self.present.setdefault(queue, {})[id] = command.payload
            self.priorities[id] = command.priority

    def _settle(self, settles: list[Settle]) -> None:
        """All of an entry: repeats of what was done before may stand among them."""
        removed: set[tuple[int, int]] = set()
        for command in settles:
            if command.outcome in _REMOVES:
                ids = [id for id in command.ids if self.holders.get(id) == command.session]
                removed.update([(command.queue, id) for id in ids])
            else:
                for id in command.ids:
                    if self.holders.get(id) == command.session:
                        self._back[id] = self.index
        for command in settles:
            present = self.present.get(command.queue, {})
            for id in command.ids:
                if id not in present or self.machine.holds(command.queue, id):
                    continue
                if (command.queue, id) not in removed:
                    text = f"message {id} of queue {command.queue} vanished by {command}"
                    raise Violation("conservation", text)
                del present[id]
                self.settled[id] = self.index

    def _emptied(self, command: Purge | QueueDrop) -> None:
        left = set(self.machine.messages(command.queue))
        present = self.present.get(command.queue, {})
        for id in [id for id in present if id not in left]:
            del present[id]
            self.settled[id] = self.index

    def _handed(self, effect: Deliver | Fetched) -> None:
        id, session = effect.id, effect.session
        if self.settled.get(id, self.index) < self.index:  # in one entry it may come before
            text = f"message {id} of shard {self.shard} goes to session {session}"
            raise Violation("nothing after its settlement", text)
        if self.ended.get(session, self.index) < self.index:
            text = f"message {id} of shard {self.shard} goes to session {session}, which is over"
            raise Violation("one session per checkout", text)
        holder = self.holders.get(id)
        if holder is None:
            self._first(effect.queue, id)
        elif holder != session and holder not in self.ended and id not in self._back:
            text = f"message {id} of shard {self.shard} goes to {session}, {holder} has it"
            raise Violation("one session per checkout", text)
        # In one entry a message may be sent to its holder again and then be given back.
        if holder != session or self._back.get(id) != self.index:
            self._back.pop(id, None)
        self.holders[id] = session

    def _first(self, queue: int, id: int) -> None:
        key = (queue, self.priorities.pop(id, 0))
        newest = self._newest.get(key, 0)
        if id < newest:
            text = f"message {id} of queue {queue}, priority {key[1]}, comes after {newest}"
            raise Violation("first come, first served", text)
        self._newest[key] = id

    # --- now and then ---------------------------------------------------------------------

    def count(self) -> None:
        """What is present is what was put and not settled, and the counts add up."""
        self._counted = self.index
        self.machine.check()
        for queue in self.machine.queues():
            put = self.present.get(queue, {})
            ready, out, _ = self.machine.counts(queue)
            if ready + out != len(put):
                text = f"{ready} ready and {out} out in queue {queue}, {len(put)} not settled"
                raise Violation("conservation", text)
            there = set(self.machine.messages(queue))
            if there != put.keys():
                text = f"queue {queue} lacks {put.keys() - there}, has also {there - put.keys()}"
                raise Violation("conservation", text)
