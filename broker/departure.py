"""A node that is to lead nothing gives away what it leads: no election has to be waited for.

serving --- told to stop ---> leaving: each shard led here goes to the voter that has most of
                              its log, of those that are heard and do not leave themselves
        --- all are led by others, or nobody could ---> gone

serving --- no leader of shard 0 is heard for `link_lost_ms` ---> adrift: the same; it knows of no
                              new session, so what it leads stands still for their clients
        --- one is heard again ---> serving
"""

from __future__ import annotations

from broker.cluster import Cluster
from broker.leadership import Leadership
from broker.peers import Peer
from broker.ring import succession
from broker.shard import Shard
from raftlog.ready import Role

_ADRIFT = "hears no leader of shard 0; whoever does takes over what is led here"
_FOUND = "hears a leader of shard 0 again"


class Departure:
    """The way out of a node that leads shards."""

    def __init__(self, cluster: Cluster, leadership: Leadership) -> None:
        self._cluster, self._leadership = cluster, leadership
        self._led_ms = cluster.now_ms  #: when a leader of shard 0 was last known

    def tick(self) -> None:
        """Look whether this node is adrift, and go on giving away when it is, or leaves."""
        cluster = self._cluster
        if cluster.shard_zero.raft.leader:
            self._led_ms = cluster.now_ms
        adrift = cluster.now_ms - self._led_ms >= cluster.config.link_lost_ms
        if adrift is not cluster.adrift:
            cluster.adrift = adrift
            cluster.log(f"node {cluster.node} {_ADRIFT if adrift else _FOUND}")
            self._leadership.announce()
        if cluster.leaving or adrift:
            self.go_on()

    def begin(self) -> None:
        """From here on this node wants to lead nothing."""
        self._cluster.leaving = True
        self._leadership.announce()
        self.go_on()

    def go_on(self) -> None:
        """Hand over what is led here and not on its way yet. A transfer may fail: call again."""
        for shard in self._cluster.shards.values():
            if shard.raft.role is Role.LEADER and (heirs := self._heirs(shard)):
                shard.raft.transfer_leader(heirs[0].raft_id)

    def is_done(self) -> bool:
        """Whether all shards are led, in service, by others; or those left have no heir."""
        cluster = self._cluster
        return all(
            not self._heirs(shard)
            for number, shard in cluster.shards.items()
            if shard.raft.role is Role.LEADER or cluster.leaders.node_of(number) == cluster.node
        )

    def _heirs(self, shard: Shard) -> list[Peer]:
        """Who may lead a shard led here: who has most of its log first."""
        cluster, raft = self._cluster, shard.raft
        status = raft.status()
        peers = {
            peer.node: peer
            for peer in cluster.peers.values()
            if peer.raft_id in status.membership.voters and cluster.can_lead(peer)
        }
        progress = status.progress
        if status.transferee in [peer.raft_id for peer in peers.values()]:
            return [peer for peer in peers.values() if peer.raft_id == status.transferee]

        def missing(node: str) -> int:
            seen = progress.get(peers[node].raft_id)
            return raft.last_index - seen.match if seen is not None else raft.last_index

        # Sorting is stable: among equals, those that take turns as successors.
        return [peers[node] for node in sorted(succession(shard.number, list(peers)), key=missing)]
