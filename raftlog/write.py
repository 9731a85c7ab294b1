"""What one turn makes durable for a group, and by which rules.

    checkpoint                        chunks of index X, a few per write ... then `mark`: X is whole
    compaction                        compact_to: the log begins later; records stay until dropped
    sweep                             drop_entries, bodies, drop_bodies
    snapshot from a leader            chunks and bodies, a few per write ... then `install`

                 before    checkpoint            last
      k..k.k.kk.k|############|####################|      k: a record that is kept
                 begins here  a restart begins here

One write is all or nothing, for all of its groups. Inside of a group's write the order is:
install, entries, mark, compact_to, and the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from raftlog.messages import Entry, HardState, Membership

CHUNK_BYTES_MAX = 1 << 20
"""A checkpoint is stored, and sent, in pieces of at most this size."""


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """A checkpoint: the machine's state after the entry at `index`, in `chunks` pieces."""

    index: int
    term: int
    membership: Membership  #: in force after that entry
    chunks: int


class GroupWrite(NamedTuple):
    """What one turn makes durable for a group. Whatever is left out does not change."""

    group: int
    hard_state: HardState | None = None
    #: consecutive; what was at and behind the first one's index is gone
    entries: Sequence[Entry] = ()
    #: the log begins behind this index, which the checkpoint covers; its records stay
    compact_to: int | None = None
    #: indices, none behind the log's beginning, whose records are deleted
    drop_entries: Sequence[int] = ()
    #: (message id, body)
    bodies: Sequence[tuple[int, bytes]] = ()
    #: message ids whose bodies are deleted
    drop_bodies: Sequence[int] = ()
    #: (checkpoint's index, number from 0, data of at most CHUNK_BYTES_MAX)
    chunks: Sequence[tuple[int, int, bytes]] = ()
    #: this checkpoint is whole: a restart begins here, and chunks of lower indices are gone
    mark: Mark | None = None
    #: a snapshot takes the place of log and checkpoint: the log is empty and begins here, every
    #: kept entry is gone, bodies stay. Its chunks were written before, or are in this write.
    #: Of index 0 and without chunks it only says who founded the group.
    install: Mark | None = None


class Extent(NamedTuple):
    """From where to where a group's log goes, as the rules for a write need it."""

    before: int  #: the log begins behind this index
    last: int
    hard_state: HardState
    checkpoint: int  #: index of the whole checkpoint, 0 without one


def check_write(write: GroupWrite, extent: Extent) -> None:
    """Assert all of a write's rules that can be told from where the log begins and ends."""
    before, last, old, checkpoint = extent
    hard_state = write.hard_state or old
    assert hard_state.term >= old.term, (hard_state, old)
    assert hard_state.commit >= old.commit, (hard_state, old)
    if write.install is not None:
        index = write.install.index
        assert index >= max(old.commit, checkpoint), "a snapshot never takes the log back"
        assert write.mark is None, "a snapshot is a checkpoint"
        assert index > 0 or (last == 0 and write.install.chunks == 0), (index, last)
        before = last = checkpoint = index
    if write.entries:
        first = write.entries[0].index
        assert before < first <= last + 1, (before, first, last)
        if write.install is None:
            assert first > max(old.commit, checkpoint), "a committed entry is never replaced"
        for index, entry in enumerate(write.entries, first):
            assert entry.index == index, (entry.index, index)
        last = write.entries[-1].index
    assert hard_state.commit <= last, (hard_state, last)
    if write.mark is not None:
        index = write.mark.index
        assert max(before, checkpoint, 1) <= index <= last, (before, checkpoint, index, last)
        checkpoint = index
    if write.compact_to is not None:
        assert before <= write.compact_to <= checkpoint, (before, write.compact_to, checkpoint)
        before = write.compact_to
    for index in write.drop_entries:
        assert 0 < index <= before, (index, before)
    for index, number, data in write.chunks:
        assert index >= checkpoint, "a chunk of a checkpoint that is past"
        assert number >= 0, number
        assert len(data) <= CHUNK_BYTES_MAX, len(data)
    if write.bodies and write.drop_bodies:
        dropped = set(write.drop_bodies)
        assert not any(id in dropped for id, _ in write.bodies), "a body put and dropped at once"
