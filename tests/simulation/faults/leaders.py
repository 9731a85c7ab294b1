"""Leadership moves although nothing is broken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.config import raft_id
from raftlog.ready import Role
from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_node, a_shard

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario


@CLUSTER.kind(3_000, shard=a_shard, node=a_node)
def transfer(scene: Scenario, shard: int, node: str) -> bool:
    """A shard's leader hands over to another node."""
    for each in scene.nodes.values():
        engine = each.engine
        if engine is None or each.paused or shard not in engine.shards:
            continue
        raft = engine.shards[shard].raft
        if raft.role is Role.LEADER and each.name != node:
            each.take(lambda engine: engine.shards[shard].raft.transfer_leader(raft_id(node)))
            return True
    return False
