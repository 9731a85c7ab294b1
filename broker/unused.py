"""Auto-delete queues whose last consumer has gone, until shard 0 has removed them."""

from __future__ import annotations

from collections.abc import Iterable

from broker.cluster import Cluster
from broker.machines.commands import QueueRemove, encode
from broker.machines.machine import Machine
from broker.machines.topology import QueueRecord
from broker.protocol import VOLATILE_SHARD
from broker.router import TOPOLOGY, Router
from broker.volatile import VolatileShard


class Unused:
    """Queues, of shards that this node leads and of its own, that seem to be unused."""

    def __init__(self, cluster: Cluster, router: Router, volatile: VolatileShard) -> None:
        self._cluster, self._router, self._volatile = cluster, router, volatile
        self._queues: set[int] = set()

    def found(self, queues: Iterable[int]) -> None:
        """Their turn comes with the next `remove_all`."""
        self._queues.update(queues)

    def gone(self, queue: int) -> None:
        """The queue is removed."""
        self._queues.discard(queue)

    def remove_all(self) -> None:
        """Ask once more for all that are still there."""
        for queue in list(self._queues):
            self.remove(queue)

    def remove(self, queue: int) -> None:
        """Have shard 0 delete the queue, unless somebody uses it after all."""
        record = self._cluster.topology.queue_by_id(queue)
        machine = self._machine_of(record) if record is not None else None
        if machine is None or machine.counts(queue)[2]:
            self._queues.discard(queue)
        else:
            self._queues.add(queue)
            self._cluster.submit(TOPOLOGY, encode(QueueRemove(0, 0, 0, queue)))

    def _machine_of(self, record: QueueRecord) -> Machine | None:
        """Of a queue for which this node speaks."""
        if record.shard == VOLATILE_SHARD:
            # When its session moved on, what has no consumers any more is our copy alone.
            here = self._router.place(record) == self._cluster.node
            return self._volatile.machine if here else None
        shard = self._cluster.shards.get(record.shard)
        return shard.machine if shard is not None and shard.in_service else None
