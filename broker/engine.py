"""A node without its sockets, disk and clock: frames and ticks in, frames and writes out.

    peer_frame, client_frame, tick          take what has come
      begin()      propose, collect every group's Ready      -> writes
      peer_frames()                                          -> may leave before the write
      (the shell writes all of it in one transaction)
      end()        messages that promise durability, apply, effects
      peer_frames(), client_frames()                         -> leave after the write

The shell (`node.py`) and the simulation drive it alike.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, get_args

from broker.batch import command_id, index_of
from broker.config import Config, raft_id
from broker.errors import Code
from broker.homes import Home, Homes, Link, Running
from broker.inspection import Inspection, queue_status, session_status
from broker.machines import effects as fx
from broker.machines.commands import (
    AnyCommand,
    Enqueue,
    Outcome,
    QueueCreate,
    QueueDeclare,
    QueueDrop,
    QueueRemove,
    SessionClose,
    SessionCommand,
    SessionDown,
    SessionOpen,
    SessionResume,
    Settle,
    TopologyCommand,
    decode,
    encode,
)
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.machines.topology import QueueRecord
from broker.metrics import Counters
from broker.peer_protocol import (
    Again,
    Ask,
    Done,
    Forward,
    Leads,
    Lost,
    No,
    PeerFrame,
    PeerProtocolError,
    RaftRecord,
    Relay,
    Told,
    Value,
    decode_peer_frame,
)
from broker.peers import Peer
from broker.protocol import (
    VERSION,
    VOLATILE_SHARD,
    AnyAnswer,
    AnyOperation,
    Beat,
    Cancelled,
    Confirmed,
    Delivery,
    Denied,
    Fetched,
    Goodbye,
    Hello,
    Inspect,
    ProtocolError,
    Publish,
    RefusedAnswer,
    Replied,
    Resync,
    Welcome,
    decode_operations,
    encode_answer,
    join_answers,
)
from broker.ring import preferred_leader, replicas_of, shard_of
from broker.router import TOPOLOGY, Caller, Place, Routed, Router, RouterLimits, Send, Stale
from broker.shard import Applied, Shard
from broker.status import NodeStatus, PeerStatus, ShardStatus
from broker.version import __version__
from broker.volatile import VolatileShard
from raftlog.chance import Chance
from raftlog.config import Config as RaftConfig
from raftlog.errors import ReadRefused
from raftlog.messages import Entry, HardState, MessageInvalid, decode_message, encode_message
from raftlog.node import RawNode
from raftlog.ready import Ready, Role
from raftlog.storage import Storage

INCARNATION = 1
"""Of every group: grows when a group is made anew under the same number."""

LEADS_MS = 500
"""How often a node tells its peers which shards it leads: also its sign of life."""

UPKEEP_MS = 1000
HELLO_AGAIN_MS = 300
INSPECTION_MS = 1000
TOKEN_BYTES = range(16, 65)
"""A shorter secret may be another client's too, and every node keeps it for the session's life."""

BALANCE_AFTER_MS = 5000
TOPOLOGY_ONLY: Final = frozenset(get_args(SessionCommand) + get_args(TopologyCommand))
"""Commands that no machine but that of shard 0 can apply."""

Answered: TypeAlias = Value | No | Done


class GroupStorage(Storage, Protocol):
    """What a group's storage offers beyond Raft's needs."""

    def entry(self, index: int) -> Entry:
        """One entry of the log."""


@dataclass(frozen=True, slots=True)
class Write:
    """What one group must have on disk before `end()`."""

    group: int
    hard_state: HardState | None
    entries: list[Entry]


class Engine:
    """All shards, peers and clients of one node."""

    def __init__(
        self,
        config: Config,
        *,
        boot: int,
        now_ms: int,
        storages: Mapping[int, GroupStorage],
        random: Chance,
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`boot` differs at every start of the node; `storages` has the groups it keeps."""
        self.config = config
        self.boot = boot
        self.node = config.node_id
        self.cluster = config.cluster_id
        self.counters = Counters()
        self.now_ms = now_ms
        self._log = log
        self._homes = Homes()
        self._peers = {
            peer.id: Peer(peer.id, raft_id(peer.id))
            for peer in config.cluster_nodes
            if peer.id != self.node
        }
        self._names = {raft_id(peer.id): peer.id for peer in config.cluster_nodes}
        self._replicas = {
            shard: replicas_of(
                shard, [peer.id for peer in config.cluster_nodes], config.replication_factor
            )
            for shard in range(config.shards)
        }
        self.shards = {
            number: self._open(number, storage, random) for number, storage in storages.items()
        }
        self._topology = self.shards[TOPOLOGY]
        self._registry = self._topology.machine.registry
        self._router = Router(self._topology.machine, self._router_limits())
        self._volatile = VolatileShard(self._machine(VOLATILE_SHARD), config.volatile_messages_max)
        self._leaders: dict[int, tuple[int, str]] = {}  # shard -> (term, node), in service
        self._readies: list[tuple[Shard, Ready]] = []
        self._denied: list[tuple[bytes, bytes]] = []
        self._waiting_topology: deque[tuple[int, int, Answered]] = deque()
        self._stale: list[tuple[int, Routed]] = []  # wait for a read of the newest topology
        self._reads: dict[int, list[tuple[int, Routed]]] = {}  # read context -> who waits
        self._read_indexes: list[tuple[int, int]] = []  # (context, index to be applied)
        self._read_count = 0
        self._misrouted: set[int] = set()
        self._orphans: dict[int, int] = {}  # session -> since when nobody keeps it
        self._unused: set[int] = set()
        self._inspections: dict[int, Inspection] = {}
        self._inspection_count = 0
        self._due = {"leads": 0, "upkeep": 0, "beat": 0, "hello": 0}
        self._in_service_since: dict[int, int] = {}
        self._silent: list[str] = []  # peers whose silence was told of
        self._began_ms = now_ms
        self._unix_ms = 0

    # --- setting up -----------------------------------------------------------------------

    def _open(self, number: int, storage: GroupStorage, random: Chance) -> Shard:
        config = self.config
        raft = RawNode(
            RaftConfig(
                id=raft_id(self.node),
                election_tick=config.election_ticks,
                heartbeat_tick=config.heartbeat_ticks,
                max_entry_bytes_per_message=config.entry_bytes_max,
                max_uncommitted_bytes=config.unconfirmed_bytes_max,
                eager_commit=number == TOPOLOGY,
                rng=random,
            ),
            storage,
        )
        if preferred_leader(self._replicas[number]) != self.node:
            raft.set_election_timeout(2 * config.election_ticks)
        return Shard(
            number,
            raft,
            self._machine(number),
            storage.entry,
            entry_bytes_max=config.entry_bytes_max,
            entry_commands_max=config.entry_commands_max,
        )

    def _machine(self, shard: int) -> Machine:
        config = self.config
        limits = Limits(
            queues_max=config.queues_max,
            bindings_max=config.bindings_max,
            exchanges_max=config.exchanges_max,
            sessions_max=config.sessions_max,
            consumers_per_session_max=config.consumers_per_session_max,
        )
        count = config.shards - 1

        def place(vhost: str, name: str) -> int:
            """Shard 0 is kept free for topology and sessions."""
            return 1 + shard_of(vhost, name, count)

        return Machine(shard=shard, shards=config.shards, limits=limits, place=place)

    def _router_limits(self) -> RouterLimits:
        config = self.config
        return RouterLimits(
            body_bytes_max=config.body_bytes_max,
            header_bytes_max=config.header_bytes_max,
            name_bytes_max=config.name_bytes_max,
            window_max=config.window_max,
            shards=config.shards,
        )

    # --- what comes in --------------------------------------------------------------------

    def client_frame(self, identity: bytes, frame: bytes) -> None:
        """A frame from a client. Whatever is wrong with it concerns that client alone."""
        self.counters.client_frames += 1
        try:
            opened = decode_operations(frame)
        except ProtocolError as error:
            self.counters.malformed_frames += 1
            self._log(f"dropped a malformed frame from a client: {error}")
            answer = RefusedAnswer(0, Code.MALFORMED_FRAME, f"not a frame: {error}")
            self._denied.append((identity, join_answers([encode_answer(answer)])))
            return
        link = self._homes.by_identity.get(identity)
        for operation in opened.operations:
            if isinstance(operation, Hello):
                link = self._hello(identity, operation)
                continue
            home = self._homes.by_session.get(link.session) if link is not None else None
            if link is None or home is None or home.link is not link:
                if link is None or link.hello is None:
                    self._deny(identity, Code.COMMAND_INVALID, "say Hello first on a new link")
                return
            if opened.floor > home.caller.floor:
                home.caller = Caller(
                    home.caller.session, home.caller.vhost, opened.floor, self.node
                )
                home.retire(opened.floor)
            self._operate(home, operation)

    def client_lost(self, identity: bytes) -> None:
        """The transport cannot reach this client any more."""
        link = self._homes.by_identity.get(identity)
        if link is not None:
            self._homes.drop_link(link, self.now_ms)

    def peer_frame(self, data: bytes) -> None:
        """A frame from another node."""
        self.counters.peer_frames += 1
        try:
            frame = decode_peer_frame(data)
        except PeerProtocolError as error:
            self.counters.malformed_frames += 1
            self._log(f"dropped a malformed peer frame: {error}")
            return
        peer = self._peers.get(frame.sender)
        if frame.cluster != self.cluster or peer is None:
            self.counters.malformed_frames += 1
            self._log(f"dropped a frame of node '{frame.sender}': it is not of this cluster")
            return
        self._number(peer, frame)
        for record in frame.records:
            self._record(peer, frame, record)

    def peer_reset(self, node: str) -> None:
        """The link to a peer was reset: its process may have died."""
        peer = self._peers.get(node)
        if peer is not None:
            for shard in self.shards.values():
                shard.raft.peer_lost(peer.raft_id)

    def tick(self, now_ms: int) -> None:
        """One tick of `tick_ms`. `now_ms` never goes back: this node's own durations hang on it."""
        self.now_ms = now_ms
        for shard in self.shards.values():
            shard.raft.tick()
            shard.full = False
        if self._is_due("hello", HELLO_AGAIN_MS):
            self._ask_again()
        if self._is_due("leads", LEADS_MS):
            leads = Leads(self._led())
            for peer in self._peers.values():
                peer.records.append(leads)
        if self._is_due("beat", self.config.beat_ms):
            beat = encode_answer(Beat(self.serving()))
            for home in self._homes.by_session.values():
                if home.link is not None:
                    home.answers.append(beat)
        if self._is_due("upkeep", UPKEEP_MS):
            self._upkeep()

    def _is_due(self, what: str, every_ms: int) -> bool:
        if self.now_ms < self._due[what] and self._due[what] - self.now_ms <= every_ms:
            return False
        self._due[what] = self.now_ms + every_ms
        return True

    # --- a turn ---------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether a turn would do anything."""
        topology = self._topology.applied
        return any(
            shard.raft.has_ready() or shard.can_propose(topology) for shard in self.shards.values()
        )

    def begin(self, unix_ms: int) -> list[Write]:
        """Propose what waits, stamped with Unix time, and collect what must be written."""
        self._unix_ms = unix_ms
        topology = self._topology.applied
        writes, lazy = [], []
        for number, shard in self.shards.items():
            raft = shard.raft
            if shard.in_service:
                if shard.can_propose(topology):
                    shard.propose(unix_ms, topology, self._registry.__contains__)
            elif shard.serving_term:
                shard.retire()
                self._log(f"node {self.node} leads shard {number} no more")
            elif shard.inbox.waiting and raft.role is not Role.LEADER:
                shard.inbox.clear()
            if not raft.has_ready():
                continue
            ready = raft.ready()
            self._readies.append((shard, ready))
            for message in ready.messages:
                self._post(number, message.target, encode_message(message))
            if ready.entries or (ready.hard_state is not None and ready.must_sync):
                writes.append(Write(number, ready.hard_state, ready.entries))
            elif ready.hard_state is not None:
                lazy.append(Write(number, ready.hard_state, []))
        if self._readies:
            self.counters.turns += 1
        return writes + lazy if writes else writes

    def end(self) -> None:
        """All of `begin()`'s writes are on disk: promise, apply, carry out."""
        readies, self._readies = self._readies, []
        for shard, ready in readies:
            for message in ready.messages_after:
                self._post(shard.number, message.target, encode_message(message))
            for read in ready.read_states:
                assert isinstance(read.context, int)
                self._read_indexes.append((read.context, read.index))
            for entry in ready.committed:
                applied = shard.apply(entry)
                if shard is self._topology:
                    self._learn(applied)
                if applied.in_service:
                    self._carry_out(shard.number, shard.raft.term, applied, shard.message)
                elif self._is_own_noop(shard, entry):
                    self._enter_service(shard)
            shard.raft.advance(ready)
        if self._waiting_topology:
            self._release_topology()
        if self._stale or self._read_indexes:
            self._read_topology()

    def peer_frames(self) -> list[tuple[str, bytes]]:
        """One frame for each peer there is something for."""
        frames = []
        for node, peer in self._peers.items():
            frame = peer.frame(
                self.cluster,
                self.node,
                self.boot,
                self._topology.applied,
                self.config.client_address,
            )
            if frame:
                frames.append((node, frame))
        return frames

    def client_frames(self) -> list[tuple[bytes, bytes]]:
        """(identity, frame) for each client there is something for."""
        frames, self._denied = self._denied, []
        for home in self._homes.by_session.values():
            link = home.link
            frame = home.frame()
            if frame is not None and link is not None:
                frames.append((link.identity, frame))
        return frames

    def _post(self, group: int, target: int, message: bytes) -> None:
        peer = self._peers.get(self._names.get(target, ""))
        if peer is not None:
            peer.records.append(RaftRecord(group, INCARNATION, message))

    @staticmethod
    def _is_own_noop(shard: Shard, entry: Entry) -> bool:
        raft = shard.raft
        return not entry.data and entry.term == raft.term and raft.role is Role.LEADER

    # --- clients --------------------------------------------------------------------------

    def _hello(self, identity: bytes, hello: Hello) -> Link | None:
        if hello.version != VERSION:
            text = f"protocol version {hello.version} is not spoken here; this node speaks"
            self._deny(identity, Code.NOT_ALLOWED, f"{text} {VERSION}")
            return None
        limit = self.config.name_bytes_max
        if len(hello.vhost.encode()) > limit or len(hello.user.encode()) > limit:
            text = f"vhost or user is longer than {limit} bytes (name_bytes_max)"
            self._deny(identity, Code.INVALID_ARGUMENT, text)
            return None
        if sum(len(k) + len(v) for k, v in hello.client.items()) > self.config.header_bytes_max:
            text = f"client properties exceed {self.config.header_bytes_max} bytes"
            self._deny(identity, Code.INVALID_ARGUMENT, text)
            return None
        if len(hello.token) not in TOKEN_BYTES:
            text = f"a token of {len(hello.token)} bytes; send 16 to 64 random ones"
            self._deny(identity, Code.INVALID_ARGUMENT, text)
            return None
        link = self._homes.open_link(identity, self.now_ms)
        if hello.session:
            link.hello = SessionResume(
                hello.session, hello.token, self.node, self.boot, link.number
            )
        else:
            wished = max(hello.grace_ms, 0) or self.config.grace_ms
            grace_ms = min(wished, self.config.grace_ms_max)
            link.hello = SessionOpen(
                self.node,
                self.boot,
                link.number,
                hello.token,
                hello.vhost,
                hello.user,
                grace_ms,
                hello.client,
            )
        self._submit(TOPOLOGY, encode(link.hello))
        return link

    def _ask_again(self) -> None:
        """What asked shard 0 and got no answer: its leader may have changed meanwhile."""
        for link in list(self._homes.by_number.values()):
            if link.hello is None:
                continue
            if self.now_ms - link.asked_ms > self.config.hello_ms_max:
                self._homes.drop_link(link, self.now_ms)
            else:
                self._submit(TOPOLOGY, encode(link.hello))
        for session in list(self._misrouted):
            home = self._homes.by_session.get(session)
            if home is not None:
                home.say(Resync(TOPOLOGY, self._term_of(TOPOLOGY)))
        self._misrouted.clear()
        waiting = [item for items in self._reads.values() for item in items]
        self._reads.clear()
        self._stale = waiting + self._stale
        if self._stale:
            self._read_topology()

    def _deny(self, identity: bytes, code: int, text: str) -> None:
        if code != Code.SESSION_EXPIRED:  # which also answers a Goodbye
            self.counters.refused += 1
        self._denied.append((identity, join_answers([encode_answer(Denied(code, text))])))

    def _operate(self, home: Home, operation: AnyOperation) -> None:
        match operation:
            case Goodbye():
                home.closing = "closed by the client"
                close = SessionClose(home.caller.session, 0, home.closing)
                self._submit(TOPOLOGY, encode(close))
            case Inspect():
                self._inspect(home, operation)
            case Hello():
                raise AssertionError("a Hello is handled before")
            case _:
                running = home.sagas.get(operation.seq)
                if running is not None:
                    self._send(home, operation.seq, [running.step])
                else:
                    self._route(home, operation, fresh=False)

    def _route(self, home: Home, operation: Routed, *, fresh: bool) -> None:
        plan = self._router.plan(home.caller, operation, fresh=fresh)
        if isinstance(plan, list):
            self._send(home, operation.seq, plan)
        elif isinstance(plan, Stale):
            self._stale.append((home.caller.session, operation))
            self._read_topology()
        elif isinstance(plan, Generator):
            home.sagas[operation.seq] = running = Running(plan, next(plan))
            self._send(home, operation.seq, [running.step])
        else:
            if isinstance(operation, Publish) and _took_no_queue(plan):
                self.counters.unroutable += 1
            self._say(home, plan)

    def _say(self, home: Home, answer: AnyAnswer) -> None:
        if isinstance(answer, RefusedAnswer):
            self.counters.refused += 1
        home.say(answer)

    def _send(self, home: Home, seq: int, sends: list[Send]) -> None:
        if len(sends) > 1:
            home.missing[seq] = {send.place for send in sends}
        for place, command in sends:
            if isinstance(place, int):
                if not self._submit(place, command, home.caller.session):
                    text = "too much is waiting for a majority (unconfirmed_bytes_max); slow down"
                    self._say(home, RefusedAnswer(seq, Code.RESOURCE_EXHAUSTED, text))
            elif place == self.node:
                self._keep(decode(command))
            elif (peer := self._peers.get(place)) is not None and self._is_heard(peer):
                peer.forward(VOLATILE_SHARD, home.caller.session, command)
            else:
                # The node that kept this queue is down, and the queue's messages with it.
                self._answered(home, place, Done(VOLATILE_SHARD, 0, []), seq)

    def _submit(self, number: int, command: bytes, session: int = 0) -> bool:
        """Hand a command to its shard's leader; without one the client repeats it later."""
        shard = self.shards.get(number)
        if shard is not None and shard.raft.role is Role.LEADER:
            if shard.inbox.size > self.config.unconfirmed_bytes_max:
                return False
            shard.inbox.add(session, command, self._topology.applied)
            return True
        leader = self._leader_of(number)
        peer = self._peers.get(leader)
        if peer is not None:
            peer.forward(number, session, command)
        return True

    def _leader_of(self, number: int) -> str:
        shard = self.shards.get(number)
        if shard is not None and shard.raft.leader:
            return self._names.get(shard.raft.leader, "")
        return self._leaders.get(number, (0, ""))[1]

    def _term_of(self, number: int) -> int:
        return self._leaders.get(number, (0, ""))[0]

    # --- the newest topology --------------------------------------------------------------

    def _read_topology(self) -> None:
        """Ask for a read of shard 0 on behalf of all that wait, and serve those who have one."""
        if self._stale:
            self._read_count += 1
            self._reads[self._read_count], self._stale = self._stale, []
            try:
                self._topology.raft.read_index(self._read_count)
            except ReadRefused:
                pass  # nobody leads: `_ask_again` does so
        later = []
        for context, index in self._read_indexes:
            if index > self._topology.applied:
                later.append((context, index))
                continue
            for session, operation in self._reads.pop(context, ()):
                home = self._homes.by_session.get(session)
                if home is not None and operation.seq >= home.caller.floor:
                    self._route(home, operation, fresh=True)
        self._read_indexes = later

    # --- answers at home ------------------------------------------------------------------

    def _answer(self, shard: int, session: int, seq: int, result: Answered) -> None:
        """An answer for a session at home here, from a shard or a memory-only queue's node."""
        if shard == TOPOLOGY and result.index > self._topology.applied:
            self._waiting_topology.append((session, seq, result))
            return
        home = self._homes.by_session.get(session)
        if home is not None:
            self._answered(home, shard, result, seq)

    def _release_topology(self) -> None:
        """Answers of shard 0 wait until this node has applied what they tell of."""
        waiting, self._waiting_topology = self._waiting_topology, deque()
        for session, seq, result in waiting:
            self._answer(TOPOLOGY, session, seq, result)

    def _answered(self, home: Home, place: Place, result: Answered, seq: int) -> None:
        running = home.sagas.get(seq)
        if running is not None:
            if place != running.step.place:
                return  # the answer to an earlier step that was repeated
            try:
                running.step = running.saga.send(result)
            except StopIteration as stop:
                del home.sagas[seq]
                self._say(home, stop.value)
            else:
                self._send(home, seq, [running.step])
            return
        missing = home.missing.get(seq)
        if missing is not None:
            if isinstance(result, No):
                # This place stays missing: what the others have taken is not the whole, and
                # their confirms must not become one of the publish.
                self._say(home, RefusedAnswer(seq, result.code, result.text))
                return
            missing.discard(place)
            if missing:
                return
            del home.missing[seq]
        match result:
            case Value(value=value):
                home.say(Replied(seq, value))
            case No(code=code, text=text):
                self._say(home, RefusedAnswer(seq, code, text))
            case _:
                home.confirms.append(seq)

    # --- peers ----------------------------------------------------------------------------

    def _number(self, peer: Peer, frame: PeerFrame) -> None:
        """Notice lost frames by their numbers."""
        peer.heard_ms = self.now_ms
        peer.address = frame.address
        expected = peer.number_in + 1 if frame.boot == peer.boot else 1
        known = peer.boot != 0
        if frame.boot != peer.boot:
            peer.boot = frame.boot
        elif frame.number < expected:
            return
        peer.number_in = frame.number
        if frame.number != expected or (known and expected == 1):
            self._resync_led_by(peer.node)
            peer.records.append(Lost())

    def _resync_led_by(self, node: str) -> None:
        for shard, (term, leader) in self._leaders.items():
            if leader == node:
                self._resync(shard, term)

    def _resync(self, shard: int, term: int) -> None:
        resync = encode_answer(Resync(shard, term))
        for home in self._homes.by_session.values():
            home.answers.append(resync)

    def _record(self, peer: Peer, frame: PeerFrame, record: object) -> None:
        match record:
            case RaftRecord(group=group, incarnation=incarnation, message=message):
                shard = self.shards.get(group)
                if shard is not None and incarnation == INCARNATION:
                    self._step(peer, shard, message)
            case Forward(shard=number, commands=commands):
                self._forwarded(number, commands, frame.topology)
            case Relay(session=session, answers=answers):
                home = self._homes.by_session.get(session)
                if home is not None and home.link is not None:
                    home.answers += answers
            case Done(shard=number, sessions=sessions):
                place = peer.node if number == VOLATILE_SHARD else number
                for session, seqs in sessions:
                    self._done(place, record, session, seqs)
            case Value(shard=number, session=session, seq=seq):
                self._value(peer, number, session, seq, record)
            case No(shard=number, session=session, seq=seq):
                self._value(peer, number, session, seq, record)
            case Again(session=session):
                self._misrouted.add(session)
            case Leads(shards=shards):
                for number, term in shards:
                    self._lead(number, term, peer.node)
            case Lost():
                self._resync_led_by(peer.node)
            case Ask(number=number, what=what):
                peer.records.append(Told(number, self._tell(what)))
            case Told(number=number, value=value):
                self._told(number, peer.node, value)

    def _step(self, peer: Peer, shard: Shard, message: bytes) -> None:
        try:
            opened = decode_message(message)
        except MessageInvalid as error:
            self.counters.malformed_frames += 1
            self._log(f"dropped a malformed Raft message of node {peer.node}: {error}")
            return
        if opened.sender == peer.raft_id and opened.target == shard.raft.id:
            shard.raft.step(opened)

    def _done(self, place: Place, record: Done, session: int, seqs: list[int]) -> None:
        home = self._homes.by_session.get(session)
        if home is None:
            return
        if place == TOPOLOGY or home.missing or home.sagas:
            for seq in seqs:
                if place == TOPOLOGY:
                    self._answer(TOPOLOGY, session, seq, record)
                else:
                    self._answered(home, place, record, seq)
        else:
            home.confirms += seqs

    def _value(self, peer: Peer, shard: int, session: int, seq: int, record: Value | No) -> None:
        if shard != VOLATILE_SHARD:
            self._answer(shard, session, seq, record)
        elif (home := self._homes.by_session.get(session)) is not None:
            self._answered(home, peer.node, record, seq)

    def _forwarded(self, number: int, commands: list[tuple[int, bytes]], topology: int) -> None:
        if number == VOLATILE_SHARD:
            for session, data in commands:
                if session in self._registry and (command := self._opened(number, data)):
                    self._keep(command)
            return
        shard = self.shards.get(number)
        if (
            shard is not None
            and shard.raft.role is Role.LEADER
            and shard.inbox.size <= self.config.unconfirmed_bytes_max
        ):
            for session, data in commands:
                if self._opened(number, data) is not None:
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
        self.counters.malformed_frames += 1
        self._log(f"dropped a forwarded command: {text}")
        return None

    def _lead(self, number: int, term: int, node: str) -> None:
        """`node` leads and serves a shard."""
        if term > self._leaders.get(number, (0, ""))[0]:
            self._leaders[number] = (term, node)
            self._resync(number, term)

    def _led(self) -> list[tuple[int, int]]:
        return [(n, shard.raft.term) for n, shard in self.shards.items() if shard.in_service]

    def _is_heard(self, peer: Peer) -> bool:
        return self.now_ms - peer.heard_ms < self.config.link_lost_ms

    # --- effects --------------------------------------------------------------------------

    def _enter_service(self, shard: Shard) -> None:
        """This node's no-op is applied: from here on it speaks for the shard."""
        shard.serving_term = shard.raft.term
        self.counters.elections += 1
        self._in_service_since[shard.number] = self.now_ms
        self._log(f"node {self.node} leads shard {shard.number} in term {shard.raft.term}")
        self._lead(shard.number, shard.raft.term, self.node)
        leads = Leads([(shard.number, shard.raft.term)])
        for peer in self._peers.values():
            peer.records.append(leads)
        self._reconcile(shard)

    def _keep(self, command: AnyCommand) -> None:
        """A command for this node's memory-only queues."""
        effects = self._volatile.apply(self._unix_ms, command)
        applied = Applied(self._volatile.index, [command], effects, True)
        self._carry_out(VOLATILE_SHARD, self.boot, applied, self._volatile.message)

    def _carry_out(
        self, shard: int, term: int, applied: Applied, message: Callable[[int], Enqueue]
    ) -> None:
        """Tell the clients what an entry did to their operations and queues."""
        registry, index, counters = self._registry, applied.index, self.counters
        for effect in applied.effects:
            if type(effect) is fx.Confirm:
                self._tell_done(shard, index, effect.session, effect.seq)
            elif type(effect) is fx.Deliver:
                counters.delivered += 1
                if effect.count > 1:
                    counters.redelivered += 1
                if registry.get(effect.session) is None:
                    continue
                enqueue = message(effect.id)
                answer: AnyAnswer = Delivery(
                    shard,
                    term,
                    effect.consumer,
                    effect.queue,
                    effect.id,
                    effect.count,
                    enqueue.exchange,
                    enqueue.routing_key,
                    enqueue.priority,
                    enqueue.payload,
                )
                self._relay(effect.session, answer)
            else:
                self._carry_out_rare(shard, index, effect, message)
        for command in applied.commands:
            if type(command) is Settle:
                self._count_settled(command)
            elif type(command) is Enqueue:
                counters.published += 1

    def _count_settled(self, command: Settle) -> None:
        match command.outcome:
            case Outcome.ACK:
                self.counters.acked += len(command.ids)
            case Outcome.DROP:
                self.counters.dropped += len(command.ids)
            case Outcome.REQUEUE:
                self.counters.requeued += len(command.ids)
            case _:
                pass

    def _carry_out_rare(
        self, shard: int, index: int, effect: fx.Effect, message: Callable[[int], Enqueue]
    ) -> None:
        match effect:
            case fx.Reply(session=session, seq=seq, value=value):
                self._tell_result(session, seq, Value(shard, index, session, seq, value))
            case fx.Refuse(session=session, seq=seq, code=code, text=text):
                self._tell_result(session, seq, No(shard, index, session, seq, code, text))
            case fx.Fetched(session=session):
                command = message(effect.id)
                self._relay(
                    session,
                    Fetched(
                        effect.seq,
                        shard,
                        effect.queue,
                        effect.id,
                        effect.count,
                        effect.ready,
                        command.exchange,
                        command.routing_key,
                        command.priority,
                        command.payload,
                    ),
                )
            case fx.Misrouted(session=session, seq=seq):
                peer = self._peer_of(session)
                if peer is None:
                    self._misrouted.add(session)
                else:
                    peer.records.append(Again(shard, session, seq))
            case fx.Cancelled(session=session, consumer=consumer):
                self._relay(session, Cancelled(consumer))
            case fx.Unused(queue=queue):
                self._unused.add(queue)
                self._remove_unused(queue)
            case _:
                pass  # of the topology: every node has learned it already

    def _peer_of(self, session: int) -> Peer | None:
        record = self._registry.get(session)
        return self._peers.get(record.node) if record is not None else None

    def _tell_done(self, shard: int, index: int, session: int, seq: int) -> None:
        record = self._registry.get(session)
        if record is None:
            return
        if record.node != self.node:
            peer = self._peers.get(record.node)
            if peer is not None:
                peer.confirm(shard, index, session, seq)
            return
        home = self._homes.by_session.get(session)
        if home is not None:
            if home.missing or home.sagas:
                place = self.node if shard == VOLATILE_SHARD else shard
                self._answered(home, place, Done(shard, index, []), seq)
            else:
                home.confirms.append(seq)

    def _tell_result(self, session: int, seq: int, result: Value | No) -> None:
        peer = self._peer_of(session)
        if peer is not None:
            peer.records.append(result)
        elif (home := self._homes.by_session.get(session)) is not None:
            place = self.node if result.shard == VOLATILE_SHARD else result.shard
            self._answered(home, place, result, seq)

    def _relay(self, session: int, answer: AnyAnswer) -> None:
        peer = self._peer_of(session)
        if peer is not None:
            peer.relay(session, encode_answer(answer))
        elif (home := self._homes.by_session.get(session)) is not None and home.link is not None:
            home.answers.append(encode_answer(answer))

    # --- what every node learns from shard 0 ----------------------------------------------

    def _learn(self, applied: Applied) -> None:
        for effect in applied.effects:
            match effect:
                case fx.SessionMoved():
                    self._session_moved(effect)
                case fx.SessionRefused(node=node, boot=boot, link=number, code=code, text=text):
                    link = self._homes.by_number.get(number)
                    if node == self.node and boot == self.boot and link is not None:
                        self._deny(link.identity, code, text)
                        self._homes.drop_link(link, self.now_ms)
                case fx.SessionGone(session=session, reason=reason):
                    self._session_gone(session, reason)
                case fx.QueueGone(queue=queue, shard=number):
                    self._unused.discard(queue)
                    self._queue_gone(queue, number)
                case _:
                    pass
        for offset, command in enumerate(applied.commands):
            if isinstance(command, QueueDeclare):
                record = self._topology.machine.topology.queue_by_id(
                    command_id(applied.index, offset)
                )
                if record is not None:
                    self._create(record)

    def _create(self, record: QueueRecord) -> None:
        """Make a queue known where it lives, before anything that is routed to it."""
        create = QueueCreate(record.id, record.flags, record.arguments)
        if record.shard == VOLATILE_SHARD:
            if self._router.place(record) == self.node:
                self._keep(create)
        elif (shard := self.shards.get(record.shard)) is not None and shard.in_service:
            shard.inbox.add_first(encode(create))

    def _session_moved(self, moved: fx.SessionMoved) -> None:
        session = moved.session
        self._orphans.pop(session, None)
        if moved.node != self.node or moved.boot != self.boot:
            if self._homes.drop_home(session) is not None:
                self._drop_volatile(session)
            return
        record = self._registry.get(session)
        if record is None:
            return  # it has ended within the same entry
        link = self._homes.by_number.get(moved.link)
        home = self._homes.by_session.get(session)
        if home is None:
            caller = Caller(session, record.vhost, 0, self.node)
            home = Home(caller, moved.epoch, record.grace_ms, None, self.now_ms)
            self._homes.by_session[session] = home
        elif home.link is not None and home.link is not link:
            self._homes.drop_link(home.link, self.now_ms)
        home.epoch = moved.epoch
        home.link = link
        home.lost_ms = self.now_ms
        for queue in self._topology.machine.topology.owned_by(session):
            self._create(queue)
        if link is None:
            return
        if link.hello is None:
            pass  # a Hello that was asked again: it was counted the first time
        elif moved.epoch == 1:
            self.counters.sessions_opened += 1
        else:
            self.counters.sessions_resumed += 1
        link.session, link.hello = session, None
        home.say(
            Welcome(
                session,
                moved.token,
                moved.epoch,
                self.node,
                self.boot,
                record.grace_ms,
                self.config.body_bytes_max,
                [self.config.client_address]
                + [peer.address for peer in self._peers.values() if peer.address],
            )
        )

    def _session_gone(self, session: int, reason: str) -> None:
        self._orphans.pop(session, None)
        home = self._homes.drop_home(session)
        if home is not None:
            self._drop_volatile(session)
            if not home.closing:
                self.counters.sessions_expired += 1
            if home.link is not None:
                self._deny(home.link.identity, Code.SESSION_EXPIRED, f"the session ended: {reason}")
        elif session in self._volatile.machine.sessions:
            self._drop_volatile(session)
        down = encode(SessionDown(session, self._topology.applied))
        for shard in self.shards.values():
            if shard.in_service and session in shard.machine.sessions:
                shard.inbox.add_first(down)

    def _drop_volatile(self, session: int) -> None:
        """What a session that is not at home here any more had in memory."""
        self._keep(SessionDown(session))
        for record in self._topology.machine.topology.owned_by(session):
            if record.shard == VOLATILE_SHARD:
                self._keep(QueueDrop(0, 0, 0, record.id))

    def _queue_gone(self, queue: int, number: int) -> None:
        if number == VOLATILE_SHARD:
            if self._volatile.machine.knows(queue):
                self._keep(QueueDrop(0, 0, 0, queue))
        elif (shard := self.shards.get(number)) is not None and shard.in_service:
            shard.inbox.add_first(encode(QueueDrop(0, 0, 0, queue)))

    # --- upkeep ---------------------------------------------------------------------------

    def _tell_of_silence(self) -> None:
        """Say once which peers are not heard, and once when that changes."""
        silent = [peer.node for peer in self._peers.values() if not self._is_heard(peer)]
        starting = self.now_ms - self._began_ms < self.config.link_lost_ms
        if silent == self._silent or (silent and starting):
            return
        self._silent = silent
        known = (self.config.peer(node) for node in silent)
        places = ", ".join(f"{peer.id} at {peer.host}:{peer.peer_port}" for peer in known)
        if not silent:
            self._log(f"node {self.node} hears all other nodes")
        elif len(silent) < len(self._peers):
            self._log(f"node {self.node} does not hear {places}; it keeps trying")
        else:
            self._log(
                f"node {self.node} hears none of the other nodes ({places}) and keeps trying: "
                f"check that they run and that --cluster-nodes names their peer ports"
            )

    def _upkeep(self) -> None:
        """Once in a while: what events may have missed is found by looking."""
        self._tell_of_silence()
        for shard in self.shards.values():
            if shard.in_service:
                self._reconcile(shard)
        for queue in list(self._unused):
            self._remove_unused(queue)
        self._reconcile_volatile()
        self._expire_sessions()
        self._balance()
        for number, inspection in list(self._inspections.items()):
            if self.now_ms - inspection.asked_ms > INSPECTION_MS:
                self._conclude(number)

    def _reconcile(self, shard: Shard) -> None:
        """Bring a led shard in line with the topology and the registry.

        An id of shard 0 that is not known there has ended, unless it is newer than this
        node's copy.
        """
        machine, newest = shard.machine, self._topology.applied
        for session in list(machine.sessions):
            if index_of(session) <= newest and self._registry.get(session) is None:
                shard.inbox.add_first(encode(SessionDown(session, newest)))
        topology = self._topology.machine.topology
        for queue in machine.queues():
            if index_of(queue) <= newest and topology.queue_by_id(queue) is None:
                shard.inbox.add_first(encode(QueueDrop(0, 0, 0, queue)))
        for record in topology.queues():
            if record.shard == shard.number and not machine.knows(record.id):
                create = QueueCreate(record.id, record.flags, record.arguments)
                shard.inbox.add_first(encode(create))
        self._unused.update(machine.unused_queues())

    def _reconcile_volatile(self) -> None:
        machine, topology = self._volatile.machine, self._topology.machine.topology
        for queue in list(machine.queues()):
            record = topology.queue_by_id(queue)
            if record is None or self._router.place(record) != self.node:
                self._keep(QueueDrop(0, 0, 0, queue))
        for session in list(machine.sessions):
            if session and self._registry.get(session) is None:
                self._keep(SessionDown(session))
        self._unused.update(machine.unused_queues())

    def _remove_unused(self, queue: int) -> None:
        """Delete an auto-delete queue whose last consumer has gone."""
        record = self._topology.machine.topology.queue_by_id(queue)
        if record is None:
            self._unused.discard(queue)
            return
        if record.shard == VOLATILE_SHARD:
            if self._router.place(record) != self.node:
                # Its session moved on: what has no consumers any more is our copy alone.
                self._unused.discard(queue)
                return
            machine = self._volatile.machine
        elif (shard := self.shards.get(record.shard)) is not None and shard.in_service:
            machine = shard.machine
        else:
            self._unused.discard(queue)
            return
        if machine.counts(queue)[2]:
            self._unused.discard(queue)
        else:
            self._submit(TOPOLOGY, encode(QueueRemove(0, 0, 0, queue)))

    def _expire_sessions(self) -> None:
        """End sessions whose client has been away for its grace."""
        now, submit = self.now_ms, self._submit
        for session, home in self._homes.by_session.items():
            if home.closing:
                submit(TOPOLOGY, encode(SessionClose(session, 0, home.closing)))
            elif home.link is None and now - home.lost_ms >= home.grace_ms:
                reason = f"its client was away for {now - home.lost_ms} ms"
                submit(TOPOLOGY, encode(SessionClose(session, home.epoch, reason)))
        if not self.serving():
            return
        leads = self._topology.in_service
        for record in self._registry:
            if record.node == self.node:
                kept = record.id in self._homes.by_session
            else:
                peer = self._peers.get(record.node)
                kept = not leads or (peer is not None and self._is_heard(peer))
            if kept:
                self._orphans.pop(record.id, None)
                continue
            since = self._orphans.setdefault(record.id, now)
            if now - since >= record.grace_ms:
                reason = f"node {record.node} was gone, and its client did not come back"
                submit(TOPOLOGY, encode(SessionClose(record.id, record.epoch, reason)))

    def _balance(self) -> None:
        """Give one shard back to its preferred leader, when that one is well."""
        for number, shard in self.shards.items():
            if not shard.in_service:
                continue
            wanted = preferred_leader(self._replicas[number])
            peer = self._peers.get(wanted)
            settled = (
                self.now_ms - self._in_service_since.get(number, self.now_ms) > BALANCE_AFTER_MS
            )
            if peer is None or not settled or not self._is_heard(peer):
                continue
            if shard.is_caught_up(peer.raft_id):
                self._in_service_since[number] = self.now_ms
                shard.raft.transfer_leader(peer.raft_id)
                return

    # --- looking inside -------------------------------------------------------------------

    def serving(self) -> bool:
        """Whether this node can serve clients: it knows a leader of shard 0."""
        return self._topology.raft.leader != 0 and TOPOLOGY in self._leaders

    def readiness(self) -> tuple[bool, str]:
        """(ready, why not)."""
        for number, shard in self.shards.items():
            if not shard.raft.leader:
                return False, f"shard {number} has no leader; is a majority of nodes running?"
            if shard.applied < shard.raft.commit:
                return False, f"shard {number} is replaying its log"
        missing = [n for n in range(self.config.shards) if n not in self._leaders]
        if missing:
            return False, f"no leader of shard {missing[0]} is in service yet"
        return True, ""

    def status(self) -> NodeStatus:
        """This node's view of everything."""
        ready, reason = self.readiness()
        now = self.now_ms
        return NodeStatus(
            version=__version__,
            node=self.node,
            boot=self.boot,
            cluster=self.config.cluster_name,
            ready=ready,
            reason=reason,
            peers=[
                PeerStatus(
                    node=peer.node,
                    connected=self._is_heard(peer),
                    last_heard_ms=now - peer.heard_ms if peer.boot else None,
                    client_address=peer.address,
                )
                for peer in self._peers.values()
            ],
            shards=[
                ShardStatus(
                    shard=number,
                    role=shard.raft.role.value,
                    leader=self._names.get(shard.raft.leader, ""),
                    term=shard.raft.term,
                    commit=shard.raft.commit,
                    applied=shard.applied,
                    last=shard.raft.last_index,
                )
                for number, shard in self.shards.items()
            ],
            sessions=[
                session_status(record, self._is_connected(record.id, record.node))
                for record in self._registry
            ],
            queues=[
                queue_status(record, self._counts(record))
                for record in self._topology.machine.topology.queues()
            ],
        )

    def _is_connected(self, session: int, node: str) -> bool:
        if node == self.node:
            home = self._homes.by_session.get(session)
            return home is not None and home.link is not None
        peer = self._peers.get(node)
        return peer is not None and self._is_heard(peer)

    def _counts(self, record: QueueRecord) -> tuple[int, int, int]:
        if record.shard == VOLATILE_SHARD:
            return self._volatile.machine.counts(record.id)
        shard = self.shards.get(record.shard)
        return shard.machine.counts(record.id) if shard is not None else (0, 0, 0)

    def _tell(self, what: str) -> dict[int, tuple[int, int, int]]:
        """The counts that this node knows best: of shards it leads and queues it keeps."""
        if what != "counts":
            return {}
        counts = {}
        for record in self._topology.machine.topology.queues():
            shard = self.shards.get(record.shard)
            if self._router.place(record) == self.node or (shard is not None and shard.in_service):
                counts[record.id] = self._counts(record)
        return counts

    def _inspect(self, home: Home, operation: Inspect) -> None:
        if operation.what not in ("queues", "sessions", "status"):
            text = f"what = '{operation.what}'; choose queues, sessions or status"
            self._say(home, RefusedAnswer(operation.seq, Code.INVALID_ARGUMENT, text))
            return
        self._inspection_count += 1
        number = self._inspection_count
        heard = [peer for peer in self._peers.values() if self._is_heard(peer)]
        self._inspections[number] = Inspection(
            home.caller.session,
            operation.seq,
            operation.what,
            self.now_ms,
            {peer.node for peer in heard},
            self._tell("counts"),
        )
        for peer in heard:
            peer.records.append(Ask(number, "counts"))
        if not heard:
            self._conclude(number)

    def _told(self, number: int, node: str, value: object) -> None:
        inspection = self._inspections.get(number)
        if inspection is not None and inspection.add(node, value):
            self._conclude(number)

    def _conclude(self, number: int) -> None:
        inspection = self._inspections.pop(number)
        home = self._homes.by_session.get(inspection.session)
        if home is not None:
            ids = {(r.vhost, r.name): r.id for r in self._topology.machine.topology.queues()}
            home.say(Replied(inspection.seq, inspection.report(self.status(), ids)))


def _took_no_queue(plan: object) -> bool:
    """Whether a publish that was answered at once was one that no queue takes."""
    return isinstance(plan, Confirmed) or (
        isinstance(plan, RefusedAnswer) and plan.code == Code.NO_ROUTE
    )
