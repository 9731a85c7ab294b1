"""Snapshots that this node receives: pulled from leaders, written in parts, stepped when whole.

One pull is under way per group, of `GROUPS_AT_ONCE` groups, shard 0 before the others; a part
is written with the turn in which it came. Raft hears of a snapshot only when all that it
stands for is on the disk. Until then this replica follows as ever, and lags.
"""

from __future__ import annotations

from msgspec.structs import replace

from broker.cluster import Cluster
from broker.machines.machine import FORMAT, format_of
from broker.peer_protocol import Bodies, State
from broker.peers import Peer
from broker.shard import Shard
from broker.snapshots.allowance import Allowance
from broker.snapshots.transfer import Transfer, progress_over
from raftlog.messages import SnapshotRequest
from raftlog.write import GroupWrite

GROUPS_AT_ONCE = 2
ASK_AGAIN_MS = 1000
SILENCE_MS = 30_000
"""Without a part or an offer for so long a transfer is given up; what is on disk stays."""


class Receiver:
    """All transfers to this node, at most one for each group."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._transfers: dict[int, Transfer] = {}
        self._allowance = Allowance(cluster.config.snapshot_bytes_per_s, cluster.now_ms)

    # --- what comes in --------------------------------------------------------------------

    def offered(self, peer: Peer, shard: Shard, request: SnapshotRequest) -> None:
        """A leader's request: stepped at once when nothing has to be fetched for it."""
        snapshot, raft = request.snapshot, shard.raft
        if request.term < raft.term or snapshot.index == 0 or not raft.lacks(snapshot):
            raft.step(request)
            return
        cluster, number = self._cluster, shard.number
        transfer = self._transfer(shard)
        if transfer is None:
            transfer = Transfer.begin(number, peer.node, request, shard.storage, cluster.now_ms)
            self._transfers[number] = transfer
            cluster.log(
                f"node {cluster.node} receives a snapshot of shard {number} at "
                f"{snapshot.index} from node {peer.node}"
            )
        elif not transfer.stepped:
            transfer.offered(peer.node, request, cluster.now_ms)
        shard.receiving = transfer.giver
        self._pull()

    def bodies(self, peer: Peer, record: Bodies) -> None:
        """An answer to `PullBodies`."""
        self._arrived(peer, record, sum([len(body) for _, body in record.bodies]))

    def state(self, peer: Peer, record: State) -> None:
        """An answer to `PullState`."""
        self._arrived(peer, record, len(record.data))

    def _arrived(self, peer: Peer, record: Bodies | State, size: int) -> None:
        transfer = self._transfers.get(record.group)
        if transfer is None or transfer.giver != peer.node:
            return
        if isinstance(record, State) and not record.number and format_of(record.data) > FORMAT:
            format = format_of(record.data)
            shard = self._cluster.shards[record.group]
            self._end(shard, f"its state has format {format}, and this version knows {FORMAT}")
            return
        if transfer.arrived(record, self._cluster.now_ms):
            self._allowance.take(size)
            self._cluster.counters.snapshot_bytes_received += size

    def tick(self) -> None:
        """Time has passed: ask, ask again, and give up what nobody needs or gives any more."""
        now_ms = self._cluster.now_ms
        self._allowance.fill(now_ms)
        for number, transfer in list(self._transfers.items()):
            shard = self._cluster.shards.get(number)
            if shard is None or self._transfer(shard) is None:
                self._transfers.pop(number, None)
            elif transfer.stepped:
                continue
            elif not shard.raft.lacks(transfer.snapshot):
                self._end(shard, "its log has caught up")
            elif now_ms - transfer.heard_ms > SILENCE_MS:
                self._end(shard, f"nothing comes from node {transfer.giver}")
            elif transfer.asked_ms is not None and now_ms - transfer.asked_ms >= ASK_AGAIN_MS:
                transfer.asked_ms = None
        self._pull()

    def _transfer(self, shard: Shard) -> Transfer | None:
        """The shard's; not that of an earlier replica here, whose data was dropped."""
        transfer = self._transfers.get(shard.number)
        if transfer is not None and transfer.storage is not shard.storage:
            del self._transfers[shard.number]
            return None
        return transfer

    def _end(self, shard: Shard, why: str) -> None:
        cluster = self._cluster
        del self._transfers[shard.number]
        shard.receiving = ""
        cluster.log(f"node {cluster.node} gives up a snapshot of shard {shard.number}: {why}")

    def _pull(self) -> None:
        """Ask for what comes next, of as many groups as may be."""
        cluster, active = self._cluster, 0
        for number in sorted(self._transfers):
            transfer = self._transfers[number]
            if transfer.whole:
                continue
            peer = cluster.peers.get(transfer.giver)
            if peer is None or not cluster.is_heard(peer):
                continue
            active += 1
            if active > GROUPS_AT_ONCE or not self._allowance.left:
                return
            if transfer.asked_ms is None and transfer.part is None:
                transfer.asked_ms = cluster.now_ms
                peer.records.append(transfer.pull())

    # --- a turn ---------------------------------------------------------------------------

    def has_work(self) -> bool:
        """Whether something waits for a write."""
        return any(transfer.part is not None for transfer in self._transfers.values())

    def write(self, shard: Shard, *, installs: bool) -> GroupWrite | None:
        """What belongs to a group's write of this turn.

        installs: the group's Ready has the snapshot, so this transfer ends with the write.
        """
        transfer = self._transfer(shard)
        if transfer is None:
            return None
        if installs:
            return GroupWrite(shard.number, chunks=(progress_over(),))
        if transfer.part is None:
            return None
        if transfer.stepped or not shard.raft.lacks(transfer.snapshot):
            transfer.part = None
            return None
        return transfer.write()

    def pull(self) -> None:
        """Parts went to the disk: what comes next may come meanwhile."""
        if self._transfers:
            self._pull()

    def written(self) -> None:
        """All writes are on disk: step what is whole, under the newest request."""
        for number, transfer in list(self._transfers.items()):
            shard = self._cluster.shards.get(number)
            if shard is None or transfer.stepped or not transfer.whole or transfer.part is not None:
                continue
            if self._transfer(shard) is None:
                continue
            # A leader of a later term is known: its own request will come, if it needs to.
            if transfer.request.term < shard.raft.term:
                continue
            transfer.stepped = shard.raft.lacks(transfer.snapshot)
            shard.raft.step(replace(transfer.request, snapshot=transfer.snapshot))

    def installed(self, shard: Shard) -> None:
        """The group's log and machine begin with the snapshot now."""
        cluster = self._cluster
        shard.receiving = ""
        cluster.counters.snapshots_received += 1
        if self._transfers.pop(shard.number, None) is not None:
            cluster.log(
                f"node {cluster.node} has installed a snapshot of shard {shard.number} "
                f"at {shard.raft.commit}"
            )
