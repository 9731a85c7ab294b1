"""Snapshots that this node gives, as a leader, to replicas that pull them.

Nothing but the living ids of a stretch of the log is kept between two pulls. Raft is told that
a transfer goes on, or that nobody pulls any more: then it looks again what the replica needs.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from dataclasses import dataclass

from broker.batch import index_of
from broker.cluster import Cluster
from broker.peer_protocol import Bodies, PullBodies, PullState, State
from broker.peers import Peer
from broker.shard import Shard
from broker.snapshots.transfer import last_id
from raftlog.messages import Membership, SnapshotRequest
from raftlog.ready import Role

SILENCE_MS = 5000
"""Without a pull for so long a snapshot counts as failed, and the replica is probed again."""

IDS_MAX = 16_384
"""Living ids that are looked up at a time."""

STRETCHES_MAX = 16
"""Stretches that one answer may go over where little is alive; the rest is for the next one."""


@dataclass(slots=True)
class Stretch:
    """The ids alive when it was looked at, of all above `after` up to `to`."""

    after: int = 0
    to: int = 0
    ids: array[int] | None = None
    entries: int = 1024  #: how many entries of the log it spans, from one look to the next


@dataclass(slots=True)
class Offer:
    """A snapshot on its way to a member."""

    node: str
    index: int  #: of the checkpoint that was offered
    pulled_ms: int  #: or when it was offered
    begun: bool = False  #: a part of it was asked for


class Sender:
    """What this node gives, by group and member."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._offers: dict[tuple[int, int], Offer] = {}
        self._told: set[tuple[int, int]] = set()  #: those offers that the log has
        self._stretches: dict[int, Stretch] = {}
        self._part_bytes = cluster.config.snapshot_part_bytes

    def offered(self, shard: Shard, request: SnapshotRequest) -> None:
        """Raft sends a member a snapshot."""
        cluster, key = self._cluster, (shard.number, request.target)
        node, index = cluster.names.get(request.target, ""), request.snapshot.index
        self._offers[key] = Offer(node, index, cluster.now_ms)
        if index and key not in self._told:
            self._told.add(key)
            cluster.log(
                f"node {cluster.node} offers node {node} a snapshot of shard {shard.number} "
                f"at {index}"
            )

    def lost(self, node: str) -> None:
        """The link to a node was reset: whoever comes back there is asked what it needs."""
        for key, offer in list(self._offers.items()):
            if offer.node == node:
                self._fail(*key)

    def tick(self) -> None:
        """Time has passed: forget what has arrived, and give up what is not pulled.

        A node that receives others first lets this one wait: it is offered again.
        """
        for (number, member), offer in list(self._offers.items()):
            shard = self._cluster.shards.get(number)
            if shard is None or not shard.raft.is_sent_snapshot(member):
                if shard is not None and self._has_arrived(shard, member, offer):
                    self._cluster.counters.snapshots_sent += 1
                self._forget(number, member)
                self._told.discard((number, member))
            elif self._cluster.now_ms - offer.pulled_ms > SILENCE_MS:
                self._fail(number, member)

    @staticmethod
    def _has_arrived(shard: Shard, member: int, offer: Offer) -> bool:
        progress = shard.raft.status().progress.get(member)
        return offer.index > 0 and progress is not None and progress.match >= offer.index

    def _fail(self, number: int, member: int) -> None:
        shard = self._cluster.shards.get(number)
        if shard is not None and shard.raft.is_sent_snapshot(member):
            shard.raft.report_snapshot(member, ok=False)
            self._cluster.counters.snapshots_failed += self._offers[number, member].begun
        self._forget(number, member)

    def _forget(self, number: int, member: int) -> None:
        del self._offers[number, member]
        if not any(number == group for group, _ in self._offers):
            self._stretches.pop(number, None)

    # --- answering ------------------------------------------------------------------------

    def pull_bodies(self, peer: Peer, pull: PullBodies) -> None:
        """Send the living bodies that come next."""
        shard = self._pulled(peer, pull)
        if shard is None or pull.index > shard.applied:
            return
        to, bodies = self._bodies(shard, pull.after, last_id(pull.index))
        self._cluster.counters.snapshot_bytes_sent += sum([len(body) for _, body in bodies])
        peer.parts.append(Bodies(pull.group, pull.incarnation, pull.index, pull.after, to, bodies))

    def pull_state(self, peer: Peer, pull: PullState) -> None:
        """Send a chunk of the checkpoint, or say which one there is."""
        shard = self._pulled(peer, pull)
        if shard is None:
            return
        mark, data = shard.storage.checkpoint, b""
        if mark is None:
            empty = State(pull.group, pull.incarnation, 0, 0, Membership(), 0, pull.number, b"")
            peer.parts.append(empty)
            return
        if mark.index == pull.index and 0 <= pull.number < mark.chunks:
            data = shard.storage.chunk(pull.number)
            self._cluster.counters.snapshot_bytes_sent += len(data)
        peer.parts.append(
            State(
                pull.group,
                pull.incarnation,
                mark.index,
                mark.term,
                mark.membership,
                mark.chunks,
                pull.number,
                data,
            )
        )

    def _pulled(self, peer: Peer, pull: PullBodies | PullState) -> Shard | None:
        """The shard that this pull is of, if this node may answer for it.

        A leader need not be in service: it may be this very replica that its first entry waits
        for, since the other one that would commit it is dead.
        """
        shard = self._cluster.shards.get(pull.group)
        if shard is None or shard.raft.role is not Role.LEADER:
            return None
        if pull.incarnation != shard.storage.incarnation:
            self._cluster.counters.other_incarnation += 1
            return None
        now_ms = self._cluster.now_ms
        offer = self._offers.get((shard.number, peer.raft_id))
        if offer is not None and shard.raft.snapshot_progress(peer.raft_id):
            offer.pulled_ms, offer.begun = now_ms, True
        shard.pulled_ms = now_ms
        return shard

    def _bodies(self, shard: Shard, after: int, to: int) -> tuple[int, list[tuple[int, bytes]]]:
        """(up to which id, the bodies alive above `after`), not past `to`."""
        bodies: list[tuple[int, bytes]] = []
        size = 0
        for _ in range(STRETCHES_MAX):
            stretch = self._stretch(shard, after, to)
            ids = stretch.ids
            assert ids is not None
            for id in ids[bisect_right(ids, after) :]:
                data = self._body(shard, id)
                if data is None:
                    continue
                if bodies and size + len(data) > self._part_bytes:
                    return after, bodies
                bodies.append((id, data))
                size += len(data)
                after = id
            after = stretch.to
            if after == to:
                break
        return after, bodies

    def _body(self, shard: Shard, id: int) -> bytes | None:
        """A body; None for a message that died since it was looked up.

        Or it died before this node was given its own snapshot, by an entry that it has not
        applied yet; that is over when it is in service.
        """
        data = shard.encoded(id)
        if data is None:
            alive = shard.in_service and shard.machine.ids_between(id, id)
            assert not alive, f"message {id} has lost its body"
            return None
        return bytes(data)

    def _stretch(self, shard: Shard, after: int, to: int) -> Stretch:
        """The one that begins at or before `after`; looked up anew at its end."""
        stretch = self._stretches.setdefault(shard.number, Stretch())
        if stretch.ids is not None and stretch.after <= after < stretch.to <= to:
            return stretch
        machine, low, shrunk = shard.machine, after + 1, False
        while True:
            high = min(to, last_id(index_of(low) + stretch.entries - 1))
            count = machine.count_between(low, high)
            if count > IDS_MAX and stretch.entries > 1:
                stretch.entries //= 2
                shrunk = True
            elif count < IDS_MAX // 8 and high < to and not shrunk:
                stretch.entries *= 4
            else:
                break
        stretch.after, stretch.to, stretch.ids = after, high, machine.ids_between(low, high)
        return stretch
