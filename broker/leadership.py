"""The shards that this node leads: it enters service, says so, and gives back what is another's."""

from __future__ import annotations

from broker.cluster import Cluster
from broker.limiter import Limiter
from broker.peer_protocol import Leads
from broker.queues import Queues
from broker.shard import Shard

BALANCE_AFTER_MS = 5000
"""How long a shard is led before it may go to its preferred leader."""


class Leadership:
    """What a node does for being a leader."""

    def __init__(self, cluster: Cluster, queues: Queues, limiter: Limiter) -> None:
        self._cluster, self._queues, self._limiter = cluster, queues, limiter
        self._in_service_since: dict[int, int] = {}

    def enter_service(self, shard: Shard) -> None:
        """This node's no-op is applied: from here on it speaks for the shard."""
        cluster, number, term = self._cluster, shard.number, shard.raft.term
        shard.serving_term = term
        shard.raft.align_heartbeats(cluster.ticks % cluster.config.heartbeat_ticks)
        cluster.counters.elections += 1
        self._in_service_since[number] = cluster.now_ms
        cluster.log(f"node {cluster.node} leads shard {number} in term {term}")
        cluster.leaders.lead(number, term, cluster.node)
        self._tell([(number, term)])
        self._limiter.bring_in_line(shard)
        self._queues.reconcile(shard)

    def announce(self) -> None:
        """Tell the peers of all shards that are led here."""
        shards = self._cluster.shards.items()
        self._tell([(number, shard.raft.term) for number, shard in shards if shard.in_service])

    def balance(self) -> None:
        """Give one shard back to its preferred leader, when that one is well."""
        cluster = self._cluster
        for number, shard in cluster.shards.items():
            if not shard.in_service:
                continue
            preferred = cluster.target(number).voters[0]
            peer = cluster.peers.get(cluster.names.get(preferred, ""))
            since = self._in_service_since.get(number, cluster.now_ms)
            settled = cluster.now_ms - since > BALANCE_AFTER_MS
            if peer is None or not settled or not cluster.can_lead(peer):
                continue
            if shard.is_caught_up(peer.raft_id):
                self._in_service_since[number] = cluster.now_ms
                shard.raft.transfer_leader(peer.raft_id)
                return

    def _tell(self, shards: list[tuple[int, int]]) -> None:
        leads = Leads(shards, self._cluster.leaving or self._cluster.adrift)
        for peer in self._cluster.peers.values():
            peer.records.append(leads)
