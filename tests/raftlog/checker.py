"""What must hold of a Raft group at every step; it remembers what was ever true of the group.

each message sent        promises are durable
each message taken       pre-votes change nothing
each write               log matching · terms begin with a candidate · one vote per term
                         · terms and commits never go back
each step of a node      one leader per term · leader completeness · commit and applied
                         never go back · commits are on a majority's disks
                         · memberships agree · candidates know no leader
each applied entry       one history of commits
each answered read       reads are not stale
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from raftlog.errors import StorageError
from raftlog.membership import decode_change
from raftlog.messages import (
    AppendReply,
    Entry,
    EntryKind,
    HardState,
    HeartbeatReply,
    Membership,
    Message,
    PreVoteRequest,
    VoteReply,
    VoteRequest,
)
from raftlog.node import RawNode, Role
from tests.raftlog.host import Host
from tests.raftlog.membership_model import model
from tests.simulation.violation import Violation

STANDING = (Role.PRE_CANDIDATE, Role.CANDIDATE)
COMPLETE_LAST = 5
"""How many of the last commits are looked for in a leader's log; the others were before."""


class _Life(NamedTuple):
    """What was seen last of a node between two crashes."""

    node: RawNode
    commit: int
    applied: int
    membership: Membership
    role: Role


class Checker:
    """Looks at all that the hosts of one group do. Nothing may contradict it later."""

    def __init__(self, hosts: Mapping[int, Host], founders: Membership) -> None:
        self.hosts = hosts
        self.leaders: dict[int, int] = {}  # term -> who led it
        self.stood: set[int] = set()  # terms in which somebody was a candidate
        self.entries: dict[tuple[int, int], tuple[Entry, int]] = {}  # with the term before
        self.committed: list[tuple[int, bytes]] = [(0, b"")]  # by index
        self.memberships = [founders]  # by index, as the second implementation makes them
        self.votes: dict[tuple[int, int], int] = {}  # (term, who) -> for whom, as written
        self.durable: dict[int, HardState] = {}
        self.lives: dict[int, _Life] = {}

    # --- messages ------------------------------------------------------------------------

    def sent(self, host: Host, message: Message) -> None:
        """A promise on the wire is in its sender's durable image."""
        hard, _ = host.storage.initial_state()
        match message:
            case AppendReply():
                kept = hard.term >= message.term and host.storage.last_index() >= message.index
            case HeartbeatReply():
                kept = hard.term >= message.term
            case VoteReply(granted=True):
                kept = (hard.term, hard.vote) == (message.term, message.target)
            case VoteRequest():
                kept = (hard.term, hard.vote) == (message.term, message.sender)
            case _:
                return
        if not (kept):
            raise _found("promises are durable", message, hard, host.storage.last_index())

    def step(self, host: Host, message: Message) -> None:
        """Give a message to a node, and look at what it does."""
        before = _standing(host.node)
        host.node.step(message)
        if isinstance(message, PreVoteRequest):
            after = _standing(host.node)
            if not (after == before):
                raise _found("pre-votes change nothing", message, before, after)
        self.looked_at(host)

    # --- disks ---------------------------------------------------------------------------

    def written(self, host: Host, entries: list[Entry]) -> None:
        """An entry of (index, term) is the same everywhere, and so is its past."""
        for entry in entries:
            before = host.storage.term(entry.index - 1)
            known = self.entries.setdefault((entry.index, entry.term), (entry, before))
            if not (known == (entry, before)):
                raise _found("log matching", known, entry, before)
        hard, _ = host.storage.initial_state()
        old = self.durable.get(host.node.id, HardState())
        back = hard.term < old.term or hard.commit < old.commit
        if back:
            raise _found("terms and commits never go back", old, hard)
        same = hard.term > old.term or old.vote in (0, hard.vote)
        if not (same):
            raise _found("one vote per term", old, hard)
        if hard.vote == host.node.id:
            self.stood.add(hard.term)
        began = hard.term == old.term or hard.term in self.stood
        if not (began):
            raise _found("terms begin with a candidate", old, hard)
        self.durable[host.node.id] = hard
        self.votes[hard.term, host.node.id] = hard.vote

    def applied(self, entries: list[Entry]) -> None:
        """One history of commits."""
        name = "one history of commits"
        for entry in entries:
            if not (entry.index <= len(self.committed)):
                raise _found(name, entry, len(self.committed))
            mark = (entry.term, entry.data)
            if entry.index == len(self.committed):
                self.committed.append(mark)
                self.memberships.append(self._after(entry))
            known = self.committed[entry.index]
            if not (known == mark):
                raise _found(name, known, entry)

    def _after(self, entry: Entry) -> Membership:
        last = self.memberships[-1]
        if entry.kind != EntryKind.CHANGE:
            return last
        after = model(last, decode_change(entry.data))
        if after is None:
            raise _found("memberships agree", "a change that cannot be", last, entry)
        return after

    # --- nodes ---------------------------------------------------------------------------

    def looked_at(self, host: Host) -> None:
        """Look at a node to which something has happened."""
        node = host.node
        old = self.lives.get(node.id)
        if old is None or old.node is not node:
            old = _Life(node, node.commit, node.applied, node.membership, node.role)
        back = node.commit < old.commit or node.applied < old.applied
        if back:
            raise _found("commit and applied never go back", node.status(), old.commit)
        self.lives[node.id] = _Life(node, node.commit, node.applied, node.membership, node.role)
        if node.applied != old.applied or node.membership != old.membership:
            self._agrees(host)
        if node.role in STANDING and node.role is not old.role:
            self._may_stand(node)
        if node.role in STANDING and node.leader:
            raise _found("candidates know no leader", node.status())
        if node.role is Role.CANDIDATE:
            self.stood.add(node.term)
        if node.role is Role.LEADER:
            known = self.leaders.setdefault(node.term, node.id)
            if not (known == node.id):
                raise _found("one leader per term", node.term, node.id, known)
            if node.role is not old.role:
                self._is_elected(node)
            self._is_complete(host)
            if node.commit > old.commit:
                self._is_of_its_term(node)
                self._is_durable(node, {old.membership, node.membership})

    def _agrees(self, host: Host) -> None:
        node = host.node
        if host.ready is None and node.membership.voters:
            known = self.memberships[node.applied]
            if node.membership != known:
                raise _found("memberships agree", node.id, node.applied, known, node.membership)

    def _may_stand(self, node: RawNode) -> None:
        if node.applied < node.commit:
            waiting = node._raft.log.entries(node.applied + 1, node.commit + 1, 1 << 60)
            if any(entry.kind == EntryKind.CHANGE for entry in waiting):
                raise _found("no campaign with an unapplied change", node.status())

    def _is_elected(self, node: RawNode) -> None:
        """Both majorities have written their votes for it."""
        term = node.term
        have = {id for id in self.hosts if self.votes.get((term, id)) == node.id}
        if not _is_majority(have, node.membership):
            raise _found("leaders are elected", node.status(), sorted(have))

    def _is_complete(self, host: Host) -> None:
        log, end = host.node._raft.log, len(self.committed)
        for index in range(max(log.first_index(), end - COMPLETE_LAST), end):
            its = self.committed[index][0]
            try:
                term = log.term(index)
            except StorageError:
                term = -1
            later = host.node.term < its  # committed after its time
            if not (later or term == its):
                raise _found("leader completeness", host.node.id, index, its, term)

    def _is_of_its_term(self, node: RawNode) -> None:
        """Thesis, figure 3.8: entries of older terms are never committed by counting."""
        term = node._raft.log.term(node.commit)
        if term != node.term:
            raise _found("leaders commit entries of their term", node.status(), term)

    def _is_durable(self, node: RawNode, memberships: Iterable[Membership]) -> None:
        """What a leader has just committed is on the disks of a majority of each half.

        Of one of the memberships: a step may have brought a commit and a new one.
        """
        log, index = node._raft.log, node.commit
        low = self.lives[node.id].applied + 1
        if low <= index:
            part = log.entries(low, index + 1, 1 << 60)
            if sum(entry.kind == EntryKind.CHANGE for entry in part) > 1:
                return  # counted by a membership that is gone already
        have = {id for id, host in self.hosts.items() if _has(host, index, log.term(index))}
        if not any(_is_majority(have, membership) for membership in memberships):
            raise _found("commits are on a majority's disks", node.status(), sorted(have))


def _is_majority(have: set[int], membership: Membership) -> bool:
    halves = (membership.voters, membership.outgoing)
    return all(2 * len(have & set(half)) > len(half) for half in halves if half)


def _has(host: Host, index: int, term: int) -> bool:
    storage = host.storage
    if index < storage.first_index() - 1:
        return True  # compacted: it was applied there
    return index <= storage.last_index() and storage.term(index) == term


def _standing(node: RawNode) -> tuple[object, ...]:
    raft = node._raft
    elapsed = raft.leading.election_elapsed if raft.leading else raft.election_elapsed
    return raft.term, raft.vote, raft.role, raft.leader, raft.election_timeout, elapsed


def _found(checker: str, *what: object) -> Violation:
    return Violation(checker, ", ".join(map(str, what)))
