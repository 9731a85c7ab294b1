"""The cluster as this node sees it: what all parts of the engine share."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from broker.config import Config, raft_id
from broker.leaders import Leaders
from broker.machines.members import NodeRecord, NodeState
from broker.metrics import Counters
from broker.peers import Head, Peer
from broker.placement import Target
from broker.ring import replicas_of
from broker.router import TOPOLOGY
from broker.shard import Shard
from raftlog.ready import Role


class Kept(NamedTuple):
    """Who keeps a group, as its leader has told."""

    term: int
    version: int  #: of the list of nodes that the group has reached; 0: it is on its way
    voters: tuple[int, ...]
    learners: tuple[int, ...]


class Cluster:
    """Shards, peers, leaders and the time, and how a command gets to its shard."""

    def __init__(
        self,
        config: Config,
        *,
        boot: int,
        now_ms: int,
        shards: dict[int, Shard],
        leaders: Leaders,
        log: Callable[[str], None],
        id: bytes = b"",
        disk: bytes = b"",
    ) -> None:
        """`shards` are those that this node keeps, shard 0 always among them.

        id: the cluster's; b"": that of the founding nodes in `config`. disk: this node's.
        """
        self.config = config
        self.id = id or config.cluster_id
        self.node = config.node_id
        self.address = config.client_address  #: goes out with every frame to a peer
        self.boot = boot
        self.now_ms = now_ms  #: never goes back; durations hang on it
        self.ticks = 0  #: since the start
        self.unix_ms = 0  #: of the turn under way
        self.log = log
        self.counters = Counters()
        self.shards = shards
        self.leaders = leaders
        self.peers: dict[str, Peer] = {}  #: the others in the list of nodes; see `Roster`
        self.names: dict[int, str] = {}  #: by Raft id, of all nodes there have ever been
        self.kept: dict[int, Kept] = {}  #: by shard
        self.leaving = False  #: this node is about to stop, and gives away what it leads
        self.adrift = False  #: it hears no leader of shard 0, and gives away what it leads
        self.dismissed: tuple[int, str] | None = None  #: this node is to stop: (exit code, why)
        self.shard_zero = shards[TOPOLOGY]
        self.topology = self.shard_zero.machine.topology
        self.registry = self.shard_zero.machine.registry
        self.members = self.shard_zero.machine.members
        self._founding = tuple(
            NodeRecord(peer.id, peer.host, peer.peer_port, NodeState.MEMBER, founder=True)
            for peer in config.cluster_nodes
        )
        self._targets: dict[int, Target] = {}
        self._targets_of = -1  #: the revision of the list
        own = config.peer(self.node)
        self.head = Head(
            self.id, self.node, boot, self.address, disk, f"{own.host}:{own.peer_port}"
        )

    def listed(self) -> tuple[NodeRecord, ...]:
        """The nodes of the cluster: as shard 0 has them, and until it does as founded."""
        return tuple(self.members.present) or self._founding

    def target(self, number: int) -> Target:
        """Who should keep a group."""
        if self._targets_of != self.members.revision:
            self._targets_of = self.members.revision
            self._targets.clear()
        target = self._targets.get(number)
        if target is None:
            target = self._targets[number] = self._new_target(number)
        return target

    def _new_target(self, number: int) -> Target:
        listed = self.listed()
        nodes = [node.name for node in listed if node.state is NodeState.MEMBER]
        voters = replicas_of(number, nodes, self.config.replication_factor)
        joining = [node.name for node in listed if node.state is NodeState.JOINING]
        learners = sorted(joining) if number == TOPOLOGY else []
        return Target(tuple(map(raft_id, voters)), tuple(map(raft_id, learners)))

    def live(self) -> set[int]:
        """The Raft ids of all nodes that were heard lately, and this one's."""
        heard = {peer.raft_id for peer in self.peers.values() if self.is_heard(peer)}
        return heard | {raft_id(self.node)}

    def submit(self, number: int, command: bytes, session: int = 0) -> None:
        """Hand a command to its shard's leader; without one the client repeats it later."""
        shard = self.shards.get(number)
        if shard is not None and shard.raft.role is Role.LEADER:
            shard.inbox.add(session, command, self.shard_zero.applied)
            return
        peer = self.peers.get(self.leader_of(number))
        if peer is not None:
            peer.forward(number, session, command)

    def is_full(self, number: int, session: int) -> bool:
        """Whether this node leads the shard, and so much waits that publishes are refused.

        So much of this session, or of all together.

        Nothing else is: a settlement makes room, and a client counts a refused one as done.
        """
        shard = self.shards.get(number)
        if shard is None:
            return False
        inbox, config = shard.inbox, self.config
        return (
            inbox.size > config.unconfirmed_bytes_max
            or inbox.size_of(session) > config.session_bytes_max
        )

    def leader_of(self, number: int) -> str:
        """The node that leads a shard, in service or not yet; "" when none is known."""
        shard = self.shards.get(number)
        if shard is not None and shard.raft.leader:
            return self.names.get(shard.raft.leader, "")
        return self.leaders.node_of(number)

    def is_heard(self, peer: Peer) -> bool:
        """Whether a frame of the peer came lately."""
        return self.now_ms - peer.heard_ms < self.config.link_lost_ms

    def can_lead(self, peer: Peer) -> bool:
        """Whether a shard may be given to this peer."""
        return self.is_heard(peer) and peer.trusted and not peer.leaving

    def serving(self) -> bool:
        """Whether this node can serve clients: it knows a leader of shard 0, and what it leads."""
        zero = self.shard_zero
        return zero.raft.leader != 0 and not zero.receiving and TOPOLOGY in self.leaders
