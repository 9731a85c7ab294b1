"""What a turn of the core asks of its driver, and what it shows of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import msgspec

from raftlog.messages import Entry, HardState, Membership, Message, Snapshot
from raftlog.progress import ProgressState


class Role(str, Enum):
    """What a node is in its term."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class SoftState(msgspec.Struct, frozen=True, array_like=True):
    """Who leads (0: nobody known) and what this node is; nothing durable."""

    leader: int
    role: Role


class ReadState(msgspec.Struct, frozen=True, array_like=True):
    """The read called `context` may be answered once the entry at `index` is applied."""

    context: bytes | int
    index: int


class Ready(msgspec.Struct, frozen=True):
    """One turn's work, in this order:

    1. send `messages`;
    2. when `must_sync`: write `snapshot`, `entries` and `hard_state` in one transaction,
       and wait until it is durable. Otherwise only the commit index moved: it need not be
       written, for the next Ready with a write carries it again;
    3. send `messages_after`: they promise what was written;
    4. restore the machine from `snapshot`, apply `committed`; for each entry of kind CHANGE
       call `apply_conf_change`, and make the membership it returns durable no later than
       the applied index; answer `read_states`;
    5. `advance`.
    """

    hard_state: HardState | None
    entries: list[Entry]
    snapshot: Snapshot | None
    committed: list[Entry]
    messages: list[Message]
    messages_after: list[Message]
    read_states: list[ReadState]
    soft_state: SoftState | None
    must_sync: bool


@dataclass(slots=True, frozen=True)
class ProgressStatus:
    """A follower as its leader sees it."""

    match: int
    next: int
    state: ProgressState
    pending_snapshot: int
    inflight_messages: int
    inflight_bytes: int
    paused: bool
    recent_active: bool


@dataclass(slots=True, frozen=True)
class Status:
    """A node as it sees itself, for people and metrics; `progress` on a leader only."""

    id: int
    term: int
    vote: int
    leader: int
    role: Role
    first_index: int
    last_index: int
    commit: int
    applied: int
    membership: Membership
    transferee: int
    uncommitted_bytes: int
    pending_reads: int
    progress: dict[int, ProgressStatus]
