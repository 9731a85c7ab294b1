"""Queues and sessions where they live, in line with what shard 0 has of them.

What an entry of shard 0 changes is passed on at once. That may get lost with a leader, so once
in a while what a machine has is compared with the topology and the registry.
"""

from __future__ import annotations

from broker.batch import index_of
from broker.cluster import Cluster
from broker.keeper import Keeper
from broker.machines.commands import QueueCreate, QueueDrop, SessionDown, encode
from broker.machines.topology import QueueRecord
from broker.protocol import VOLATILE_SHARD
from broker.router import Router
from broker.shard import Shard
from broker.unused import Unused
from broker.volatile import VolatileShard


class Queues:
    """Creates and drops queues in the shards that this node leads and in its memory."""

    def __init__(
        self,
        cluster: Cluster,
        router: Router,
        volatile: VolatileShard,
        keeper: Keeper,
        unused: Unused,
    ) -> None:
        self._cluster, self._router, self._volatile = cluster, router, volatile
        self._keeper, self._unused = keeper, unused

    def create(self, record: QueueRecord) -> None:
        """Make a queue known where it lives, before anything that is routed to it."""
        create = QueueCreate(record.id, record.flags, record.arguments)
        if record.shard == VOLATILE_SHARD:
            if self._router.place(record) == self._cluster.node:
                self._keeper.keep(create)
        elif (shard := self._cluster.shards.get(record.shard)) is not None and shard.in_service:
            shard.inbox.add_first(encode(create))

    def gone(self, queue: int, number: int) -> None:
        """A queue has ended that lived on this shard."""
        self._unused.gone(queue)
        drop = QueueDrop(0, 0, 0, queue)
        if number == VOLATILE_SHARD:
            if self._volatile.machine.knows(queue):
                self._keeper.keep(drop)
        elif (shard := self._cluster.shards.get(number)) is not None and shard.in_service:
            shard.inbox.add_first(encode(drop))

    def session_gone(self, session: int) -> None:
        """Tell the shards led here that a session has ended."""
        down = encode(SessionDown(session, self._cluster.shard_zero.applied))
        for shard in self._cluster.shards.values():
            if shard.in_service and session in shard.machine.sessions:
                shard.inbox.add_first(down)

    def reconcile(self, shard: Shard) -> None:
        """Bring a led shard in line with the topology and the registry.

        An id of shard 0 that is not known there has ended, unless it is newer than this
        node's copy.
        """
        machine, newest = shard.machine, self._cluster.shard_zero.applied
        topology, registry = self._cluster.topology, self._cluster.registry
        for session in list(machine.sessions):
            if index_of(session) <= newest and registry.get(session) is None:
                shard.inbox.add_first(encode(SessionDown(session, newest)))
        for queue in machine.queues():
            if index_of(queue) <= newest and topology.queue_by_id(queue) is None:
                shard.inbox.add_first(encode(QueueDrop(0, 0, 0, queue)))
        for record in topology.queues():
            if record.shard == shard.number and not machine.knows(record.id):
                self.create(record)
        self._unused.found(machine.unused_queues())

    def look_again(self) -> None:
        """The topology is another: make all queues known that it places here."""
        for record in self._cluster.topology.queues():
            if record.shard == VOLATILE_SHARD and not self._volatile.machine.knows(record.id):
                self.create(record)
        self.reconcile_volatile()
        for shard in self._cluster.shards.values():
            if shard.in_service:
                self.reconcile(shard)

    def reconcile_volatile(self) -> None:
        """The same for the memory-only queues, which are kept for sessions at home here."""
        machine, topology = self._volatile.machine, self._cluster.topology
        for queue in list(machine.queues()):
            record = topology.queue_by_id(queue)
            if record is None or self._router.place(record) != self._cluster.node:
                self._keeper.keep(QueueDrop(0, 0, 0, queue))
        for session in list(machine.sessions):
            if session and self._cluster.registry.get(session) is None:
                self._keeper.keep(SessionDown(session))
        self._unused.found(machine.unused_queues())
