"""The settings of one Raft node, each with its unit and what happens at the limit."""

from __future__ import annotations

from dataclasses import dataclass

from raftlog.chance import Chance
from raftlog.errors import ConfigError


@dataclass(slots=True, frozen=True)
class Config:
    """What a node must know beside its storage. Raise `ConfigError` for what makes no sense."""

    #: This node; a positive number, never used again for a node whose disk was lost.
    id: int

    # --- time, in ticks ------------------------------------------------------------------

    #: A follower that hears nothing stands for election after `election_tick` up to twice
    #: as many ticks; a leader that hears no majority for so long steps down; a transfer of
    #: leadership that takes longer is given up.
    election_tick: int = 10
    #: A leader sends heartbeats every so many ticks.
    heartbeat_tick: int = 2
    #: A follower in snapshot state of whom nobody reports anything, not even progress, is
    #: probed again after so many ticks.
    snapshot_tick: int = 600

    # --- elections -----------------------------------------------------------------------

    #: Ask first whether an election could be won: a node that comes back disturbs nobody.
    pre_vote: bool = True
    #: Leaders without a majority step down, followers with a leader do not vote.
    check_quorum: bool = True
    #: A leader that is no voter any more becomes a follower.
    step_down_on_removal: bool = True

    # --- limits --------------------------------------------------------------------------

    #: Bytes of entries in one message; one entry always fits.
    max_entry_bytes_per_message: int = 1 << 20
    #: Messages with entries on their way to one follower; then empty ones only.
    max_inflight_messages: int = 256
    #: Bytes of entries on their way to one follower; a first message always fits.
    max_inflight_bytes: int = 16 << 20
    #: Bytes of proposals that are not committed yet; then `ProposalDropped`. A first
    #: proposal always fits.
    max_uncommitted_bytes: int = 64 << 20
    #: Bytes of committed entries in one Ready; one entry always fits, the rest comes next.
    max_committed_bytes_per_ready: int = 4 << 20
    #: Bytes of the log's end that are kept in memory although they are durable.
    max_cached_bytes: int = 1 << 20
    #: Reads that wait for a round or, on a follower, for the leader; then `ReadRefused`.
    max_pending_reads: int = 4096

    # --- latency -------------------------------------------------------------------------

    #: An advanced commit index leaves at once, in an empty append if need be; otherwise it
    #: rides on the next append or heartbeat.
    eager_commit: bool = True
    #: Reserved: several Readies on their way to the disk. Not supported.
    async_storage_writes: bool = False

    # --- start ---------------------------------------------------------------------------

    #: The last entry the machine has applied; the storage's membership is that of here.
    applied: int = 0
    #: Source of chance; must not repeat itself in another life of this node, for it also
    #: numbers the reads sent to a leader. Without one, `seed` makes one.
    rng: Chance | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.async_storage_writes:
            raise ConfigError("async_storage_writes is not supported")
        if self.id <= 0:
            raise ConfigError(f"id must be positive, not {self.id}")
        if not 0 < self.heartbeat_tick < self.election_tick:
            raise ConfigError("heartbeat_tick must be positive and below election_tick")
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be positive")
        if self.applied < 0 or self.max_cached_bytes < 0:
            raise ConfigError("applied and max_cached_bytes must not be negative")


_POSITIVE = (
    "snapshot_tick",
    "max_entry_bytes_per_message",
    "max_inflight_messages",
    "max_inflight_bytes",
    "max_uncommitted_bytes",
    "max_committed_bytes_per_ready",
    "max_pending_reads",
)
