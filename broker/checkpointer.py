"""A shard's checkpoints: when one is due, and how it gets to the disk in pieces.

    AT REST --- enough was applied since the last ---> WRITING --- the last chunk ---> AT REST
       ^          (the state is taken at once)         a chunk        and the mark
       +----------------- given up ----------------------+

A restart restores the machine from the marked checkpoint and applies what came behind it. So
what may come behind is bounded: in commands, for they take the time, and in bytes, for they
take the room. But a deep queue has a large state, and no more is written for checkpoints than
a fraction of what is written for the log, as long as a restart stays short.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from broker.shard import Replay, Shard
from raftlog.messages import Membership
from raftlog.write import CHUNK_BYTES_MAX, Mark

LOG_PER_STATE = 4
"""So many times the last checkpoint's size must be logged before the next one."""


class Piece(NamedTuple):
    """What one turn writes of a checkpoint."""

    chunk: tuple[int, int, bytes]  #: (index, number, data)
    mark: Mark | None  #: with the last chunk: the checkpoint is whole


@dataclass(slots=True)
class _Writing:
    """A checkpoint under way."""

    index: int
    term: int
    membership: Membership
    state: bytes
    replay: Replay  #: what it saves a restart from applying, once it is whole
    number: int = 0  #: of the next chunk


class Checkpointer:
    """Makes one shard's checkpoints."""

    def __init__(
        self, shard: Shard, *, commands_max: int, bytes_max: int, commands_limit: int
    ) -> None:
        """commands_max, bytes_max: what may be applied behind a checkpoint before the next.

        commands_limit: so many are too many, however large the state is.
        """
        self._shard = shard
        self._commands_max, self._bytes_max = commands_max, bytes_max
        self._commands_limit = commands_limit
        self._writing: _Writing | None = None
        mark = shard.storage.checkpoint
        self._state_bytes = 0
        if mark is not None:
            last = mark.chunks - 1
            self._state_bytes = last * CHUNK_BYTES_MAX + len(shard.storage.chunk(last))

    @property
    def writing(self) -> bool:
        """Whether one is under way."""
        return self._writing is not None

    @property
    def ends(self) -> bool:
        """Whether the next piece is the last."""
        writing = self._writing
        return writing is not None and (
            (writing.number + 1) * CHUNK_BYTES_MAX >= len(writing.state)
        )

    @property
    def due(self) -> bool:
        """Whether one should be begun."""
        replay = self._shard.replay
        if replay.commands < self._commands_max and replay.bytes < self._bytes_max:
            return False
        return (
            replay.bytes >= LOG_PER_STATE * self._state_bytes
            or replay.commands >= self._commands_limit
        )

    def begin(self) -> None:
        """Take the state as it is now, between two entries."""
        shard = self._shard
        assert self._writing is None
        index = shard.applied
        state = shard.machine.snapshot()
        term, membership = shard.storage.term(index), shard.raft.membership
        self._writing = _Writing(index, term, membership, state, shard.replay)
        self._state_bytes = len(state)
        shard.replay = Replay()

    def step(self) -> Piece:
        """The next piece of the one under way."""
        writing = self._writing
        assert writing is not None
        at, number = writing.number * CHUNK_BYTES_MAX, writing.number
        data = writing.state[at : at + CHUNK_BYTES_MAX]
        mark = None
        if self.ends:
            mark = Mark(writing.index, writing.term, writing.membership, number + 1)
            self._writing = None
        writing.number += 1
        return Piece((writing.index, number, data), mark)

    def give_up(self) -> None:
        """Forget the one under way; the next mark removes what is on disk of it."""
        if self._writing is not None:  # it may have been chosen, and not begun
            self._shard.replay.add(self._writing.replay)
        self._writing = None
