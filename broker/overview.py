"""What a node shows of itself: its readiness, its status, and the counts it knows best."""

from __future__ import annotations

from broker.cluster import Cluster
from broker.config import raft_id
from broker.homes import Homes
from broker.inspection import Counts, queue_status, session_status
from broker.machines.members import NodeRecord
from broker.machines.topology import QueueRecord
from broker.protocol import VOLATILE_SHARD
from broker.router import TOPOLOGY, Router
from broker.status import (
    ClusterStatus,
    MemberStatus,
    NodeStatus,
    PeerStatus,
    ShardStatus,
)
from broker.version import __version__
from broker.volatile import VolatileShard
from raftlog.membership import is_voter


class Overview:
    """Looks at everything and changes nothing."""

    def __init__(
        self, cluster: Cluster, homes: Homes, router: Router, volatile: VolatileShard
    ) -> None:
        self._cluster, self._homes = cluster, homes
        self._router, self._volatile = router, volatile

    def readiness(self) -> tuple[bool, str]:
        """(ready, why not)."""
        cluster = self._cluster
        if cluster.leaving:
            return False, "this node is about to stop"
        for number, shard in cluster.shards.items():
            if number != TOPOLOGY and not is_voter(shard.raft.membership, shard.raft.id):
                continue  # a copy that is on its way: others serve this shard
            if not shard.raft.leader:
                return False, f"shard {number} has no leader; is a majority of nodes running?"
            if shard.receiving:
                return False, f"shard {number} receives a snapshot from node {shard.receiving}"
            if shard.applied < shard.raft.commit:
                return False, f"shard {number} is replaying its log"
        missing = [n for n in range(cluster.config.shards) if n not in cluster.leaders]
        if missing:
            return False, f"no leader of shard {missing[0]} is in service yet"
        return True, ""

    def status(self) -> NodeStatus:
        """This node's view of everything."""
        cluster = self._cluster
        ready, reason = self.readiness()
        return NodeStatus(
            version=__version__,
            node=cluster.node,
            boot=cluster.boot,
            cluster=cluster.config.cluster_name,
            ready=ready,
            reason=reason,
            peers=self._peers(),
            shards=self._shards(),
            sessions=[
                session_status(record, self._is_connected(record.id, record.node))
                for record in cluster.registry
            ],
            queues=[
                queue_status(record, self._counts(record)) for record in cluster.topology.queues()
            ],
        )

    def cluster(self) -> ClusterStatus:
        """The list of nodes, with what each keeps as the leaders have told."""
        cluster = self._cluster
        members, kept = cluster.members, cluster.kept
        return ClusterStatus(
            version=members.version,
            settled=bool(members.version) and members.is_settled(),
            moving=[
                number
                for number in range(cluster.config.shards)
                if number not in kept or kept[number].version != members.version
            ],
            nodes=[
                self._member(node)
                for node in (list(members) if members.version else cluster.listed())
            ],
        )

    def _member(self, node: NodeRecord) -> MemberStatus:
        cluster, id = self._cluster, raft_id(node.name)
        peer = cluster.peers.get(node.name)
        return MemberStatus(
            node=node.name,
            address=f"{node.host}:{node.port}",
            state=node.state.value,
            known=bool(node.disk),
            connected=node.name == cluster.node
            or (peer is not None and cluster.is_heard(peer) and not peer.guest),
            votes=sorted(n for n, group in cluster.kept.items() if id in group.voters),
            learns=sorted(n for n, group in cluster.kept.items() if id in group.learners),
        )

    def counts(self) -> dict[int, Counts]:
        """By queue, of the shards that this node leads and the queues that it keeps."""
        cluster, counts = self._cluster, {}
        for record in cluster.topology.queues():
            shard = cluster.shards.get(record.shard)
            led = shard is not None and shard.in_service
            if led or self._router.place(record) == cluster.node:
                counts[record.id] = self._counts(record)
        return counts

    def _peers(self) -> list[PeerStatus]:
        cluster = self._cluster
        return [
            PeerStatus(
                node=peer.node,
                connected=cluster.is_heard(peer),
                last_heard_ms=cluster.now_ms - peer.heard_ms if peer.boot else None,
                client_address=peer.address,
            )
            for peer in cluster.peers.values()
            if not peer.guest
        ]

    def _shards(self) -> list[ShardStatus]:
        return [
            ShardStatus(
                shard=number,
                role=shard.raft.role.value,
                leader=self._cluster.names.get(shard.raft.leader, ""),
                term=shard.raft.term,
                commit=shard.raft.commit,
                applied=shard.applied,
                last=shard.raft.last_index,
                first=shard.storage.first_index(),
                receiving=shard.receiving,
            )
            for number, shard in self._cluster.shards.items()
        ]

    def _is_connected(self, session: int, node: str) -> bool:
        if node == self._cluster.node:
            home = self._homes.by_session.get(session)
            return home is not None and home.link is not None
        peer = self._cluster.peers.get(node)
        return peer is not None and self._cluster.is_heard(peer)

    def _counts(self, record: QueueRecord) -> Counts:
        if record.shard == VOLATILE_SHARD:
            return self._volatile.machine.counts(record.id)
        shard = self._cluster.shards.get(record.shard)
        return shard.machine.counts(record.id) if shard is not None else (0, 0, 0)
