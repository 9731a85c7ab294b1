"""What a node does while it leads: replicate, commit, confirm reads, hand over, change members.

It lives from the election to the end of the term, so nothing of it can leak into another.
Sends are not made one by one: what happens in a turn only marks what is wanted, and `flush`
makes the messages, at most one heartbeat and usually one append per peer.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from raftlog.errors import (
    Compacted,
    DropReason,
    ProposalDropped,
    ReadRefused,
    SnapshotUnavailable,
    assert_never,
)
from raftlog.membership import Change, encode_change, is_voter, members, next_membership
from raftlog.messages import (
    NOBODY,
    AppendReject,
    AppendReply,
    AppendRequest,
    Entry,
    EntryKind,
    HeartbeatReply,
    HeartbeatRequest,
    ReadIndexReply,
    SnapshotRequest,
    TimeoutNow,
)
from raftlog.progress import Inflights, Progress, ProgressState
from raftlog.quorum import VoteResult, joint_index, joint_vote
from raftlog.reads import ReadRounds
from raftlog.ready import ReadState

if TYPE_CHECKING:
    from raftlog.raft import Raft


@dataclass(slots=True)
class Uncommitted:
    """The bytes of entries that are not committed: the account publishers are held back by."""

    bytes: int = 0
    entries: deque[tuple[int, int]] = field(default_factory=deque)  #: index, bytes

    def add(self, index: int, size: int) -> None:
        if size:
            self.entries.append((index, size))
            self.bytes += size

    def release(self, index: int) -> None:
        """Everything up to `index` is committed."""
        entries = self.entries
        while entries and entries[0][0] <= index:
            self.bytes -= entries.popleft()[1]


class Leader:
    """The leader's part of a `Raft` node."""

    __slots__ = (
        "_raft",
        "_shared",
        "committed_in_term",
        "election_elapsed",
        "flush_wanted",
        "heartbeat_elapsed",
        "heartbeat_wanted",
        "pending_change",
        "progress",
        "reads",
        "transferee",
        "uncommitted",
    )

    def __init__(self, raft: Raft) -> None:
        log = raft.log
        self._raft = raft
        self._shared: tuple[int, int, tuple[Entry, ...], int] = (0, 0, (), 0)
        self.election_elapsed = 0
        self.heartbeat_elapsed = 0
        self.heartbeat_wanted = False
        self.flush_wanted = False
        self.transferee = NOBODY
        self.reads = ReadRounds()
        self.committed_in_term = False
        #: No change is proposed before this index is applied: there may be one in the log.
        self.pending_change = log.last
        self.progress = {member: self._new_progress() for member in members(raft.membership)}
        if raft.id in self.progress:
            self.progress[raft.id].match = log.stable
            self.progress[raft.id].become_replicate()
        self.uncommitted = Uncommitted()
        self._count_uncommitted()

    def _new_progress(self) -> Progress:
        config = self._raft.config
        inflights = Inflights(config.max_inflight_messages, config.max_inflight_bytes)
        return Progress(inflights, next=self._raft.log.last + 1, wants_empty=True)

    def _count_uncommitted(self) -> None:
        log = self._raft.log
        low = log.committed + 1
        while low <= log.last:
            for entry in log.entries(low, log.last + 1, self._raft.config.max_cached_bytes):
                self.uncommitted.add(entry.index, len(entry.data))
                low = entry.index + 1

    # --- proposals -----------------------------------------------------------------------

    def append(self, kind: EntryKind, data: bytes) -> int:
        """Append without asking; the index. Sent at the next `flush`."""
        raft = self._raft
        index = raft.log.last + 1
        raft.log.append((Entry(index, raft.term, kind, data),))
        self.uncommitted.add(index, len(data))
        self.flush_wanted = True
        return index

    def propose(self, data: bytes) -> int:
        """The index of the new entry, or `ProposalDropped`."""
        if self.transferee:
            raise ProposalDropped(DropReason.TRANSFERRING)
        waiting = self.uncommitted.bytes
        if waiting and waiting + len(data) > self._raft.config.max_uncommitted_bytes:
            raise ProposalDropped(DropReason.UNCOMMITTED_LIMIT)
        return self.append(EntryKind.NORMAL, data)

    def propose_change(self, change: Change) -> int:
        """The index of the new entry, `ProposalDropped` or `ChangeInvalid`."""
        if self.transferee:
            raise ProposalDropped(DropReason.TRANSFERRING)
        if self.pending_change > self._raft.log.applied:
            raise ProposalDropped(DropReason.CHANGE_PENDING)
        next_membership(self._raft.membership, change)
        self.pending_change = self.append(EntryKind.CHANGE, encode_change(change))
        return self.pending_change

    def leave_joint_if_due(self) -> None:
        """End a joint phase that asked for it, once its beginning is applied."""
        raft = self._raft
        if not raft.membership.auto_leave or self.transferee:
            return
        if self.pending_change <= raft.log.applied:
            self.pending_change = self.append(EntryKind.CHANGE, encode_change(Change()))

    # --- time ----------------------------------------------------------------------------

    def tick(self) -> None:
        config = self._raft.config
        self.election_elapsed += 1
        self.heartbeat_elapsed += 1
        if self.election_elapsed >= config.election_tick:
            self.election_elapsed = 0
            if not self._check_quorum():
                return
            self.transferee = NOBODY
            self.leave_joint_if_due()
        if self.heartbeat_elapsed >= config.heartbeat_tick:
            self.heartbeat_elapsed = 0
            self.heartbeat_wanted = self.flush_wanted = True
            self._time_snapshots()

    def idle_ticks(self) -> int:
        """How many ticks from now only count."""
        config = self._raft.config
        return max(
            0,
            min(
                config.election_tick - self.election_elapsed,
                config.heartbeat_tick - self.heartbeat_elapsed,
            )
            - 1,
        )

    def _check_quorum(self) -> bool:
        """Step down when no majority was heard of since the last time: nothing is sent then."""
        raft = self._raft
        active = {raft.id: True}
        for member, progress in self.progress.items():
            if member != raft.id:
                active[member] = progress.recent_active
                progress.silent_periods = (
                    0 if progress.recent_active else progress.silent_periods + 1
                )
                progress.recent_active = False
        if not raft.config.check_quorum:
            return True
        membership = raft.membership
        if joint_vote(membership.voters, membership.outgoing, active) is VoteResult.WON:
            return True
        raft.become_follower(raft.term, NOBODY)
        return False

    def _time_snapshots(self) -> None:
        config = self._raft.config
        for progress in self.progress.values():
            if progress.state is ProgressState.SNAPSHOT:
                progress.snapshot_ticks += config.heartbeat_tick
                if progress.snapshot_ticks >= config.snapshot_tick:
                    self._snapshot_failed(progress)

    # --- replies -------------------------------------------------------------------------

    def on_append_reply(self, reply: AppendReply) -> None:
        progress = self.progress.get(reply.sender)
        if progress is None:
            return
        index = reply.index
        assert index <= self._raft.log.last, (reply, self._raft.log.last)
        progress.recent_active = True
        news = progress.acknowledged(index)
        match progress.state:
            case ProgressState.REPLICATE:
                progress.inflights.free_to(index)
            case ProgressState.PROBE:
                if index >= progress.match:
                    progress.become_replicate()
            case ProgressState.SNAPSHOT:
                # Any entry may have brought it within reach of the log, not only the snapshot.
                if progress.match + 1 >= self._raft.log.first_index():
                    progress.become_replicate()
            case _:
                assert_never(progress.state)
        self.flush_wanted = True
        if news:
            self.commit()
            if reply.sender == self.transferee:
                self._time_out_transferee()

    def on_append_reject(self, reject: AppendReject) -> None:
        progress = self.progress.get(reject.sender)
        if progress is None:
            return
        progress.recent_active = True
        if reject.rejected == 0:
            self._join(reject.sender, progress)
            return
        agree = reject.hint_index
        if reject.hint_term:
            agree, _ = self._raft.log.agree_at_most(agree, reject.hint_term)
        if progress.rejected(reject.rejected, agree):
            self.flush_wanted = True

    def _join(self, member: int, progress: Progress) -> None:
        """A member refuses even the log's very beginning: it has nothing at all."""
        if progress.match == 0 and progress.state is not ProgressState.SNAPSHOT:
            self._send_snapshot(member, progress)

    def on_heartbeat_reply(self, reply: HeartbeatReply) -> None:
        progress = self.progress.get(reply.sender)
        if progress is None:
            return
        progress.recent_active = True
        progress.probe_sent = False
        # It is alive and lacks something: if that was lost, an empty append finds out, also
        # when the window is full of messages that never arrived.
        if progress.match < self._raft.log.last or progress.state is ProgressState.PROBE:
            progress.wants_empty = self.flush_wanted = True
        if reply.read_round > progress.read_round:
            progress.read_round = reply.read_round
            self.answer_reads()

    def durable(self, index: int) -> None:
        """This node's own log is durable up to `index`: now its own vote counts."""
        progress = self.progress.get(self._raft.id)
        if progress is not None and progress.acknowledged(index):
            self.commit()

    def commit(self) -> None:
        """Commit what a majority has, up to an entry of the own term (thesis §3.6.2)."""
        raft = self._raft
        log, membership = raft.log, raft.membership
        acked = {member: progress.match for member, progress in self.progress.items()}
        index = joint_index(membership.voters, membership.outgoing, acked)
        if index <= log.committed or log.term(index) != raft.term:
            return
        log.commit_to(index)
        self.uncommitted.release(index)
        self.flush_wanted = True
        if not self.committed_in_term:
            self.committed_in_term = True
            self.reads.resume(index)

    # --- reads ---------------------------------------------------------------------------

    def read(self, requester: int, context: bytes | int) -> None:
        """Begin a read, or `ReadRefused`."""
        if self.reads.count() >= self._raft.config.max_pending_reads:
            raise ReadRefused(DropReason.TOO_MANY_READS)
        if self.committed_in_term:
            self.reads.add(requester, context, self._raft.log.committed)
            self.flush_wanted = True
        else:
            self.reads.postpone(requester, context)

    def answer_reads(self) -> None:
        """Answer the reads whose round a majority has answered."""
        reads, raft = self.reads, self._raft
        if not reads.waiting:
            return
        acked = {member: progress.read_round for member, progress in self.progress.items()}
        acked[raft.id] = reads.round
        membership = raft.membership
        for read in reads.confirm(joint_index(membership.voters, membership.outgoing, acked)):
            if read.requester == raft.id:
                raft.read_states.append(ReadState(read.context, read.commit))
            else:
                assert isinstance(read.context, int)
                raft.messages.append(
                    ReadIndexReply(raft.id, read.requester, raft.term, read.context, read.commit)
                )

    # --- handing over --------------------------------------------------------------------

    def transfer(self, target: int) -> bool:
        """Begin to hand leadership to a voter; False when that makes no sense."""
        if target == self._raft.id or target not in self._raft.membership.voters:
            return False
        if self.transferee != target:
            self.transferee = target
            self.election_elapsed = 0
            self.progress[target].wants_empty = self.flush_wanted = True
            self._time_out_transferee()
        return True

    def _time_out_transferee(self) -> None:
        raft = self._raft
        if self.progress[self.transferee].match == raft.log.last:
            raft.messages.append(TimeoutNow(raft.id, self.transferee, raft.term))

    # --- membership ----------------------------------------------------------------------

    def reconfigure(self) -> None:
        """The membership has changed."""
        raft = self._raft
        present = members(raft.membership)
        for gone in self.progress.keys() - set(present):
            del self.progress[gone]
        for member in present:
            if member not in self.progress:
                progress = self.progress[member] = self._new_progress()
                # It had no chance to answer yet: the quorum check must not count it as lost.
                progress.recent_active = True
        if self.transferee and self.transferee not in raft.membership.voters:
            self.transferee = NOBODY
        self.flush_wanted = True
        if raft.config.step_down_on_removal and not is_voter(raft.membership, raft.id):
            raft.become_follower(raft.term, NOBODY)
            return
        self.commit()
        self.answer_reads()

    # --- sending -------------------------------------------------------------------------

    def unreachable(self, member: int) -> None:
        """Messages to this member are being lost: send one at a time."""
        progress = self.progress.get(member)
        if progress is not None and progress.state is ProgressState.REPLICATE:
            progress.become_probe()

    def snapshot_progress(self, member: int) -> bool:
        """A snapshot's way goes on; False when none is on its way to this member."""
        progress = self.progress.get(member)
        if progress is None or progress.state is not ProgressState.SNAPSHOT:
            return False
        progress.snapshot_ticks = 0
        return True

    def snapshot_reported(self, member: int, ok: bool) -> None:
        """A snapshot's way has ended; if well, the member's own reply says it best."""
        progress = self.progress.get(member)
        if progress is None or progress.state is not ProgressState.SNAPSHOT:
            return
        if ok:
            progress.become_probe()
            progress.probe_sent = True
        else:
            self._snapshot_failed(progress)

    def _snapshot_failed(self, progress: Progress) -> None:
        progress.pending_snapshot = 0
        progress.become_probe()
        progress.probe_sent = True  # the next heartbeat's reply begins again

    def flush(self) -> None:
        """Make the messages that this turn's events have called for."""
        self.flush_wanted = False
        reads = self.reads
        if self.heartbeat_wanted or reads.wanted:
            self.heartbeat_wanted = False
            reads.open_round()
            self._send_heartbeats()
            self.answer_reads()  # a group of one voter asks nobody
        own = self._raft.id
        for member, progress in self.progress.items():
            if member != own:
                while self._send_append(member, progress):
                    pass
        self._shared = (0, 0, (), 0)

    def _send_heartbeats(self) -> None:
        raft, read_round = self._raft, self.reads.round
        committed = raft.log.committed
        for member, progress in self.progress.items():
            if member != raft.id:
                commit = min(progress.match, committed)
                progress.sent_commit = max(progress.sent_commit, commit)
                raft.messages.append(
                    HeartbeatRequest(raft.id, member, raft.term, commit, read_round)
                )

    def _send_append(self, member: int, progress: Progress) -> bool:
        """Send one append if there is reason to; True when another one may follow."""
        raft = self._raft
        log, paused = raft.log, progress.paused()
        replicating = progress.state is ProgressState.REPLICATE
        low, last = progress.next, log.last
        carries = low <= last and not paused
        if not carries and not (
            (replicating or not paused) and self._empty_append_due(progress, replicating)
        ):
            return False
        try:
            prev_term = log.term(low - 1)
            entries, size = self._entries_from(low, last) if carries else ((), 0)
        except Compacted:
            self._send_snapshot(member, progress)
            return False
        raft.messages.append(
            AppendRequest(raft.id, member, raft.term, low - 1, prev_term, log.committed, entries)
        )
        progress.wants_empty = False
        progress.sent_commit = log.committed
        if not replicating:
            progress.probe_sent = True
            return False
        if entries:
            progress.sent(entries[-1].index, size)
        return bool(entries)

    def _empty_append_due(self, progress: Progress, replicating: bool) -> bool:
        if progress.wants_empty:
            return True
        raft = self._raft
        return (
            replicating and raft.config.eager_commit and progress.sent_commit < raft.log.committed
        )

    def _entries_from(self, low: int, last: int) -> tuple[tuple[Entry, ...], int]:
        """The next message's entries and their bytes: the same tuple for each follower."""
        shared = self._shared
        if shared[0] != low or shared[1] != last:
            limit = self._raft.config.max_entry_bytes_per_message
            entries = tuple(self._raft.log.entries(low, last + 1, limit))
            shared = self._shared = low, last, entries, sum([len(e.data) for e in entries])
        return shared[2], shared[3]

    def _send_snapshot(self, member: int, progress: Progress) -> None:
        raft = self._raft
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        progress.probe_sent = True  # without a snapshot now, a heartbeat's reply asks again
        if not progress.recent_active:
            return
        try:
            snapshot = raft.log.storage.snapshot()
        except SnapshotUnavailable:
            return
        assert snapshot.index + 1 >= raft.log.first_index(), "compacted beyond the snapshot"
        progress.become_snapshot(snapshot.index)
        raft.messages.append(SnapshotRequest(raft.id, member, raft.term, snapshot))

    def compactable_to(self) -> int:
        """Up to where the log may be compacted without cutting off a member that follows.

        Members that were silent for two quorum checks do not hold the log back, until they
        are heard again.
        """
        index = self._raft.log.applied
        for member, progress in self.progress.items():
            answers = progress.recent_active or progress.silent_periods < 2
            if member != self._raft.id and answers:
                index = min(index, max(progress.match, progress.pending_snapshot))
        return index
