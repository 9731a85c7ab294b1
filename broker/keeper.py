"""The memory-only queues kept here: a command is applied, and carried out, when it comes."""

from __future__ import annotations

from broker.cluster import Cluster
from broker.courier import Courier
from broker.machines.commands import AnyCommand, QueueDrop, SessionDown
from broker.protocol import VOLATILE_SHARD
from broker.shard import Applied
from broker.volatile import VolatileShard


class Keeper:
    """Gives commands to the volatile shard, and its effects to the courier."""

    def __init__(self, cluster: Cluster, volatile: VolatileShard, courier: Courier) -> None:
        self._cluster, self._volatile, self._courier = cluster, volatile, courier

    def keep(self, command: AnyCommand) -> None:
        """A command for this node's memory-only queues."""
        cluster, volatile = self._cluster, self._volatile
        effects = volatile.apply(cluster.unix_ms, command)
        cluster.counters.overflowed = volatile.dropped
        applied = Applied(volatile.index, [command], effects, True)
        self._courier.carry_out(VOLATILE_SHARD, cluster.boot, applied, volatile.message)

    def drop_session(self, session: int) -> None:
        """What a session that is not at home here any more had in memory."""
        self.keep(SessionDown(session))
        for record in self._cluster.topology.owned_by(session):
            if record.shard == VOLATILE_SHARD:
                self.keep(QueueDrop(0, 0, 0, record.id))
