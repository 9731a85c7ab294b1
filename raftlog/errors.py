"""Everything the Raft core can refuse or find wrong.

RaftError
  ConfigError          a setting is wrong, or asks for what is not supported
  ProposalDropped      nothing was appended; `reason` says why
  ReadRefused          no read round was begun; `reason` says why
  ChangeInvalid        a membership change that makes no sense now
  StorageError         what a `Storage` answers instead of an entry, a term or a snapshot
    Compacted · Unavailable · SnapshotUnavailable · SnapshotOutOfDate
"""

from __future__ import annotations

from enum import Enum
from typing import NoReturn


class RaftError(Exception):
    """The root of all errors of the Raft core."""


class ConfigError(RaftError):
    """A setting is wrong; the message names it."""


class DropReason(str, Enum):
    """Why a proposal or a read was not taken."""

    NOT_LEADER = "not leader"
    NO_LEADER = "no leader known"
    TRANSFERRING = "leadership is being transferred"
    UNCOMMITTED_LIMIT = "too many uncommitted bytes"
    CHANGE_PENDING = "another membership change is not applied yet"
    TOO_MANY_READS = "too many reads wait already"


class ProposalDropped(RaftError):
    """A proposal was refused; nothing was appended, and the caller may try again."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ReadRefused(RaftError):
    """A read was refused; the caller may try again."""

    def __init__(self, reason: DropReason) -> None:
        super().__init__(reason.value)
        self.reason = reason


class ChangeInvalid(RaftError):
    """The membership change cannot be made on the present membership."""


class StorageError(RaftError):
    """The storage does not have what was asked for."""


class Compacted(StorageError):
    """The entry lies before the log's first one: only a snapshot holds what it did."""


class Unavailable(StorageError):
    """The entry lies behind the log's last one."""


class SnapshotUnavailable(StorageError):
    """There is no snapshot to send just now; ask again later."""


class SnapshotOutOfDate(StorageError):
    """The storage holds a newer snapshot, or nothing that old, already."""


def assert_never(value: NoReturn) -> NoReturn:
    """The end of a closed `match`; `typing` has it only since Python 3.11."""
    raise AssertionError(f"not expected here: {value!r}")
