"""Everything the store on disk can refuse or find wrong.

    StoreError
      StoreLocked          another process works in this directory
      StoreOfOtherCluster  the directory belongs to a node of another cluster
      StoreOfOtherNode     the directory belongs to another node
      StoreTooNew          a later version wrote it
      StoreCorrupt         what is on disk is not what was written
        CorruptRecord      the same, of one record; `place` says which
      RepairRefused        what should take a damaged record's place is not proved
      StoreFailed          a write or a read failed; the store refuses every later write

All but `StoreFailed` and the two kinds of corruption are raised before anything is changed.
"""

from __future__ import annotations

from typing import NamedTuple

from raftlog.errors import RaftError

KEEP = (
    "Nothing was changed, and the other nodes go on. `raftmq node verify` names all that is "
    "damaged, and `raftmq node repair` heals what the other nodes can give and this directory can "
    "prove; for the rest, remove this node and add one under a new name. Never start this one "
    "with an empty directory or an older copy: it would vote again where it has voted."
)


class StoreError(RaftError):
    """The root of all errors of the store."""


class StoreLocked(StoreError):
    """Another process has the directory open."""


class StoreOfOtherCluster(StoreError):
    """The directory was made for a node of another cluster."""


class StoreOfOtherNode(StoreError):
    """The directory was made for another node of this cluster."""


class StoreTooNew(StoreError):
    """The directory, or a record in it, has a format this version does not know."""


class StoreCorrupt(StoreError):
    """The directory does not hold what was written to it."""


class Place(NamedTuple):
    """Where a record is: the database and what its key says.

    number: an entry's index in `log`, a message id in `messages`, a chunk's number in
    `checkpoint`, whose index is then `checkpoint`. name: the key of a record of the node.
    """

    database: str
    group: int | None = None
    number: int | None = None
    checkpoint: int | None = None
    name: str | None = None

    def __str__(self) -> str:
        database, group, number, checkpoint, name = self
        if group is None:
            return f"the record {name!r} of the node"
        if database == "state" or number is None:
            return f"the state of group {group}"
        if database == "messages":
            return f"body {number} of group {group}"
        if database == "checkpoint":
            return f"chunk {number} of the checkpoint at {checkpoint} of group {group}"
        return f"entry {number} of group {group}"


class CorruptRecord(StoreCorrupt):
    """A record is damaged or missing: `place` says which, `wrong` what is wrong with it.

    `group` is None for a record of the whole node; `index` is None for one that is not an
    entry of the log.
    """

    def __init__(self, path: object, place: Place, wrong: str) -> None:
        super().__init__(
            f"{place} in {path} (database {place.database}) is damaged: {wrong}. {KEEP}"
        )
        self.place = place
        self.group = place.group
        self.index = place.number if place.database == "log" else None
        self.wrong = wrong


class RepairRefused(StoreError):
    """What was offered in place of a damaged record is not proved to be what was written."""


class StoreUnusable(StoreError):
    """The directory cannot be made, read or written; nothing was changed."""


class StoreFailed(StoreError):
    """The disk failed, or there is no room: this node must stop (a failed fsync cannot be
    tried again: what it should have written may be gone)."""
