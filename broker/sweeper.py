"""Removes from a shard's disk what lies there for messages that are gone.

    kept entry   nothing in it is alive: dropped . half of it or more is alive: stays
                 less: the living bodies are copied out, it is dropped
    survivor     a body that was copied out: dropped when its message is gone

    AT REST --- the log's beginning has moved ---> looking at the entries passed ---> AT REST
    AT REST --- enough has died since ---> looking at all entries, then all survivors -+

Nothing is kept in memory for a message or an entry. What is alive is asked of the machine, by
ranges of ids; that enough has died is seen by counting, now and then, what is still alive. A
full look comes only after a fixed part of what is there has died, so that each death pays for
a bounded number of records looked at.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from typing import NamedTuple

from broker.batch import (
    COMMANDS_MAX,
    Batch,
    BatchError,
    command_ends,
    command_id,
    offset_of,
    table_bytes,
)
from broker.shard import Shard

DIED_IN_TRAFFIC = 4
"""A full look is due when one in so many of the messages there has died,"""
DIED_IN_QUIET = 16
"""... or one in so many, while nothing is applied."""

COPY_BYTES_MAX = 1 << 20
"""Of bodies copied out in one step; one entry's always fit."""
WEIGHED_MAX = 64
"""Entries with something alive that are looked into in one step: each may be cold on the disk."""
HEAD_BYTES = 2048
"""What is read of an entry at first: its table of a few hundred commands."""
IDS_MAX = 1 << 16
"""Living messages asked for in one step, or those of one entry."""


class Swept(NamedTuple):
    """What one step writes: parts of a `GroupWrite`."""

    drop_entries: list[int]
    bodies: list[tuple[int, bytes]]
    drop_bodies: list[int]


class Sweeper:
    """Sweeps one shard, step by step."""

    def __init__(self, shard: Shard, *, entries_max: int) -> None:
        """entries_max: records looked at in one step."""
        self._shard = shard
        self._entries_max = self._stride = entries_max
        self._entry: int | None = None  #: the next kept entry to look at
        self._body: int | None = None  #: the next survivor to look at, when the entries are done
        self._living = 0  #: messages in kept entries and survivors, when all were looked at last
        self._before = 0  #: the log's beginning, when it was noticed last
        self._applied = 0  #: when that was compared last
        self._reach = 0  #: the highest survivor that is alive and not before the log's beginning
        self._ahead = 0  #: a survivor that the machine did not know yet
        self.look_at_all()  # where the last life of this node was, nobody remembers

    @property
    def looking(self) -> bool:
        """Whether a step would do anything."""
        return self._entry is not None or self._body is not None

    def look_at_all(self) -> None:
        """Begin a full look."""
        self._before = self._shard.storage.first_index() - 1
        self._entry = self._body = 0
        self._living = self._count(0, self._end)

    def notice(self) -> None:
        """Look at the entries that the log's beginning has passed since the last time."""
        before = self._shard.storage.first_index() - 1
        if before > self._before:
            if self._entry is None:
                self._entry = self._before + 1
            end, self._before = self._end, before
            self._living += self._count(end, self._end)

    def compare(self) -> None:
        """Begin a full look if enough has died since the last one."""
        applied = self._shard.applied
        quiet, self._applied = applied == self._applied, applied
        if self.looking:
            return
        died = self._living - self._count(0, self._end)
        died_enough = died * (DIED_IN_QUIET if quiet else DIED_IN_TRAFFIC) >= self._living
        if (died and died_enough) or (self._ahead and self._ahead <= self._known):
            self.look_at_all()

    def step(self) -> Swept:
        """Look at the next few records."""
        swept = Swept([], [], [])
        if self._entry is not None:
            self._look_at_entries(self._entry, swept)
        elif self._body is not None:
            self._look_at_survivors(self._body, swept)
        return swept

    @property
    def _known(self) -> int:
        """The highest id that the machine can know."""
        return command_id(self._shard.applied, COMMANDS_MAX - 1)

    @property
    def _end(self) -> int:
        """The first id behind those of kept entries and survivors."""
        return max(command_id(self._before + 1, 0), self._reach + 1)

    def _count(self, first: int, end: int) -> int:
        """Living messages from `first` on, before `end`."""
        return self._shard.machine.count_between(first, end - 1) if first < end else 0

    # --- entries --------------------------------------------------------------------------

    def _look_at_entries(self, low: int, swept: Swept) -> None:
        storage = self._shard.storage
        # Where the last step found much alive, it comes not so far; what is not needed is not read.
        indices = storage.kept_entries(low, self._stride)
        if not indices:
            self._entry = None
            return
        indices = self._few(indices, command_id(1, 0))
        machine = self._shard.machine
        ids = machine.ids_between(command_id(indices[0], 0), command_id(indices[-1] + 1, 0) - 1)
        at = copied = weighed = 0
        for index in indices:
            # Between two kept entries there may be some of which only survivors are left.
            at = bisect_left(ids, command_id(index, 0), at)
            end = bisect_left(ids, command_id(index + 1, 0), at)
            if end == at:
                swept.drop_entries.append(index)
                continue
            if copied > COPY_BYTES_MAX or weighed == WEIGHED_MAX:
                self._entry = index
                self._stride = min(self._entries_max, WEIGHED_MAX)
                return
            size, living = self._weigh(index, ids[at:end])
            weighed += 1
            if 2 * living < size:
                self._copy_out(index, ids[at:end], swept)
                copied += living
            at = end
        self._entry = indices[-1] + 1
        if weighed < len(indices) // 2:
            self._stride = self._entries_max

    def _weigh(self, index: int, ids: array[int]) -> tuple[int, int]:
        """(bytes of the entry, bytes of what is alive in it)."""
        storage = self._shard.storage
        head = storage.entry_bytes(index, HEAD_BYTES)
        try:
            start = table_bytes(head)
        except BatchError:
            storage.entry(index)  # says which record is damaged
            raise
        if len(head) < start:
            head = storage.entry_bytes(index, start)
        ends = command_ends(head)
        size = start + (ends[-1] if ends else 0)
        if len(ids) == len(ends):
            return size, size
        offsets = [offset_of(id) for id in ids]
        return size, sum([ends[at] - (ends[at - 1] if at else 0) for at in offsets])

    def _copy_out(self, index: int, ids: array[int], swept: Swept) -> None:
        # Verified: what is copied gets a sum of its own, which must not vouch for damage.
        batch = Batch(self._shard.storage.entry(index).data)
        swept.bodies.extend((id, bytes(batch.command(offset_of(id)))) for id in ids)
        swept.drop_entries.append(index)

    # --- survivors ------------------------------------------------------------------------

    def _look_at_survivors(self, low: int, swept: Swept) -> None:
        found = self._shard.storage.body_ids(low, self._entries_max)
        ids = [id for id in found if id <= self._known]
        if not ids:
            self._body = None
            # It was received for a snapshot: whether it is alive, the machine cannot say yet.
            self._ahead = found[0] if found else 0
            return
        ids = self._few(ids, 1)
        living = self._shard.machine.ids_between(ids[0], ids[-1])
        at = 0
        for id in ids:
            at = bisect_left(living, id, at)
            if at == len(living) or living[at] != id:
                swept.drop_bodies.append(id)
            elif id >= self._end:
                # It came for a snapshot that lay further on than the log's beginning now.
                end, self._reach = self._end, id
                self._living += self._count(end, self._end)
        self._body = ids[-1] + 1

    # --- the living -----------------------------------------------------------------------

    def _few(self, places: list[int], ids_each: int) -> list[int]:
        """The first of these records, so few that not too many messages live among them.

        ids_each: how many ids one of `places` stands for.
        """
        count = self._shard.machine.count_between
        first = places[0] * ids_each
        while len(places) > 1 and count(first, (places[-1] + 1) * ids_each - 1) > IDS_MAX:
            places = places[: len(places) // 2]
        return places
