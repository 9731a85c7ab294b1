"""One Raft node as a state machine: terms, elections, and what a follower does.

                       timeout                  pre-votes won
       +----------+ ------------> +---------------+ ------> +-----------+
       | FOLLOWER |               | PRE_CANDIDATE |         | CANDIDATE |
       +----------+ <------------ +---------------+         +-----------+
         ^   ^  ^    lost, or a leader speaks                 |       |
         |   |  +---------------------------------------------+       | won
         |   |       higher term, no majority, removed                v
         |   +--------------------------------------------------- +--------+
         |                                                        | LEADER |
         +-- any message of a higher term, except pre-votes       +--------+

It reads no clock, draws no chance and waits for nothing. Messages that promise durable state
collect in `messages_after`, all others in `messages`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from raftlog.chance import Chance, SeededChance
from raftlog.config import Config
from raftlog.errors import DropReason, ReadRefused, assert_never
from raftlog.leader import Leader
from raftlog.log import Log
from raftlog.membership import Change, is_voter, next_membership
from raftlog.messages import (
    NOBODY,
    AppendReject,
    AppendReply,
    AppendRequest,
    EntryKind,
    HeartbeatReply,
    HeartbeatRequest,
    Membership,
    Message,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    Snapshot,
    SnapshotRequest,
    StaleTerm,
    TimeoutNow,
    VoteReply,
    VoteRequest,
)
from raftlog.quorum import VoteResult, joint_vote
from raftlog.ready import ReadState, Role
from raftlog.storage import Storage


class Raft:
    """The state machine; `RawNode` is its face."""

    __slots__ = (
        "_candidacies",
        "_chance",
        "_forwarded",
        "_leader_doubted",
        "_read_context",
        "_votes",
        "config",
        "durable_term",
        "election_elapsed",
        "election_timeout",
        "id",
        "leader",
        "leading",
        "log",
        "membership",
        "messages",
        "messages_after",
        "read_states",
        "role",
        "term",
        "vote",
    )

    def __init__(self, config: Config, storage: Storage) -> None:
        hard_state, membership = storage.initial_state()
        self.config = config
        self.id = config.id
        self.log = Log.open(
            storage,
            committed=hard_state.commit,
            applied=config.applied,
            cached_bytes_max=config.max_cached_bytes,
        )
        self.membership = membership
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.durable_term = hard_state.term
        self.role = Role.FOLLOWER
        self.leader = NOBODY
        self.leading: Leader | None = None  #: exists while the role is LEADER
        self.messages: list[Message] = []
        self.messages_after: list[Message] = []
        self.read_states: list[ReadState] = []
        self.election_elapsed = 0
        self.election_timeout = 0
        self._chance: Chance = config.rng or SeededChance(config.seed ^ config.id << 32)
        self._votes: dict[int, bool] = {}
        self._leader_doubted = False  #: its process seems dead: others may be voted for
        self._candidacies = 0  #: elections stood for since a leader was known
        self._forwarded: dict[int, bytes | int] = {}  #: reads sent to the leader
        # Replies to another life of this node must not be taken for answers to this one.
        self._read_context = self._chance.randrange(1 << 48) << 14
        self._restart_election_timer()

    # --- time ----------------------------------------------------------------------------

    def tick(self) -> None:
        """One unit of time has passed."""
        if self.leading is not None:
            self.leading.tick()
            return
        self.election_elapsed += 1
        if self.election_elapsed >= self.election_timeout:
            self._time_out()

    def idle_ticks(self) -> int:
        """How many ticks from now only count."""
        if self.leading is not None:
            return self.leading.idle_ticks()
        return max(0, self.election_timeout - self.election_elapsed - 1)

    def pass_ticks(self, count: int) -> None:
        """Ticks that only count."""
        assert 0 <= count <= self.idle_ticks(), (count, self.idle_ticks())
        if self.leading is not None:
            self.leading.election_elapsed += count
            self.leading.heartbeat_elapsed += count
        else:
            self.election_elapsed += count

    def _time_out(self) -> None:
        if self._may_stand():
            self.campaign()
            return
        # The elapsed time goes on: a learner must not stick to a leader that is gone, for it
        # may have been made a voter without knowing.
        self.leader = NOBODY
        self.election_timeout = self.election_elapsed + self.config.election_tick

    def _restart_election_timer(self) -> None:
        self.election_elapsed = 0
        self._leader_doubted = False
        base = self.config.election_tick
        # Who stands again, for the votes were split, spreads wider than the first time.
        spread = 2 * base if self._candidacies > 1 else base
        self.election_timeout = base + self._chance.randrange(spread)

    def doubt_leader(self, wait: int | None) -> None:
        """The leader's process seems dead: ask for pre-votes after a few staggered ticks."""
        self._leader_doubted = True
        if self.config.pre_vote:
            stagger = wait or 1 + self._chance.randrange(1 + self.config.election_tick // 4)
            self.election_timeout = min(self.election_timeout, self.election_elapsed + stagger)

    # --- becoming ------------------------------------------------------------------------

    def become_follower(self, term: int, leader: int) -> None:
        """Follow `leader` (perhaps nobody yet) in `term`."""
        self._begin(Role.FOLLOWER, term)
        self.leader = leader

    def _begin(self, role: Role, term: int) -> None:
        assert term >= self.term
        if term > self.term:
            self.term = term
            self.vote = NOBODY
            # What was promised in the old term helps nobody any more, and the log may be cut
            # before the promise would leave.
            self.messages_after = []
        self.role = role
        self.leader = NOBODY
        self.leading = None
        self._votes = {}
        self._forwarded.clear()
        self._restart_election_timer()

    def _become_leader(self) -> None:
        assert self.role is Role.CANDIDATE and self.durable_term == self.term
        self._candidacies = 0
        self._begin(Role.LEADER, self.term)
        self.leader = self.id
        self.leading = Leader(self)
        # Nothing of older terms is committed before an entry of this one (thesis §3.6.2).
        self.leading.append(EntryKind.NORMAL, b"")

    # --- elections -----------------------------------------------------------------------

    def campaign(self) -> None:
        """Stand for election, if that is allowed; with `pre_vote`, ask first."""
        if not self._may_stand():
            return
        if self.config.pre_vote:
            self._ask_first()
        else:
            self._stand(transfer=False)

    def _may_stand(self) -> bool:
        log = self.log
        return (
            self.leading is None
            # Made anew, this replica votes for no log that lacks what it had acknowledged: nor
            # for its own, while the membership that it has learned of is as old as that log.
            and log.is_up_to_date(log.last, log.last_term())
            and is_voter(self.membership, self.id)
            and self.log.snapshot is None
            and not self._has_change(self.log.committed)
        )

    def _has_change(self, last: int) -> bool:
        """Whether a change waits up to `last`: this node may not know who votes."""
        log = self.log
        low = log.applied + 1
        while low <= last:
            part = log.entries(low, last + 1, 1 << 20)
            if any(entry.kind == EntryKind.CHANGE for entry in part):
                return True
            low = part[-1].index + 1
        return False

    def _ask_first(self) -> None:
        # Neither term nor vote change, but who stands knows of no leader.
        self._begin(Role.PRE_CANDIDATE, self.term)
        self._votes[self.id] = True
        if self._result() is VoteResult.WON:
            self._stand(transfer=False)
            return
        last, last_term = self.log.last, self.log.last_term()
        for voter in self._other_voters():
            self.messages.append(PreVoteRequest(self.id, voter, self.term + 1, last, last_term))

    def _stand(self, *, transfer: bool) -> None:
        self._candidacies += 1
        self._begin(Role.CANDIDATE, self.term + 1)
        self.vote = self.id
        last, last_term = self.log.last, self.log.last_term()
        for voter in self._other_voters():
            self.messages_after.append(
                VoteRequest(self.id, voter, self.term, last, last_term, transfer)
            )

    def _other_voters(self) -> Iterable[int]:
        membership = self.membership
        return sorted({*membership.voters, *membership.outgoing} - {self.id})

    def _result(self) -> VoteResult:
        return joint_vote(self.membership.voters, self.membership.outgoing, self._votes)

    def _count_pre_vote(self, reply: PreVoteReply) -> None:
        if self.role is not Role.PRE_CANDIDATE:
            return
        if reply.granted and reply.term != self.term + 1:
            return  # an answer to an older question
        self._votes.setdefault(reply.sender, reply.granted)
        match self._result():
            case VoteResult.WON:
                self._stand(transfer=False)
            case VoteResult.LOST:
                self.become_follower(self.term, NOBODY)
            case VoteResult.PENDING:
                pass

    def _count_vote(self, voter: int, granted: bool) -> None:
        self._votes.setdefault(voter, granted)
        if self.durable_term != self.term:
            # Its own vote is written, or no request would have left, but this node has not heard
            # of it: the driver is still busy with the rest of the turn. `durable` counts again.
            return
        match self._result():
            case VoteResult.WON:
                self._become_leader()
            case VoteResult.LOST:
                self.become_follower(self.term, NOBODY)
            case VoteResult.PENDING:
                pass

    def durable(self, term: int) -> None:
        """Term and vote of `term`, and the log up to `log.stable`, are on the disk."""
        self.durable_term = term
        if self.leading is not None:
            self.leading.durable(self.log.stable)
        elif self.role is Role.CANDIDATE and term == self.term and self.id not in self._votes:
            self._count_vote(self.id, granted=True)

    def _sticks_to_leader(self) -> bool:
        """Whether a leader was heard so recently that nobody else is voted for (§4.2.3)."""
        return (
            self.config.check_quorum
            and self.leader != NOBODY
            and not self._leader_doubted
            and (self.leading is not None or self.election_elapsed < self.config.election_tick)
        )

    def _answer_pre_vote(self, request: PreVoteRequest) -> None:
        granted = (
            request.term > self.term
            and self.log.is_up_to_date(request.last_index, request.last_term)
            and not self._stands_before(request)
        )
        if granted:
            reply = PreVoteReply(self.id, request.sender, request.term, True)
        else:
            index, term = self._committed()
            reply = PreVoteReply(self.id, request.sender, self.term, False, index, term)
        self.messages.append(reply)

    def _committed(self) -> tuple[int, int]:
        """Index and term of the last entry known to be committed."""
        index = self.log.committed
        return index, self.log.term(index)

    def _hear_refusal(self, reply: PreVoteReply | VoteReply) -> None:
        """Take over what a refusal says is committed, when it is in this log.

        A removed leader whose longer log refuses its vote does not lead any more, and may be
        the only one to know that its removal is committed: from it the others hear that they
        do not need it. (That is always safe. Voting for a shorter log never is, for a leader
        that does not know of the removal counts this node's acknowledgements.)
        """
        log = self.log
        if reply.commit_index <= log.committed:
            return
        if log.has(reply.commit_index, reply.commit_term):
            log.commit_to(reply.commit_index)
            if not self._may_stand():
                self.become_follower(self.term, NOBODY)  # until it knows who votes

    def _stands_before(self, request: PreVoteRequest) -> bool:
        """Whether this node has just asked the same with the same right, and a lower id.

        Followers who lose their leader together ask together: if each helped the other, the
        votes would be split and a whole timeout lost. After two ticks the right is over.
        """
        return (
            self.role is Role.PRE_CANDIDATE
            and self.election_elapsed < 2
            and self.id < request.sender
            and (request.last_index, request.last_term) == (self.log.last, self.log.last_term())
        )

    def _answer_vote(self, request: VoteRequest) -> None:
        free = self.vote == request.sender or (self.vote == NOBODY and self.leader == NOBODY)
        if free and self.log.is_up_to_date(request.last_index, request.last_term):
            self.vote = request.sender
            self.election_elapsed = 0
            reply = VoteReply(self.id, request.sender, self.term, True)
        else:
            index, term = self._committed()
            reply = VoteReply(self.id, request.sender, self.term, False, index, term)
        self.messages_after.append(reply)

    # --- messages ------------------------------------------------------------------------

    def step(self, message: Message) -> None:
        """Take a message from another node. One for another target is none of our business."""
        if message.target != self.id:
            return
        if message.term > self.term:
            if not self._meet_higher_term(message):
                return
        elif message.term < self.term and not self._meet_lower_term(message):
            return
        if self.leading is not None:
            self._step_leader(self.leading, message)
        elif self.role is Role.FOLLOWER:
            self._step_follower(message)
        else:
            self._step_candidate(message)

    def _meet_higher_term(self, message: Message) -> bool:
        """Take over a higher term; False when the message is to be ignored."""
        match message:
            case PreVoteRequest():
                return not self._sticks_to_leader()
            case PreVoteReply(granted=True):
                return True  # of the term that would be
            case VoteRequest():
                if self._sticks_to_leader() and not message.transfer:
                    return False
                self.become_follower(message.term, NOBODY)
            case AppendRequest() | HeartbeatRequest() | SnapshotRequest():
                self.become_follower(message.term, message.sender)
            case _:
                self.become_follower(message.term, NOBODY)
        return True

    def _meet_lower_term(self, message: Message) -> bool:
        """Tell who is behind; True when the message has a meaning all the same."""
        match message:
            case AppendRequest() | HeartbeatRequest() | SnapshotRequest():
                # With pre-votes and sticky voters this node's higher term would never reach
                # that leader, nor would this node ever be heard.
                self.messages.append(StaleTerm(self.id, message.sender, self.term))
            case PreVoteRequest():
                self._answer_pre_vote(message)
            case VoteRequest():
                self.messages_after.append(
                    VoteReply(self.id, message.sender, self.term, granted=False)
                )
            case PreVoteReply():
                return not message.granted  # refused by a node behind us, with a longer log
            case _:
                pass
        return False

    def _step_leader(self, leading: Leader, message: Message) -> None:
        match message:
            case AppendReply():
                leading.on_append_reply(message)
            case HeartbeatReply():
                leading.on_heartbeat_reply(message)
            case AppendReject():
                leading.on_append_reject(message)
            case ReadIndexRequest():
                self._read_for_other(leading, message)
            case PreVoteRequest():
                self._answer_pre_vote(message)
            case VoteRequest():
                self._answer_vote(message)
            case AppendRequest() | HeartbeatRequest() | SnapshotRequest():
                raise AssertionError(f"two leaders in term {self.term}: {message}")
            case PreVoteReply() | VoteReply() | StaleTerm() | TimeoutNow() | ReadIndexReply():
                pass  # too late
            case _:
                assert_never(message)

    def _step_follower(self, message: Message) -> None:
        match message:
            case AppendRequest():
                self._hear_leader(message.sender)
                self._follow(message)
            case HeartbeatRequest():
                self._hear_leader(message.sender)
                self._answer_heartbeat(message)
            case SnapshotRequest():
                self._hear_leader(message.sender)
                self._restore(message)
            case PreVoteRequest():
                self._answer_pre_vote(message)
            case VoteRequest():
                self._answer_vote(message)
            case TimeoutNow():
                if self._may_stand():
                    self._stand(transfer=True)
            case ReadIndexReply():
                self._finish_read(message)
            case (
                AppendReply()
                | AppendReject()
                | HeartbeatReply()
                | PreVoteReply()
                | VoteReply()
                | StaleTerm()
                | ReadIndexRequest()
            ):
                pass  # for a leader or candidate that this node is no more
            case _:
                assert_never(message)

    def _step_candidate(self, message: Message) -> None:
        match message:
            case AppendRequest() | HeartbeatRequest() | SnapshotRequest():
                self.become_follower(self.term, message.sender)
                self._step_follower(message)
            case PreVoteReply():
                self._hear_refusal(message)
                self._count_pre_vote(message)
            case VoteReply():
                self._hear_refusal(message)
                if self.role is Role.CANDIDATE:
                    self._count_vote(message.sender, message.granted)
            case PreVoteRequest():
                self._answer_pre_vote(message)
            case VoteRequest():
                self._answer_vote(message)
            case (
                AppendReply()
                | AppendReject()
                | HeartbeatReply()
                | TimeoutNow()
                | StaleTerm()
                | ReadIndexRequest()
                | ReadIndexReply()
            ):
                pass
            case _:
                assert_never(message)

    # --- following -----------------------------------------------------------------------

    def _hear_leader(self, leader: int) -> None:
        assert self.leader in (NOBODY, leader), f"{leader} and {self.leader} in term {self.term}"
        self.leader = leader
        self.election_elapsed = self._candidacies = 0
        if self._leader_doubted:
            self._restart_election_timer()

    def _follow(self, request: AppendRequest) -> None:
        log, prev = self.log, request.prev_index
        if not self.membership.voters and log.snapshot is None:
            # Who joins with nothing does not know on what the log's changes build. Refusing
            # even prev_index 0 makes the leader send a snapshot, which says.
            self.messages_after.append(AppendReject(self.id, request.sender, self.term, prev, 0, 0))
        elif prev < log.committed:
            self._acknowledge(request.sender, log.committed)
        elif log.follow(prev, request.prev_term, request.entries):
            last = prev + len(request.entries)
            log.commit_to(min(request.commit, last))
            self._acknowledge(request.sender, last)
        else:
            hint, term = log.agree_at_most(prev, request.prev_term)
            self.messages_after.append(
                AppendReject(self.id, request.sender, self.term, prev, hint, term)
            )

    def _acknowledge(self, leader: int, index: int) -> None:
        self.messages_after.append(AppendReply(self.id, leader, self.term, index))

    def _answer_heartbeat(self, request: HeartbeatRequest) -> None:
        self.log.commit_to(request.commit)
        # It promises nothing but the term: when that is durable already, a read need not
        # wait for the write of entries.
        durable = self.durable_term == self.term
        messages = self.messages if durable else self.messages_after
        messages.append(HeartbeatReply(self.id, request.sender, self.term, request.read_round))

    def _restore(self, request: SnapshotRequest) -> None:
        snapshot, log = request.snapshot, self.log
        if self.lacks(snapshot):
            log.restore(snapshot)
        elif snapshot.index > log.committed:
            log.commit_to(snapshot.index)  # all of it is here, and perhaps more
        self._acknowledge(request.sender, log.committed)

    def lacks(self, snapshot: Snapshot) -> bool:
        """Whether a leader's snapshot would take the place of this log."""
        log = self.log
        if not self.membership.voters and log.snapshot is None:
            return True
        return snapshot.index > log.committed and not log.has(snapshot.index, snapshot.term)

    def snapshot_applied(self, snapshot: Snapshot) -> None:
        """A leader's snapshot is durable and in force, its membership like any other change.

        Not before: changes handed out by an earlier Ready build on the old membership.
        """
        self.log.snapshot_stable(snapshot)
        self.membership = snapshot.membership

    # --- reads ---------------------------------------------------------------------------

    def read_index(self, context: bytes | int) -> None:
        """Begin a read here, or ask the leader; `ReadRefused` when neither can be."""
        if self.leading is not None:
            self.leading.read(self.id, context)
            return
        if self.leader == NOBODY:
            raise ReadRefused(DropReason.NO_LEADER)
        if len(self._forwarded) >= self.config.max_pending_reads:
            # The oldest has most likely been lost on its way, which nobody would ever say.
            del self._forwarded[next(iter(self._forwarded))]
        self._read_context += 1
        self._forwarded[self._read_context] = context
        self.messages.append(ReadIndexRequest(self.id, self.leader, self.term, self._read_context))

    def _read_for_other(self, leading: Leader, request: ReadIndexRequest) -> None:
        with suppress(ReadRefused):  # who asked has a deadline of its own
            leading.read(request.sender, request.context)

    def _finish_read(self, reply: ReadIndexReply) -> None:
        context = self._forwarded.pop(reply.context, None)
        if context is not None:
            self.read_states.append(ReadState(context, reply.index))

    # --- membership ----------------------------------------------------------------------

    def apply_change(self, change: Change) -> Membership:
        """Apply a committed change; the membership from now on."""
        self.membership = next_membership(self.membership, change)
        if self.leading is not None:
            self.leading.reconfigure()
        return self.membership
