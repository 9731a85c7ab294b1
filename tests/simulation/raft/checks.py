"""What must hold of one group at every step; nothing may contradict later what was once true.

    one leader per term            a leader has everything that is committed
    commits are by a quorum        on its disks, up to an entry of the leader's own term
    logs match                     an entry of (index, term) is the same everywhere, and its past
    one history of commits         and the machines are its fold, also out of a snapshot
    nothing goes back              term, vote and commit on disk; commit and applied in a life
    promises are durable           votes, acknowledgements and terms on the wire
    pre-votes change nothing       who asks before it stands keeps its term
    reads are linearizable         at or after all that was known to be done when they were asked

Each look is at one node and at what has changed there since the last.
"""

from __future__ import annotations

from raftlog.errors import StorageError
from raftlog.membership import decode_change, next_membership
from raftlog.messages import (
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    HeartbeatReply,
    Membership,
    Message,
    VoteReply,
    VoteRequest,
)
from raftlog.node import RawNode
from raftlog.ready import Ready, Role
from tests.simulation.raft.host import Host
from tests.simulation.raft.machine import fold
from tests.simulation.violation import Violation

NEVER = (0, 0, 0, 0, Role.FOLLOWER)


class Checker:
    """Looks at the hosts; remembers what may never change."""

    def __init__(self, hosts: dict[int, Host], founders: Membership) -> None:
        self.hosts = hosts
        self.leaders: dict[int, int] = {}  #: term -> who led it
        self.votes: dict[tuple[int, int], int] = {}  #: (term, voter) -> for whom
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}  #: with the term before
        self.terms: list[int] = [0]  #: of what is committed, by index
        self.history: list[Entry | None] = [None]  #: of what is applied, by index
        self.folds: list[int] = [0]  #: of the history, by index
        self.membership = founders  #: the newest that is applied anywhere
        self.memberships: dict[int, Membership] = {0: founders}  #: from which index on
        self._durable: dict[int, HardState] = {}
        self._seen: dict[int, tuple[int, int, int, int, Role]] = {}
        """Of each host: its life, commit, applied, term and role when last looked at."""
        self._was: dict[int, Membership] = {}

    # --- what hosts report ----------------------------------------------------------------

    def started(self, host: Host) -> None:
        """It has forgotten nothing that it wrote."""
        node, durable = host.node, self._durable.get(host.id, HardState())
        assert node is not None
        hard, _ = host.disk.initial_state()
        if hard != durable or node.term != durable.term:
            raise Violation("nothing goes back", f"{host.id} starts with {hard}, had {durable}")
        self._is_fold(host)

    def sends(self, host: Host, message: Message) -> None:
        """Every promise on the wire is in its sender's durable image."""
        match message:
            case AppendReply():
                hard, _ = host.disk.initial_state()
                kept = hard.term == message.term and host.disk.last_index() >= message.index
                if not kept or not self._has_of_leader(host, message):
                    self._unkept(host, message, hard)
            case VoteReply(granted=True):
                hard, _ = host.disk.initial_state()
                if (hard.term, hard.vote) != (message.term, message.target):
                    self._unkept(host, message, hard)
                self._vote(message.term, host.id, message.target)
            case VoteRequest():
                hard, _ = host.disk.initial_state()
                if (hard.term, hard.vote) != (message.term, message.sender):
                    self._unkept(host, message, hard)
                self._vote(message.term, host.id, host.id)
            case HeartbeatReply():
                hard, _ = host.disk.initial_state()
                if hard.term < message.term:
                    self._unkept(host, message, hard)
            case _:
                pass

    def wrote(self, host: Host, ready: Ready) -> None:
        """Log matching, and nothing on disk goes back."""
        disk = host.disk
        before = disk.term(ready.entries[0].index - 1) if ready.entries else 0
        for entry in ready.entries:
            mark = (entry, before)
            known = self.entries.setdefault((entry.index, entry.term), mark)
            if known is not mark and known != mark:
                raise Violation("logs match", f"{known} and {mark} on {host.id}")
            before = entry.term
        hard, _ = disk.initial_state()
        old = self._durable.get(host.id)
        if old is not None and old is not hard:
            voted = hard.term > old.term or old.vote in (0, hard.vote)
            if hard.term < old.term or hard.commit < old.commit or not voted:
                raise Violation("nothing goes back", f"{old} became {hard} on {host.id}")
        self._durable[host.id] = hard

    def applied(self, host: Host, ready: Ready) -> None:
        """One history, and the machine is its fold."""
        history = self.history
        for entry in ready.committed:
            index = entry.index
            if index == len(history):
                history.append(entry)
                self.folds.append(fold(self.folds[-1], entry))
                if entry.kind == EntryKind.CHANGE:
                    change = decode_change(entry.data)
                    self.membership = next_membership(self.membership, change)
                    self.memberships[index] = self.membership
            known = history[index]
            if known is not entry and known != entry:
                text = f"{known} and {entry} applied by {host.id}"
                raise Violation("one history of commits", text)
        if ready.snapshot is not None or ready.committed:
            self._is_fold(host)

    def stepped(self, host: Host) -> None:
        """One leader per term, who has everything; commit and applied never go back."""
        node = host.node
        if node is None:
            return
        now = (host.lives, node.commit, node.applied, node.term, node.role)
        seen = self._seen.get(host.id, NEVER)
        if now == seen:
            return
        self._seen[host.id] = now
        life, commit, applied, term, role = seen if seen[0] == host.lives else NEVER
        if node.commit < commit or node.applied < applied or node.term < term:
            raise Violation("nothing goes back", f"{host.id} had {seen}, now {now}")
        if node.commit > commit:
            self._committed(host, node, commit, applied)
        if node.role is Role.LEADER and (role is not Role.LEADER or node.term != term):
            self._leads(host, node)
        elif node.role is Role.PRE_CANDIDATE and node.term != term and life:
            text = f"{host.id} went from term {term} to {node.term} by asking for pre-votes"
            raise Violation("pre-votes change nothing", text)
        self._was[host.id] = node.membership

    # --- what that means ------------------------------------------------------------------

    def _vote(self, term: int, voter: int, candidate: int) -> None:
        if self.votes.setdefault((term, voter), candidate) != candidate:
            text = f"{voter} votes for {candidate} and {self.votes[term, voter]} in term {term}"
            raise Violation("promises are durable", text)

    def _has_of_leader(self, host: Host, message: AppendReply) -> bool:
        """Whether the acknowledged entry is the leader's own, as far as the leader knows it."""
        leader = self.hosts[message.target].node
        if leader is None or leader.term != message.term or leader.role is not Role.LEADER:
            return True
        try:
            return host.disk.term(message.index) == leader._raft.log.term(message.index)
        except StorageError:
            return message.index <= max(leader.commit, host.disk.first_index() - 1)

    def _unkept(self, host: Host, message: Message, hard: HardState) -> None:
        text = f"{host.id} says {message}, on its disk are {hard}, {host.disk.last_index()}"
        raise Violation("promises are durable", text)

    def _leads(self, host: Host, node: RawNode) -> None:
        term = node.term
        if self.leaders.setdefault(term, host.id) != host.id:
            text = f"{self.leaders[term]} and {host.id} lead term {term}"
            raise Violation("one leader per term", text)
        for index in range(node._raft.log.first_index(), len(self.terms)):
            self._leader_has(host, node, index, self.terms[index])

    def _leader_has(self, host: Host, node: RawNode, index: int, term: int) -> None:
        if node.term < term:
            return  # committed after its time
        try:
            own = node._raft.log.term(index)
        except StorageError:
            own = -1
        if own != term and (own != -1 or index >= node._raft.log.first_index()):
            text = f"{host.id} leads term {node.term} without entry {index} of term {term}"
            raise Violation("leader completeness", text)

    def _committed(self, host: Host, node: RawNode, before: int, applied: int) -> None:
        """What it says is committed is the same everywhere, and all newer leaders have it."""
        terms, log, commit = self.terms, node._raft.log, node.commit
        if node.role is Role.LEADER and commit > before:
            self._is_by_quorum(host, node, commit, applied)
        for index in range(max(log.first_index(), before + 1), commit + 1):
            term = log.term(index)
            if index == len(terms):
                terms.append(term)
                for other in self.hosts.values():
                    leader = other.node
                    if (
                        leader is not None
                        and leader.role is Role.LEADER
                        and leader.term > node.term
                    ):
                        self._leader_has(other, leader, index, term)
            elif terms[index] != term:
                text = f"{host.id} committed {index} of term {term}, others of {terms[index]}"
                raise Violation("one history of commits", text)

    def _is_by_quorum(self, host: Host, node: RawNode, commit: int, applied: int) -> None:
        """What a leader commits is of its own term, and on the disks of both majorities."""
        term = node._raft.log.term(commit)
        if term != node.term:
            text = f"{host.id} in term {node.term} commits {commit} of term {term} by counting"
            raise Violation("commits are by a quorum", text)
        # Since the last look it may have applied changes, before it committed this or after.
        possible = [self._was.get(host.id, node.membership), node.membership]
        passed = range(applied + 1, node.applied + 1)
        possible += [self.memberships[index] for index in passed if index in self.memberships]
        if not any(self._is_kept(membership, commit, term) for membership in possible):
            text = f"{host.id} commits {commit} of term {term} without a quorum of {possible}"
            raise Violation("commits are by a quorum", text)

    def _is_kept(self, membership: Membership, index: int, term: int) -> bool:
        """Whether both majorities have it on disk."""
        for voters in (membership.voters, membership.outgoing):
            have = [id for id in voters if _has(self.hosts[id], index, term)]
            if voters and 2 * len(have) <= len(voters):
                return False
        return True

    def _is_fold(self, host: Host) -> None:
        machine = host.machine
        if machine.index >= len(self.folds) or self.folds[machine.index] != machine.sum:
            text = f"{host.id} at {machine.index} has {machine.sum}"
            raise Violation("the machine is the fold of the log", text)

    # --- at any time ----------------------------------------------------------------------

    def done(self) -> int:
        """The highest index that is known to be committed somewhere."""
        return len(self.terms) - 1


def _has(host: Host, index: int, term: int) -> bool:
    """Whether this is on its disk, or in what was compacted there."""
    disk = host.disk
    return disk.first_index() > index or (disk.last_index() >= index and disk.term(index) == term)
