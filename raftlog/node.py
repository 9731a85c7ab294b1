"""The face of one Raft node: events in, `Ready` out. See `ready.Ready` for the driver's turn.

node.tick(); node.step(message); node.propose(data); ...
while node.has_ready():
    ready = node.ready()
    ...                       # send, write, send, apply
    node.advance(ready)
"""

from __future__ import annotations

from raftlog.config import Config
from raftlog.errors import (
    ChangeInvalid,
    ConfigError,
    DropReason,
    ProposalDropped,
    ReadRefused,
)
from raftlog.leader import Leader
from raftlog.membership import Change
from raftlog.messages import NOBODY, Entry, HardState, Membership, Message, Snapshot
from raftlog.progress import Progress, ProgressState
from raftlog.raft import Raft
from raftlog.ready import ProgressStatus, ReadState, Ready, Role, SoftState, Status
from raftlog.storage import Storage

__all__ = [
    "ChangeInvalid",
    "Config",
    "ConfigError",
    "DropReason",
    "ProposalDropped",
    "RawNode",
    "ReadRefused",
    "ReadState",
    "Ready",
    "Role",
    "SoftState",
    "Status",
]


class RawNode:
    """One node of one group. Not for several threads at once.

    Between `ready()` and `advance()` other events may be given to it; what they cause is in
    the next Ready.
    """

    __slots__ = (
        "_commit",
        "_durable",
        "_emitted",
        "_leader",
        "_outstanding",
        "_raft",
        "_role",
        "_term",
        "_vote",
        "id",
        "quiet",
    )

    def __init__(self, config: Config, storage: Storage) -> None:
        """Start, or start again, from what the storage holds."""
        raft = self._raft = Raft(config, storage)
        self.id = config.id
        hard_state, _ = storage.initial_state()
        self._durable = self._emitted = hard_state
        # The emitted hard state and soft state, field by field: `has_ready` must cost nothing.
        self._term, self._vote, self._commit = hard_state.term, hard_state.vote, raft.log.committed
        self._leader, self._role = raft.leader, raft.role
        self._outstanding: Ready | None = None
        #: `has_ready` has said no, and nothing has happened since: for hosts of many groups,
        #: which would ask every one of them in every turn. Term and role are then what the last
        #: Ready found.
        self.quiet = False

    # --- what it is ----------------------------------------------------------------------

    @property
    def term(self) -> int:
        return self._raft.term

    @property
    def leader(self) -> int:
        """The leader's id; 0 when none is known."""
        return self._raft.leader

    @property
    def role(self) -> Role:
        return self._raft.role

    @property
    def commit(self) -> int:
        return self._raft.log.committed

    @property
    def applied(self) -> int:
        return self._raft.log.applied

    @property
    def last_index(self) -> int:
        return self._raft.log.last

    @property
    def membership(self) -> Membership:
        return self._raft.membership

    def compactable_to(self) -> int:
        """The index up to which the log may be compacted, as far as members go.

        A leader spares what members that answer still need; see `Leader.compactable_to`.
        """
        leading = self._raft.leading
        return leading.compactable_to() if leading is not None else self._raft.log.applied

    def status(self) -> Status:
        """Everything worth showing. Not for the hot path."""
        raft, leading = self._raft, self._raft.leading
        log = raft.log
        return Status(
            id=raft.id,
            term=raft.term,
            vote=raft.vote,
            leader=raft.leader,
            role=raft.role,
            first_index=log.first_index(),
            last_index=log.last,
            commit=log.committed,
            applied=log.applied,
            membership=raft.membership,
            transferee=leading.transferee if leading else NOBODY,
            uncommitted_bytes=leading.uncommitted.bytes if leading else 0,
            pending_reads=leading.reads.count() if leading else 0,
            progress=_progress_status(leading) if leading else {},
        )

    # --- events --------------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time has passed."""
        raft = self._raft
        raft.tick()
        leading = raft.leading
        if self.quiet and (
            (leading is not None and leading.flush_wanted)
            or raft.role is not self._role
            or raft.term != self._term
            or raft.leader != self._leader
            or raft.messages
            or raft.messages_after
        ):
            self.quiet = False

    def idle_ticks(self) -> int:
        """How many ticks from now would do nothing but count, if nothing else comes.

        A driver whose time is virtual may pass them at once, with `pass_ticks`.
        """
        return self._raft.idle_ticks()

    def pass_ticks(self, count: int) -> None:
        """So many ticks at once, at most `idle_ticks()`."""
        self._raft.pass_ticks(count)

    def set_election_timeout(self, ticks: int) -> None:
        """Fix the present random timeout: for tests, and until the next one is drawn."""
        assert ticks > 0
        self._raft.election_timeout = ticks

    def align_heartbeats(self, ticks: int) -> None:
        """As if the last heartbeat had been so many ticks ago, below `heartbeat_tick`.

        Groups whose leaders beat in the same tick share frames and turns.
        """
        assert 0 <= ticks < self._raft.config.heartbeat_tick
        if self._raft.leading is not None:
            self._raft.leading.heartbeat_elapsed = ticks

    def campaign(self) -> None:
        """Stand for election now, if this node may."""
        self.quiet = False
        self._raft.campaign()

    def step(self, message: Message) -> None:
        """Take a message from another node."""
        self.quiet = False
        self._raft.step(message)

    def propose(self, data: bytes) -> int:
        """Append an entry; its index, at which something else may be committed in the end.

        Raise `ProposalDropped` (not leader, transferring, too many uncommitted bytes).
        """
        self.quiet = False
        leading = self._raft.leading
        if leading is None:
            raise ProposalDropped(DropReason.NOT_LEADER)
        return leading.propose(data)

    def propose_conf_change(self, change: Change) -> int:
        """Append a membership change; its index.

        Raise `ProposalDropped` (also while another change is not applied) or `ChangeInvalid`.
        """
        self.quiet = False
        leading = self._raft.leading
        if leading is None:
            raise ProposalDropped(DropReason.NOT_LEADER)
        return leading.propose_change(change)

    def apply_conf_change(self, change: Change) -> Membership:
        """Apply a change that a Ready has given as committed, before its `advance`."""
        self.quiet = False
        return self._raft.apply_change(change)

    def read_index(self, context: bytes | int) -> None:
        """Ask from which index a read may be answered; a `ReadState` says so later.

        A follower asks its leader. The answer may never come: ask again when the leader or
        the term changes, and after a deadline. Raise `ReadRefused`.
        """
        self.quiet = False
        self._raft.read_index(context)

    def transfer_leader(self, target: int) -> bool:
        """Hand leadership to a voter; False when this node cannot.

        Until it is done, or given up after an election timeout, proposals are refused.
        """
        self.quiet = False
        leading = self._raft.leading
        return leading is not None and leading.transfer(target)

    def report_unreachable(self, member: int) -> None:
        """Messages to this member were dropped."""
        self.quiet = False
        if self._raft.leading is not None:
            self._raft.leading.unreachable(member)

    def lacks(self, snapshot: Snapshot) -> bool:
        """Whether stepping a leader's snapshot would replace the log by it.

        If so, the driver steps it when all that it stands for is on the disk, and not before;
        if not, at once: the leader then hears that this node needs none.
        """
        return self._raft.lacks(snapshot)

    def snapshot_progress(self, member: int) -> bool:
        """A part of the snapshot was sent to this member: it is not probed meanwhile.

        False when this node has sent it none, leads no more, or has given it up.
        """
        self.quiet = False
        leading = self._raft.leading
        return leading is not None and leading.snapshot_progress(member)

    def is_sent_snapshot(self, member: int) -> bool:
        """Whether, as this leader knows, a snapshot is on its way to this member."""
        leading = self._raft.leading
        progress = leading.progress.get(member) if leading is not None else None
        return progress is not None and progress.state is ProgressState.SNAPSHOT

    def report_snapshot(self, member: int, ok: bool) -> None:
        """The snapshot sent to this member has arrived there, or has failed to."""
        self.quiet = False
        if self._raft.leading is not None:
            self._raft.leading.snapshot_reported(member, ok)

    def peer_lost(self, member: int, wait: int | None = None) -> None:
        """The link to this member's process was reset: it has most likely died.

        Only a hint. Its followers ask for pre-votes within a few ticks and do not stick to
        it; should it live, its next message ends the doubt.

        wait: ticks until this node asks, at least 1, for whoever knows an order in which the
        members should stand; without it chance decides.
        """
        self.quiet = False
        raft = self._raft
        if raft.leading is not None:
            raft.leading.unreachable(member)
        elif raft.leader == member and member != NOBODY:
            raft.doubt_leader(wait)

    # --- the turn ------------------------------------------------------------------------

    def has_ready(self) -> bool:
        """Whether `ready` has something to say; False until the last one has advanced."""
        if self.quiet or self._outstanding is not None:
            return False
        self.quiet = not self._has_news()
        return not self.quiet

    def _has_news(self) -> bool:
        raft = self._raft
        leading, log = raft.leading, raft.log
        if leading is not None and leading.flush_wanted:
            leading.flush()
        return (
            log.committed != self._commit
            or log.stable != log.last
            or log.applied != log.committed
            or raft.term != self._term
            or raft.vote != self._vote
            or raft.leader != self._leader
            or raft.role is not self._role
            or log.snapshot is not None
            or bool(raft.messages or raft.messages_after or raft.read_states)
        )

    def ready(self) -> Ready:
        """The work of this turn; `advance` must follow before the next one."""
        assert self._outstanding is None, "the last Ready has not advanced"
        raft = self._raft
        leading, log = raft.leading, raft.log
        if leading is not None and leading.flush_wanted:
            leading.flush()
        entries = log.unstable() if log.stable != log.last else []
        snapshot = log.snapshot
        durable = self._durable
        must_sync = (
            bool(entries)
            or snapshot is not None
            or raft.term != durable.term
            or raft.vote != durable.vote
        )
        ready = self._outstanding = Ready(
            hard_state=self._hard_state(must_sync),
            entries=entries,
            snapshot=snapshot,
            committed=self._committed(),
            messages=raft.messages,
            messages_after=raft.messages_after,
            read_states=raft.read_states,
            soft_state=self._soft_state(),
            must_sync=must_sync,
        )
        raft.messages, raft.messages_after, raft.read_states = [], [], []
        return ready

    def _hard_state(self, must_sync: bool) -> HardState | None:
        """The hard state, when it is news; with a write also a commit index not written yet.

        So whoever has an entry on disk also has the commit index that was known when it came,
        and cannot overlook a committed membership change after a restart.
        """
        raft = self._raft
        term, vote, commit = raft.term, raft.vote, raft.log.committed
        if term != self._term or vote != self._vote or commit != self._commit:
            self._term, self._vote, self._commit = term, vote, commit
            self._emitted = HardState(term, vote, commit, *raft.log.floor)
            return self._emitted
        return self._emitted if must_sync and self._emitted != self._durable else None

    def _soft_state(self) -> SoftState | None:
        raft = self._raft
        if raft.leader == self._leader and raft.role is self._role:
            return None
        self._leader, self._role = raft.leader, raft.role
        return SoftState(raft.leader, raft.role)

    def _committed(self) -> list[Entry]:
        raft, log = self._raft, self._raft.log
        if log.applied == log.committed or log.snapshot is not None:
            return []
        limit = raft.config.max_committed_bytes_per_ready
        return log.entries(log.applied + 1, log.committed + 1, limit)

    def advance(self, ready: Ready) -> None:
        """Everything `ready` asked for is done: written, sent and applied."""
        assert ready is self._outstanding, "this Ready is not the last one"
        self._outstanding, self.quiet = None, False
        raft, log = self._raft, self._raft.log
        if ready.committed:
            log.applied_to(ready.committed[-1].index)
        if ready.must_sync:
            self._written(ready)
        if raft.leading is not None:
            raft.leading.leave_joint_if_due()
        if log.tail_bytes > log.cached_bytes_max:
            log.trim()

    def _written(self, ready: Ready) -> None:
        log = self._raft.log
        if ready.snapshot is not None:
            self._raft.snapshot_applied(ready.snapshot)
        if ready.entries:
            last = ready.entries[-1]
            log.stable_to(last.index, last.term)
        if ready.hard_state is not None:
            self._durable = ready.hard_state
        self._raft.durable(self._durable.term)


def _progress_status(leading: Leader) -> dict[int, ProgressStatus]:
    return {member: _one_status(progress) for member, progress in leading.progress.items()}


def _one_status(progress: Progress) -> ProgressStatus:
    return ProgressStatus(
        match=progress.match,
        next=progress.next,
        state=progress.state,
        pending_snapshot=progress.pending_snapshot,
        inflight_messages=len(progress.inflights.sent),
        inflight_bytes=progress.inflights.bytes,
        paused=progress.paused(),
        recent_active=progress.recent_active,
    )
