"""What a node writes for its own sake: checkpoints, shorter logs, and less for what is gone.

    log grows --> checkpoint, in chunks --> compaction --> the entries passed are swept
                  messages die          -------------------> all that is kept is swept

All of it goes along with what the turns write anyway, in small steps: one turn in each tick
takes a chunk of one checkpoint, and a step of one sweep. So it never holds up a message for
long, and a node with many shards does not write all their checkpoints at once.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.checkpointer import Checkpointer
from broker.config import Config
from broker.shard import Shard
from broker.sweeper import Sweeper
from raftlog.write import GroupWrite

COMPARE_MS = 1000
"""How often each shard is looked at: can its log be shorter, has enough died?"""

PULLED_MS = 10_000
"""So long a checkpoint stays that another node has read a part of."""


class _Keeping:
    """The parts that look after one shard."""

    __slots__ = ("checkpointer", "received", "shard", "sweeper")

    def __init__(self, config: Config, shard: Shard) -> None:
        self.shard = shard
        self.received = False  #: bodies came, and nobody has looked at them since
        self.checkpointer = Checkpointer(
            shard,
            commands_max=max(1, config.replay_commands_max // config.shards),
            bytes_max=config.log_bytes_max,
            commands_limit=config.replay_commands_max,
        )
        self.sweeper = Sweeper(shard, entries_max=config.sweep_entries_max)


class Housekeeping:
    """Decides at each tick what the next turn does of it."""

    def __init__(self, config: Config, shards: Mapping[int, Shard]) -> None:
        """`shards` may change: it is looked at in each tick."""
        self._config, self._shards = config, shards
        self._now_ms = 0
        self._kept: dict[int, _Keeping] = {}
        self._compared_ms = 0
        self._writer: _Keeping | None = None  #: whose checkpoint is under way: one at a time
        self._sweeping: _Keeping | None = None  #: who sweeps in the next turn
        self._swept = -1  #: the shard that swept last: they take turns
        self._due: set[int] = set()  #: the shards that write in the next turn

    @property
    def due(self) -> bool:
        """Whether the next turn has something to write."""
        return bool(self._due)

    def is_due(self, number: int) -> bool:
        """Whether the next turn has something to write for this shard."""
        return number in self._due

    def tick(self, now_ms: int) -> None:
        """Find out what is due."""
        self._now_ms = now_ms
        kept = self._keepings()
        due = self._due = set()
        if now_ms - self._compared_ms >= COMPARE_MS:
            self._compared_ms = now_ms
            for each in kept:
                each.sweeper.compare()
            due.update(each.shard.number for each in kept if _compactable(each.shard))
        writer = self._writer = self._next_writer(kept)
        if writer is not None:
            due.add(writer.shard.number)
        sweeping = self._sweeping = self._next_sweeping(kept)
        if sweeping is not None:
            self._swept = sweeping.shard.number
            due.add(sweeping.shard.number)

    def add_to(self, write: GroupWrite) -> GroupWrite | None:
        """The write of a group with what is due for it; None when that is nothing.

        The machine's state is that of the moment, so nothing may be applied in between.
        """
        if write.group not in self._due:
            return None
        self._due.discard(write.group)
        keeping, before = self._kept[write.group], write
        if keeping is self._writer:
            write = self._checkpoint(keeping, write)
        if index := _compactable(keeping.shard):
            write = write._replace(compact_to=index)
        if keeping is self._sweeping:
            entries, bodies, gone = keeping.sweeper.step()
            if entries or gone:
                write = write._replace(drop_entries=entries, bodies=bodies, drop_bodies=gone)
        return write if write is not before else None

    def rest(self) -> None:
        """The turn has all it takes; what it could not take waits for the next tick."""
        self._due.clear()

    def installed(self, shard: Shard) -> None:
        """A snapshot takes the place of all that this shard had on disk."""
        self._forget(shard.number)

    # --- what is due ----------------------------------------------------------------------

    def _keepings(self) -> list[_Keeping]:
        shards, kept = self._shards, self._kept
        for number in [n for n, each in kept.items() if shards.get(n) is not each.shard]:
            self._forget(number)
        for number, shard in shards.items():
            if number not in kept:
                kept[number] = _Keeping(self._config, shard)
            keeping = kept[number]
            if shard.receiving:
                keeping.received = True
            elif keeping.received:
                # It was given up, for the log has caught up: what came may be dead by now.
                keeping.received = False
                keeping.sweeper.look_at_all()
            keeping.sweeper.notice()
        return [each for each in kept.values() if not each.shard.receiving]

    def _forget(self, number: int) -> None:
        self._due.discard(number)
        keeping = self._kept.pop(number, None)
        if keeping is not None and keeping is self._writer:
            self._writer = None

    def _next_writer(self, kept: list[_Keeping]) -> _Keeping | None:
        if self._writer in kept:
            return self._writer
        if self._writer is not None:
            self._writer.checkpointer.give_up()  # it is receiving a snapshot
        due = [each for each in kept if each.checkpointer.due and not self._is_pulled(each.shard)]
        return max(due, key=lambda each: each.shard.replay.bytes, default=None)

    def _next_sweeping(self, kept: list[_Keeping]) -> _Keeping | None:
        looking = [each for each in kept if each.sweeper.looking]
        later = (each for each in looking if each.shard.number > self._swept)
        return next(later, looking[0] if looking else None)

    def _is_pulled(self, shard: Shard) -> bool:
        """Whether another node is just reading the shard's checkpoint."""
        return self._now_ms - shard.pulled_ms < PULLED_MS

    def _checkpoint(self, keeping: _Keeping, write: GroupWrite) -> GroupWrite:
        checkpointer = keeping.checkpointer
        if not checkpointer.writing:
            checkpointer.begin()
        elif checkpointer.ends and self._is_pulled(keeping.shard):
            return write  # whoever reads the one before would have to begin again
        piece = checkpointer.step()
        if piece.mark is not None:
            self._writer = None
        return write._replace(chunks=(piece.chunk,), mark=piece.mark)


def _compactable(shard: Shard) -> int:
    """Up to where the shard's log can be compacted now; 0 when it cannot."""
    mark, before = shard.storage.checkpoint, shard.storage.first_index() - 1
    if mark is None or mark.index <= before:
        return 0
    index = min(mark.index, shard.raft.compactable_to())
    return index if index > before else 0
