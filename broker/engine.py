"""A node without its sockets, disk and clock: frames and ticks in, frames and writes out.

    peer_frame, client_frame, tick          take what has come
      begin()      propose, collect every group's Ready      -> writes
      peer_frames(), part_frames()                           -> may leave before the write
      (the shell writes all of it in one transaction)
      end()        messages that promise durability, apply, effects
      peer_frames(), part_frames(), client_frames()          -> leave after the write

The shell (`node.py`) and the simulation drive it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from broker import succession
from broker.answers import Answers
from broker.auditor import Auditor
from broker.changes import Changes
from broker.charter import Charter, JoinAnswer, decode_ask, encode_join
from broker.cluster import Cluster
from broker.config import Config
from broker.courier import Courier
from broker.departure import Departure
from broker.errors import Code
from broker.expiry import Expiry
from broker.groups import new_machine, open_shard, open_shards
from broker.homes import Homes
from broker.housekeeping import Housekeeping
from broker.inspector import Inspector
from broker.keeper import Keeper
from broker.leaders import Leaders
from broker.leadership import Leadership
from broker.learner import Learner
from broker.lender import Lender
from broker.limiter import Limiter
from broker.machines.limits import values_of
from broker.mover import Mover
from broker.operations import Operations
from broker.overview import Overview
from broker.peer_protocol import PeerProtocolError, RaftRecord, decode_peer_frame
from broker.peer_records import PeerRecords
from broker.protocol import (
    VOLATILE_SHARD,
    Hello,
    ProtocolError,
    RefusedAnswer,
    decode_operations,
    encode_answer,
    join_answers,
)
from broker.queues import Queues
from broker.reception import Reception
from broker.roster import Roster
from broker.router import TOPOLOGY, Caller, Router
from broker.shard import Shard
from broker.silence import Silence
from broker.snapshots.receiver import Receiver
from broker.snapshots.sender import Sender
from broker.status import ClusterStatus, NodeStatus
from broker.unused import Unused
from broker.upkeep import Upkeep
from broker.volatile import VolatileShard
from raftlog.chance import Chance
from raftlog.messages import Entry, Membership, Snapshot, SnapshotRequest, encode_message
from raftlog.ready import Ready, Role
from raftlog.storage import GroupStore
from raftlog.write import GroupWrite, Mark


class Engine:
    """All shards, peers and clients of one node."""

    def __init__(
        self,
        config: Config,
        *,
        boot: int,
        now_ms: int,
        store: GroupStore,
        random: Chance,
        cluster_id: bytes = b"",
        log: Callable[[str], None] = lambda text: None,
    ) -> None:
        """`boot` differs at every start of the node; `store` has the groups it keeps.

        cluster_id: of the directory; b"": that of the founding nodes in `config`.
        """
        self._homes = homes = Homes()
        self._config, self._store, self._random = config, store, random
        if TOPOLOGY not in store.storages:
            store.add_group(TOPOLOGY, Membership())  # a node that joins: it is sent what it needs
        self.shards = open_shards(config, store.storages, random)
        self._cluster = cluster = Cluster(
            config,
            boot=boot,
            now_ms=now_ms,
            shards=self.shards,
            leaders=Leaders(homes),
            log=log,
            id=cluster_id,
            disk=store.disk_id,
        )
        self._roster = Roster(cluster)
        self._mover = Mover(cluster, self._roster)
        self._changes = Changes(cluster)
        self.counters = cluster.counters
        router = Router(cluster.shard_zero.machine, config)
        volatile = VolatileShard(new_machine(config, VOLATILE_SHARD), config.volatile_messages_max)
        self._overview = Overview(cluster, homes, router, volatile)
        inspector = Inspector(cluster, homes, self._overview)
        self._operations = Operations(cluster, homes, router, inspector)
        unused = Unused(cluster, router, volatile)
        self._courier = Courier(cluster, homes, self._operations, unused)
        self._auditor = auditor = Auditor(cluster)
        keeper = Keeper(cluster, volatile, self._courier)
        self._operations.keep = keeper.keep
        self._answers = Answers(cluster, homes, self._operations)
        self._sender, self._receiver = Sender(cluster), Receiver(cluster)
        self._peer_records = PeerRecords(
            cluster,
            homes,
            self._operations,
            self._answers,
            keeper,
            inspector,
            auditor,
            Lender(cluster),
            self._sender,
            self._receiver,
            self._mover,
            self._changes,
        )
        self._peer_records.open_group = self._open_group
        queues = Queues(cluster, router, volatile, keeper, unused)
        self._reception = Reception(cluster, homes, volatile, keeper, queues)
        expiry = Expiry(cluster, homes)
        self._limiter = limiter = Limiter(cluster, volatile)
        self._learner = Learner(cluster, self._reception, queues, expiry, limiter)
        self._leadership = Leadership(cluster, queues, limiter)
        self._departure = Departure(cluster, self._leadership)
        self._upkeep = Upkeep(
            cluster,
            homes,
            self._reception,
            self._operations,
            self._leadership,
            queues,
            unused,
            expiry,
            inspector,
            Silence(cluster),
            limiter,
            auditor,
            self._mover,
        )
        self._housekeeping = Housekeeping(config, self.shards)
        self._readies: list[tuple[Shard, Ready]] = []
        self._learner.restored()

    @property
    def now_ms(self) -> int:
        """The time of the last tick."""
        return self._cluster.now_ms

    # --- what comes in --------------------------------------------------------------------

    def client_frame(self, identity: bytes, frame: bytes) -> None:
        """A frame from a client. Whatever is wrong with it concerns that client alone."""
        self.counters.client_frames += 1
        try:
            opened = decode_operations(frame)
        except ProtocolError as error:
            self._malformed(identity, error)
            return
        link = self._homes.by_identity.get(identity)
        if link is not None:
            link.unread = 0
        by_session, operate = self._homes.by_session, self._operations.operate
        for operation in opened.operations:
            if isinstance(operation, Hello):
                link = self._reception.hello(identity, operation)
                continue
            home = by_session.get(link.session) if link is not None else None
            if link is None or home is None or home.link is not link:
                if link is None or link.hello is None:
                    text = "say Hello first on a new link"
                    self._reception.deny(identity, Code.COMMAND_INVALID, text)
                return
            if opened.floor > home.caller.floor:
                caller = home.caller
                home.caller = Caller(caller.session, caller.vhost, opened.floor, caller.node)
                home.retire(opened.floor)
            operate(home, operation)

    def client_lost(self, identity: bytes) -> None:
        """The transport cannot reach this client any more."""
        link = self._homes.by_identity.get(identity)
        if link is not None:
            self._homes.drop_link(link, self._cluster.now_ms)

    def peer_frame(self, data: bytes) -> None:
        """A frame from another node."""
        cluster = self._cluster
        self.counters.peer_frames += 1
        try:
            frame = decode_peer_frame(data)
        except PeerProtocolError as error:
            self.counters.malformed_frames += 1
            cluster.log(f"dropped a malformed peer frame: {error}")
            return
        peer = self._roster.admit(frame)
        if peer is not None:
            self._peer_records.take(peer, frame)

    def peer_reset(self, node: str) -> None:
        """The link to a peer was reset: its process may have died."""
        peer = self._cluster.peers.get(node)
        if peer is not None:
            peer.leaving = True  # until it says otherwise
            waits = succession.waits(self._cluster, node)
            for number, shard in self.shards.items():
                shard.raft.peer_lost(peer.raft_id, waits.get(number))
            self._sender.lost(node)

    def tick(self, now_ms: int) -> None:
        """One tick of `tick_ms`. `now_ms` never goes back: this node's own durations hang on it."""
        self._cluster.now_ms = now_ms
        self._cluster.ticks += 1
        self._drop_groups()
        for shard in self.shards.values():
            shard.raft.tick()
            shard.full = False
        self._housekeeping.tick(now_ms)
        self._upkeep.tick()
        self._departure.tick()
        self._sender.tick()
        self._receiver.tick()

    def leave(self) -> None:
        """This node is told to stop: it gives away what it leads. Tick on until `has_left`."""
        self._departure.begin()

    def has_left(self) -> bool:
        """Whether nobody misses this node as a leader, or nobody could take over from it."""
        return self._departure.is_done()

    def _malformed(self, identity: bytes, error: ProtocolError) -> None:
        self.counters.malformed_frames += 1
        self._cluster.log(f"dropped a malformed frame from a client: {error}")
        answer = RefusedAnswer(0, Code.MALFORMED_FRAME, f"not a frame: {error}")
        self._reception.denied.append((identity, join_answers([encode_answer(answer)])))

    # --- groups that come and go ----------------------------------------------------------

    def _open_group(self, number: int) -> Shard:
        """This node is to keep a group: what is in it comes from its leader."""
        self._cluster.log(f"node {self._cluster.node} gets a copy of shard {number}")
        storage = self._store.add_group(number, Membership())
        shard = open_shard(self._config, number, storage, self._random, "")
        self.shards[number] = shard
        return shard

    def _drop_groups(self) -> None:
        """Others keep these now. Between two turns, when nothing of them is under way."""
        assert not self._readies
        for number in sorted(self._mover.given_up):
            self._cluster.log(f"node {self._cluster.node} gives up its copy of shard {number}")
            del self.shards[number]
            self._store.drop_group(number)
        self._mover.given_up.clear()

    # --- a turn ---------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether a turn would do anything."""
        if self._housekeeping.due or self._receiver.has_work():
            return True
        topology = self._cluster.shard_zero.applied
        for shard in self.shards.values():
            raft = shard.raft
            if not raft.quiet and raft.has_ready():
                return True
            if shard.inbox.size and shard.can_propose(topology):
                return True
        return False

    def begin(self, unix_ms: int) -> list[GroupWrite]:
        """Propose what waits, stamped with Unix time, and collect what must be written."""
        self._cluster.unix_ms = unix_ms
        housekeeping, writes, lazy = self._housekeeping, [], []
        for number, shard in self.shards.items():
            raft = shard.raft
            if shard.inbox.size or (shard.serving_term and not raft.quiet):
                self._propose(shard, unix_ms)
            news = not raft.quiet and raft.has_ready()
            if not (news or shard.receiving or housekeeping.is_due(number)):
                continue  # nearly every shard, in nearly every turn
            write, needed, ready = GroupWrite(number), False, None
            if news:
                ready = raft.ready()
                self._readies.append((shard, ready))
                for message in ready.messages:
                    if type(message) is SnapshotRequest:
                        self._sender.offered(shard, message)
                    self._post(number, message.target, encode_message(message))
                write, needed = GroupWrite(number, ready.hard_state, ready.entries), ready.must_sync
                if ready.snapshot is not None:
                    write = self._install(shard, ready.snapshot, write)
            part = self._receiver.write(
                shard, installs=ready is not None and ready.snapshot is not None
            )
            if part is not None:
                write, needed = write._replace(bodies=part.bodies, chunks=part.chunks), True
            elif housekeeping.is_due(number) and (more := housekeeping.add_to(write)) is not None:
                write, needed = more, True
            if needed:
                writes.append(write)
            elif write.hard_state is not None:
                lazy.append(write)
        housekeeping.rest()
        self._receiver.pull()
        if self._readies:
            self.counters.turns += 1
        return writes + lazy if writes else writes

    def end(self) -> None:
        """All of `begin()`'s writes are on disk: promise, apply, carry out."""
        readies, self._readies = self._readies, []
        reads = self._operations.reads
        for shard, ready in readies:
            for message in ready.messages_after:
                self._post(shard.number, message.target, encode_message(message))
            for read in ready.read_states:
                reads.grant(read.context, read.index)
            if ready.snapshot is not None:
                self._restore(shard, ready.snapshot)
            for entry in ready.committed:
                self._apply(shard, entry)
            shard.raft.advance(ready)
            if ready.snapshot is not None:
                self._receiver.installed(shard)
        self._receiver.written()
        self._answers.release()
        if reads:
            self._operations.read_topology()

    def peer_frames(self) -> list[tuple[str, bytes]]:
        """One frame for each peer there is something for."""
        cluster, frames = self._cluster, []
        head, topology = cluster.head, cluster.shard_zero.applied
        for node, peer in cluster.peers.items():
            frame = peer.frame(head, topology)
            if frame:
                frames.append((node, frame))
        return frames

    def part_frames(self) -> list[tuple[str, bytes]]:
        """Parts of snapshots, to be sent on links of their own: nothing may wait behind them."""
        cluster, frames = self._cluster, []
        for node, peer in cluster.peers.items():
            if peer.parts:
                parts = peer.part_frames(cluster.head, cluster.shard_zero.applied)
                frames += [(node, frame) for frame in parts]
        return frames

    def client_frames(self) -> list[tuple[bytes, bytes]]:
        """(identity, frame) for each client there is something for."""
        cluster = self._cluster
        frames, self._reception.denied = self._reception.denied, []
        for home in self._homes.by_session.values():
            if not (home.answers or home.confirms):
                continue
            link, frame = home.link, home.frame()
            if frame is None or link is None:
                continue
            # ZeroMQ bounds what waits for a client that does not read by frames alone.
            link.unread += len(frame)
            if link.unread > cluster.config.unread_bytes_max:
                cluster.log(f"session {link.session} does not read: its link is dropped")
                self._homes.drop_link(link, cluster.now_ms)
            else:
                frames.append((link.identity, frame))
        return frames

    def _propose(self, shard: Shard, unix_ms: int) -> None:
        cluster = self._cluster
        if shard.in_service:
            topology = cluster.shard_zero.applied
            if shard.can_propose(topology):
                shard.propose(unix_ms, topology, cluster.registry.__contains__)
        elif shard.serving_term:
            shard.retire()
            cluster.log(f"node {cluster.node} leads shard {shard.number} no more")
        elif shard.inbox and shard.raft.role is not Role.LEADER:
            shard.inbox.clear()

    def _apply(self, shard: Shard, entry: Entry) -> None:
        raft = shard.raft
        applied = shard.apply(entry)
        if shard is self._cluster.shard_zero:
            self._learner.learn(applied)
        if applied.in_service:
            self._courier.carry_out(shard.number, raft.term, applied, shard.message)
        elif not entry.data and entry.term == raft.term and raft.role is Role.LEADER:
            self._leadership.enter_service(shard)  # by its own no-op
        if shard.machine.audited == entry.index:
            self._auditor.applied(shard)

    def _install(self, shard: Shard, snapshot: Snapshot, write: GroupWrite) -> GroupWrite:
        """A leader's snapshot, whose chunks and bodies are on disk, becomes the group's all.

        One of index 0 says who founded the group; there is nothing to restore.
        """
        index, chunks = snapshot.index, shard.storage.chunks_of(snapshot.index)
        assert chunks or not index, f"a snapshot of shard {shard.number} without its chunks"
        self._housekeeping.installed(shard)
        mark = Mark(index, snapshot.term, snapshot.membership, chunks if index else 0)
        return write._replace(install=mark)

    def _restore(self, shard: Shard, snapshot: Snapshot) -> None:
        """An installed snapshot is on disk: be what it says."""
        if not snapshot.index:
            return
        shard.restore(snapshot.index)
        self._cluster.log(
            f"node {self._cluster.node} has shard {shard.number} up to entry {snapshot.index} "
            f"from a snapshot"
        )
        if shard is self._cluster.shard_zero:
            self._learner.restored()

    def _post(self, group: int, target: int, message: bytes) -> None:
        peer = self._cluster.peers.get(self._cluster.names.get(target, ""))
        if peer is not None:
            incarnation = self.shards[group].storage.incarnation
            peer.records.append(RaftRecord(group, incarnation, message))

    # --- the cluster's nodes --------------------------------------------------------------

    @property
    def dismissed(self) -> tuple[int, str] | None:
        """(exit code, why) when this node does not belong to the cluster and is to stop."""
        return self._cluster.dismissed

    @property
    def changes(self) -> Changes:
        """What operators want changed."""
        return self._changes

    def join_answer(self, frame: bytes, charter: Charter) -> bytes:
        """The answer to a new node that asks whether it may join."""
        try:
            ask = decode_ask(frame)
        except msgspec.DecodeError as error:
            self.counters.malformed_frames += 1
            return encode_join(JoinAnswer(f"not a question: {error}"))
        return encode_join(self._roster.answer(ask, charter))

    def endpoints(self) -> dict[str, tuple[str, int]]:
        """(host, port) of all nodes there may be frames for."""
        return self._roster.endpoints()

    # --- looking inside -------------------------------------------------------------------

    def serving(self) -> bool:
        """Whether this node can serve clients: it knows a leader of shard 0."""
        return self._cluster.serving()

    def readiness(self) -> tuple[bool, str]:
        """(ready, why not)."""
        return self._overview.readiness()

    def limits(self) -> dict[str, int]:
        """The limits in force in the cluster, by name, as far as this node knows."""
        return values_of(self._limiter.limits)

    def change_limits(self, changes: Mapping[str, int]) -> str:
        """Ask for other limits; why not, or "". They are in force when `limits` has them."""
        return self._limiter.change(changes)

    def members(self) -> ClusterStatus:
        """The list of nodes."""
        return self._overview.cluster()

    def status(self) -> NodeStatus:
        """This node's view of everything."""
        return self._overview.status()
