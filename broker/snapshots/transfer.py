"""One group's snapshot on its way to here: what is on disk already, and what comes next.

    BODIES --to the checkpoint's last id--> STATE --all chunks--> WHOLE --stepped--> over
      ^                                       |
      +----- the giver has a newer checkpoint-+        any: another leader offers one; the log
                                                       has caught up by itself (over)

How far it is stands on disk as `Progress`, written with each part in one transaction, in the
place of a chunk that no checkpoint ever has. So a restart goes on where it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import msgspec

from broker.batch import OFFSET_BITS
from broker.peer_protocol import Bodies, PullBodies, PullState, State
from raftlog.messages import Snapshot, SnapshotRequest
from raftlog.storage import GroupStorage
from raftlog.write import GroupWrite, Mark

PROGRESS_INDEX = (1 << 64) - 1
"""The index of the "checkpoint" whose chunk 0 is the `Progress`."""


class Progress(msgspec.Struct, frozen=True, array_like=True):
    """Bodies up to the id `to` are on disk; chunks of the checkpoint at `index`, from `giver`.

    That bodies are there stays true when the transfer is given up: only dead ones are swept.
    """

    to: int = 0
    index: int = 0
    giver: str = ""


_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(Progress).decode


def saved_progress(storage: GroupStorage) -> Progress:
    """How far an earlier transfer came; nowhere when there was none."""
    if not storage.chunks_of(PROGRESS_INDEX):
        return Progress()
    return _decode(storage.chunk(0, PROGRESS_INDEX))


def last_id(index: int) -> int:
    """The highest id that a message of the entries up to `index` can have."""
    return (index + 1 << OFFSET_BITS) - 1


@dataclass(slots=True)
class Transfer:
    """The receiver's book of one group; what it counts was at least handed to a write."""

    group: int
    storage: GroupStorage
    giver: str  #: the node that is asked: the sender of the newest request
    request: SnapshotRequest  #: the newest
    index: int  #: of the checkpoint that is wanted
    to: int  #: bodies up to this id are here
    chunks: int  #: so many of the state are here, from 0 on
    mark: Mark | None = None  #: that checkpoint, once the giver has told of it
    part: Bodies | State | None = None  #: arrived, and waits for a write
    stepped: bool = False  #: Raft has the request: its Ready installs
    asked_ms: int | None = None  #: a pull is under way since
    heard_ms: int = field(default=0)  #: when something came of it last

    @classmethod
    def begin(
        cls, group: int, giver: str, request: SnapshotRequest, storage: GroupStorage, now_ms: int
    ) -> Transfer:
        """A new one, or one that a restart or a change of leaders has interrupted."""
        progress, index = saved_progress(storage), request.snapshot.index
        same = (progress.index, progress.giver) == (index, giver)
        chunks = storage.chunks_of(index) if same else 0
        return cls(
            group,
            storage,
            giver,
            request,
            index,
            progress.to,
            chunks,
            heard_ms=now_ms,
        )

    # --- what is offered ------------------------------------------------------------------

    def offered(self, giver: str, request: SnapshotRequest, now_ms: int) -> None:
        """A request; the newest one counts. The same again only says that it still stands."""
        self.heard_ms = now_ms
        if request.term < self.request.term:
            return
        if giver != self.giver:
            self.giver = giver
            self._aim(request.snapshot.index)
        elif request.snapshot.index > self.index:
            self._aim(request.snapshot.index)
        self.request = request

    def _aim(self, index: int) -> None:
        """At another checkpoint, or another node's: its state begins anew, bodies stay."""
        self.index, self.chunks, self.mark, self.asked_ms = index, 0, None, None
        if isinstance(self.part, State):
            self.part = None

    # --- what is asked and comes ----------------------------------------------------------

    @property
    def needs_bodies(self) -> bool:
        return self.to < last_id(self.index)

    @property
    def whole(self) -> bool:
        """Everything was handed to a write."""
        return not self.needs_bodies and self.mark is not None and self.chunks == self.mark.chunks

    @property
    def snapshot(self) -> Snapshot:
        """What the checkpoint is to Raft, as far as it is known."""
        mark = self.mark
        if mark is None:
            return self.request.snapshot
        return Snapshot(mark.index, mark.term, mark.membership)

    def pull(self) -> PullBodies | PullState:
        """What to ask for next."""
        if self.needs_bodies:
            return PullBodies(self.group, self.storage.incarnation, self.index, self.to)
        return PullState(self.group, self.storage.incarnation, self.index, self.chunks)

    def arrived(self, part: Bodies | State, now_ms: int) -> bool:
        """Take a part; False when it is none that was asked for."""
        if self.part is not None or self.asked_ms is None:
            return False
        fits = self._take_bodies(part) if isinstance(part, Bodies) else self._take_state(part)
        if fits:
            self.heard_ms, self.asked_ms = now_ms, None
        return fits

    def _take_bodies(self, part: Bodies) -> bool:
        if not self.needs_bodies or (part.index, part.after) != (self.index, self.to):
            return False
        ids = [part.after, *(id for id, _ in part.bodies)]
        ascending = all(low < high for low, high in pairwise(ids))
        if not ascending or not max(ids[-1], part.after + 1) <= part.to <= last_id(self.index):
            return False
        self.part = part
        return True

    def _take_state(self, part: State) -> bool:
        if self.needs_bodies or part.number != self.chunks or not part.index:
            return False
        mark = Mark(part.index, part.term, part.membership, part.chunks)
        if part.index != self.index:
            self._aim(part.index)
        elif part.data:
            self.part = part
        elif part.number < part.chunks:
            return False
        self.mark = mark
        return True

    # --- what is written ------------------------------------------------------------------

    def write(self) -> GroupWrite:
        """The part that waits, and how far the transfer is with it."""
        part, self.part = self.part, None
        assert part is not None
        if isinstance(part, Bodies):
            self.to = part.to
            return GroupWrite(self.group, bodies=part.bodies, chunks=(self._progress(),))
        self.chunks += 1
        chunk = part.index, part.number, part.data
        return GroupWrite(self.group, chunks=(chunk, self._progress()))

    def _progress(self) -> tuple[int, int, bytes]:
        index = self.index if self.chunks else 0
        return PROGRESS_INDEX, 0, _encode(Progress(self.to, index, self.giver if index else ""))


def progress_over() -> tuple[int, int, bytes]:
    """The chunk that goes with the installation: the next transfer begins at the beginning."""
    return PROGRESS_INDEX, 0, _encode(Progress())
