"""Peers that are not heard, told of once when that begins and once when it ends."""

from __future__ import annotations

from broker.cluster import Cluster


class Silence:
    """What was last said about it."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._began_ms = cluster.now_ms
        self._told: list[str] = []

    def tell(self) -> None:
        """Log a change, except that nobody is heard right after the start."""
        cluster = self._cluster
        others = [peer for peer in cluster.peers.values() if not peer.guest]
        silent = [peer.node for peer in others if not cluster.is_heard(peer)]
        starting = cluster.now_ms - self._began_ms < cluster.config.link_lost_ms
        if silent == self._told or (silent and starting):
            return
        self._told = silent
        known = (cluster.peers[node] for node in silent)
        places = ", ".join(f"{peer.node} at {peer.host}:{peer.port}" for peer in known)
        if not silent:
            cluster.log(f"node {cluster.node} hears all other nodes")
        elif len(silent) < len(others):
            cluster.log(f"node {cluster.node} does not hear {places}; it keeps trying")
        else:
            cluster.log(
                f"node {cluster.node} hears none of the other nodes ({places}) and keeps trying: "
                f"check that they run and that --cluster-nodes names their peer ports"
            )
