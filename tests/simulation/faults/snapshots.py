"""What makes snapshots happen, and what happens to them: long absences, and deaths on the way.

With small limits of what a log keeps (`setting.py`), whoever was away needs a snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_node, between

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario


@CLUSTER.kind(12_000, node=a_node, down_ms=between(3_000, 12_000))
def long_absence(scene: Scenario, node: str, down_ms: float) -> bool:
    """A node is away for so long that the others' logs begin behind its end."""
    return scene.nodes[node].crash_for(down_ms)


@CLUSTER.kind(600, down_ms=between(10, 3_000))
def crash_receiver(scene: Scenario, down_ms: float) -> bool:
    """A node dies while a snapshot comes to it; what is on disk of it stays."""
    for node in scene.nodes.values():
        engine = node.engine
        if engine is not None and any(shard.receiving for shard in engine.shards.values()):
            return node.crash_for(down_ms)
    return False


@CLUSTER.kind(600, down_ms=between(10, 3_000))
def crash_giver(scene: Scenario, down_ms: float) -> bool:
    """A leader dies while it gives a snapshot: another one offers its own."""
    givers = {
        shard.receiving
        for node in scene.nodes.values()
        if node.engine is not None
        for shard in node.engine.shards.values()
    }
    for name in sorted(givers - {""}):
        if scene.nodes[name].engine is not None:
            return scene.nodes[name].crash_for(down_ms)
    return False


@CLUSTER.kind(4_000, node=a_node, down_ms=between(10, 1_000))
def crash_at_install(scene: Scenario, node: str, down_ms: float) -> None:
    """The next installation on this node meets its death: all of it is on disk, or nothing."""
    scene.nodes[node].dies_installing_ms = down_ms
