"""What other nodes' frames bring: each record to the part that it is for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, get_args

from broker.answers import Answers
from broker.auditor import Auditor
from broker.changes import Changes
from broker.cluster import Cluster
from broker.errors import Code
from broker.homes import Homes
from broker.inspector import Inspector
from broker.keeper import Keeper
from broker.lender import Lender
from broker.machines.commands import (
    AnyCommand,
    ClusterCommand,
    Enqueue,
    SessionCommand,
    TopologyCommand,
    decode,
)
from broker.mover import Mover
from broker.operations import FULL, Operations
from broker.peer_protocol import (
    Again,
    AnyRecord,
    Ask,
    Bodies,
    Change,
    Changed,
    Dismissed,
    Done,
    EntryPart,
    EntryPull,
    Forward,
    Groups,
    Leads,
    Lost,
    No,
    PeerFrame,
    PullBodies,
    PullState,
    RaftRecord,
    Relay,
    State,
    StateHash,
    Told,
    Value,
)
from broker.peers import Peer
from broker.protocol import VOLATILE_SHARD
from broker.router import TOPOLOGY
from broker.shard import Shard
from broker.snapshots.receiver import Receiver
from broker.snapshots.sender import Sender
from raftlog.messages import (
    AppendRequest,
    HeartbeatRequest,
    MessageInvalid,
    PreVoteRequest,
    SnapshotRequest,
    VoteRequest,
    decode_message,
)
from raftlog.ready import Role

TOPOLOGY_ONLY: Final = frozenset(
    get_args(SessionCommand) + get_args(TopologyCommand) + get_args(ClusterCommand)
)
"""Commands that no machine but that of shard 0 can apply."""


LEADS: Final = (AppendRequest, HeartbeatRequest, SnapshotRequest)
"""What only a leader says."""
ASKS: Final = (*LEADS, PreVoteRequest, VoteRequest)
"""Messages that promise nothing: they may come from anybody, for all that hangs on them is what
this node promises in turn."""


class PeerRecords:
    """Takes frames of peers, whose numbers tell which were lost."""

    def __init__(
        self,
        cluster: Cluster,
        homes: Homes,
        operations: Operations,
        answers: Answers,
        keeper: Keeper,
        inspector: Inspector,
        auditor: Auditor,
        lender: Lender,
        sender: Sender,
        receiver: Receiver,
        mover: Mover,
        changes: Changes,
    ) -> None:
        self._cluster, self._homes, self._operations = cluster, homes, operations
        self._answers, self._keeper, self._inspector = answers, keeper, inspector
        self._auditor, self._lender = auditor, lender
        self._sender, self._receiver = sender, receiver
        self._mover, self._changes = mover, changes
        self.open_group: Callable[[int], Shard | None] = lambda number: None
        """Makes a group that this node is to keep."""

    def take(self, peer: Peer, frame: PeerFrame) -> None:
        """A frame of this peer. One that was overtaken is dropped: it counts as lost already."""
        if not self._number(peer, frame):
            return
        for record in frame.records:
            self._record(peer, frame, record)

    def _number(self, peer: Peer, frame: PeerFrame) -> bool:
        """Notice lost frames by their numbers; False for one that comes too late.

        Where a connection follows another, what was left of the old one may be read after the new
        one's first. A delivery in it may have been settled meanwhile. Of an older boot nothing is
        held back: which one is older, nobody can tell, and its deliveries are of an older term.
        """
        peer.heard_ms = self._cluster.now_ms
        if frame.number == 0:
            return True  # a part of a snapshot, by another link
        peer.address = frame.address
        expected = peer.number_in + 1 if frame.boot == peer.boot else 1
        known = peer.boot != 0
        if frame.boot != peer.boot:
            peer.boot = frame.boot
            peer.leaving = False
        elif frame.number < expected:
            return False
        peer.number_in = frame.number
        if frame.number != expected or (known and expected == 1):
            self._cluster.leaders.resync_led_by(peer.node)
            peer.records.append(Lost())
        return True

    def _record(self, peer: Peer, frame: PeerFrame, record: AnyRecord) -> None:
        match record:
            case RaftRecord(group=group, incarnation=incarnation, message=message):
                self._step(peer, group, incarnation, message)
            case Forward(shard=number, commands=commands):
                self._forwarded(peer, number, commands, frame.topology)
            case Relay(session=session, answers=answers, epoch=epoch):
                home = self._homes.by_session.get(session)
                # What is dropped here is sent again: the client says what it holds when it is back.
                if home is not None and home.link is not None and not 0 < epoch < home.since:
                    home.answers += answers
            case Done():
                self._answers.done(peer.node, record)
            case Value() | No():
                self._answers.result(peer.node, record)
            case Again(session=session):
                self._operations.misrouted(session)
            case Leads(shards=shards, leaving=leaving):
                peer.leaving = leaving
                for number, term in shards:
                    self._cluster.leaders.lead(number, term, peer.node)
            case Lost():
                self._cluster.leaders.resync_led_by(peer.node)
            case Ask(number=number, what=what):
                peer.records.append(Told(number, self._inspector.answer(what)))
            case Groups():
                self._mover.told(peer, record)
            case Change():
                self._changes.asked(peer, record)
            case Changed():
                self._changes.told(record)
            case Dismissed(code=code, text=text, disk=disk):
                if disk == self._cluster.head.disk:
                    self._cluster.dismissed = (code, text)
            case Told(number=number, value=value):
                self._inspector.told(number, peer.node, value)
            case PullBodies():
                self._sender.pull_bodies(peer, record)
            case PullState():
                self._sender.pull_state(peer, record)
            case Bodies():
                self._receiver.bodies(peer, record)
            case State():
                self._receiver.state(peer, record)
            case StateHash():
                self._auditor.told(peer, record)
            case EntryPull():
                self._lender.lend(peer, record)
            case EntryPart():
                pass  # for a repair, not for a node that runs

    def _step(self, peer: Peer, group: int, incarnation: int, message: bytes) -> None:
        cluster = self._cluster
        try:
            opened = decode_message(message)
        except MessageInvalid as error:
            cluster.counters.malformed_frames += 1
            cluster.log(f"dropped a malformed Raft message of node {peer.node}: {error}")
            return
        if opened.sender != peer.raft_id or opened.target != cluster.shard_zero.raft.id:
            return
        if not peer.trusted and not isinstance(opened, ASKS):
            return
        shard = cluster.shards.get(group)
        if shard is None and isinstance(opened, LEADS) and self._mover.keeps(group):
            shard = self.open_group(group)
        if shard is None:
            return
        if incarnation != shard.storage.incarnation:
            cluster.counters.other_incarnation += 1
        elif isinstance(opened, SnapshotRequest):
            self._receiver.offered(peer, shard, opened)
        else:
            shard.raft.step(opened)

    def _forwarded(
        self, peer: Peer, number: int, commands: list[tuple[int, bytes]], topology: int
    ) -> None:
        cluster = self._cluster
        if number == VOLATILE_SHARD:
            for session, data in commands:
                if session in cluster.registry and (command := self._opened(number, data)):
                    self._keeper.keep(command)
            return
        shard = cluster.shards.get(number)
        if shard is None or shard.raft.role is not Role.LEADER:
            return
        for session, data in commands:
            command = self._opened(number, data)
            if command is None:
                continue
            if type(command) is Enqueue and cluster.is_full(number, session):
                code = Code.RESOURCE_EXHAUSTED
                peer.records.append(No(number, 0, session, command.seq, code, FULL))
            else:
                shard.inbox.add(session, data, topology)

    def _opened(self, number: int, data: bytes) -> AnyCommand | None:
        """A command that came from a peer, if machines of this shard can apply it.

        Once one that they cannot is in the log, every replica ends, and again at each start.
        A node of another version may send such a one in good faith.
        """
        try:
            command = decode(data)
        except (ValueError, RecursionError) as error:
            text = str(error)
        else:
            if number == TOPOLOGY or type(command) not in TOPOLOGY_ONLY:
                return command
            text = f"{type(command).__name__} is not for shard {number}"
        self._cluster.counters.malformed_frames += 1
        self._cluster.log(f"dropped a forwarded command: {text}")
        return None
