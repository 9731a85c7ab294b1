"""Sessions whose client has been away for its grace.

at home here      the home knows when the link was lost
kept by nobody    their node is gone, or has forgotten them: shard 0's leader, or the node
                  itself, counts from when it noticed
"""

from __future__ import annotations

from broker.cluster import Cluster
from broker.homes import Homes
from broker.machines.commands import SessionClose, encode
from broker.machines.registry import SessionRecord
from broker.router import TOPOLOGY


class Expiry:
    """Has shard 0 close what nobody comes back to."""

    def __init__(self, cluster: Cluster, homes: Homes) -> None:
        self._cluster, self._homes = cluster, homes
        self._orphans: dict[int, int] = {}  # session -> since when nobody keeps it

    def forget(self, session: int) -> None:
        """It has ended, or somebody keeps it again."""
        self._orphans.pop(session, None)

    def forget_all(self) -> None:
        """What became of them meanwhile is not known: count again from now."""
        self._orphans.clear()

    def run(self) -> None:
        """Close all that are due."""
        self._close_homes()
        if self._cluster.serving():
            self._close_orphans()

    def _close_homes(self) -> None:
        now, submit = self._cluster.now_ms, self._cluster.submit
        for session, home in self._homes.by_session.items():
            if home.closing:
                submit(TOPOLOGY, encode(SessionClose(session, 0, home.closing)))
            elif home.link is None and now - home.lost_ms >= home.grace_ms:
                reason = f"its client was away for {now - home.lost_ms} ms"
                submit(TOPOLOGY, encode(SessionClose(session, home.epoch, reason)))

    def _close_orphans(self) -> None:
        now, leads = self._cluster.now_ms, self._cluster.shard_zero.in_service
        for record in self._cluster.registry:
            if self._is_kept(record, leads):
                self._orphans.pop(record.id, None)
                continue
            since = self._orphans.setdefault(record.id, now)
            if now - since >= record.grace_ms:
                reason = f"node {record.node} was gone, and its client did not come back"
                close = SessionClose(record.id, record.epoch, reason)
                self._cluster.submit(TOPOLOGY, encode(close))

    def _is_kept(self, record: SessionRecord, leads: bool) -> bool:
        """Of other nodes' sessions only the leader of shard 0 judges."""
        if record.node == self._cluster.node:
            return record.id in self._homes.by_session
        peer = self._cluster.peers.get(record.node)
        # One that leaves, or hears no leader of shard 0, cannot close what it keeps.
        return not leads or (peer is not None and self._cluster.is_heard(peer) and not peer.leaving)
