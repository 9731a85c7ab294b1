"""Everything the store on disk can refuse or find wrong.

    StoreError
      StoreLocked          another process works in this directory
      StoreOfOtherCluster  the directory belongs to a node of another cluster
      StoreOfOtherNode     the directory belongs to another node
      StoreTooNew          a later version wrote it
      StoreCorrupt         what is on disk is not what was written
        CorruptRecord      the same, of one record; `group` and `index` say which
      StoreFailed          a write or a read failed; the store refuses every later write

All but `StoreFailed` and the two kinds of corruption are raised before anything is changed.
"""

from __future__ import annotations

from raftlog.errors import RaftError

KEEP = (
    "Nothing was changed. Keep the directory for inspection, and do not start this node with an "
    "empty one or an older copy: it would vote again where it has voted. The other replicas hold "
    "what it held and go on without it."
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


class CorruptRecord(StoreCorrupt):
    """A record is damaged or missing.

    `group` is None for a record of the whole node; `index` is None for one that is not an
    entry of the log.
    """

    def __init__(self, path: object, group: int | None, index: int | None, wrong: str) -> None:
        of_group = "of the node" if group is None else f"of group {group}"
        record = f"the record {of_group}" if index is None else f"entry {index} {of_group}"
        super().__init__(f"{record} in {path} is damaged: {wrong}. {KEEP}")
        self.group = group
        self.index = index
        self.wrong = wrong


class StoreUnusable(StoreError):
    """The directory cannot be made, read or written; nothing was changed."""


class StoreFailed(StoreError):
    """The disk failed, or there is no room: this node must stop (a failed fsync cannot be
    tried again: what it should have written may be gone)."""
