"""The machines' limits: shard 0's are the law, and every shard's log follows them.

shard 0, nothing set yet     its leader sets them, once, from its own settings
an operator                  changes shard 0's
another shard                its leader sets what shard 0 has
memory-only queues           follow at once: nobody else keeps them
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.cluster import Cluster
from broker.groups import founding_limits
from broker.machines.commands import SetLimits, encode
from broker.machines.limits import Limits, limits_fault, values_of
from broker.router import TOPOLOGY
from broker.shard import Shard
from broker.volatile import VolatileShard


class Limiter:
    """Proposes limits to the shards that this node leads."""

    def __init__(self, cluster: Cluster, volatile: VolatileShard) -> None:
        self._cluster, self._volatile = cluster, volatile
        self._law = cluster.shard_zero.machine

    @property
    def limits(self) -> Limits:
        """What this node's copy of shard 0 says; the node's settings while that says nothing."""
        return self._law.limits

    def change(self, changes: Mapping[str, int]) -> str:
        """An operator wants other limits: ask shard 0 for them. What is wrong, or ""."""
        if fault := limits_fault(changes):
            return fault
        self._cluster.submit(TOPOLOGY, encode(SetLimits(dict(changes))))
        return ""

    def run(self) -> None:
        """Bring all that this node decides in line with shard 0."""
        for shard in self._cluster.shards.values():
            if shard.in_service:
                self.bring_in_line(shard)
        machine, law = self._volatile.machine, self._law
        if machine.limits_index < law.limits_index:
            self._volatile.apply(self._cluster.unix_ms, self._follow())

    def bring_in_line(self, shard: Shard) -> None:
        """Before anything else that is proposed to a led shard."""
        if shard.number == TOPOLOGY:
            if not self._law.limits_index:
                founding = values_of(founding_limits(self._cluster.config))
                shard.inbox.add_first(encode(SetLimits(founding, founding=True)))
        elif shard.machine.limits_index < self._law.limits_index:
            shard.inbox.add_first(encode(self._follow()))

    def _follow(self) -> SetLimits:
        return SetLimits(values_of(self._law.limits), topology=self._law.limits_index)
