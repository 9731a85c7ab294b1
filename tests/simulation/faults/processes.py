"""Nodes die, stand still, and are restarted one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_node, between, nodes_in_order

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario


@CLUSTER.kind(6_000, node=a_node, down_ms=between(10, 5_000))
def crash(scene: Scenario, node: str, down_ms: float) -> bool:
    """kill -9: what was not written is lost; a write under way is there as a whole or not."""
    return scene.nodes[node].crash_for(down_ms)


@CLUSTER.kind(8_000, node=a_node, for_ms=between(100, 8_000))
def pause(scene: Scenario, node: str, for_ms: float) -> bool:
    """SIGSTOP: nothing moves, what comes in waits, and nobody is told."""
    target = scene.nodes[node]
    if target.engine is None or target.paused:
        return False
    target.pause()
    scene.world.after(for_ms, target.resume)
    return True


@CLUSTER.kind(20_000, down_ms=between(10, 4_000))
def blackout(scene: Scenario, down_ms: float) -> bool:
    """All nodes lose power at once, and come back one by one."""
    nodes = list(scene.nodes.values())
    crashed = [node.crash_for(down_ms * (i + 1) / len(nodes)) for i, node in enumerate(nodes)]
    return any(crashed)


@CLUSTER.kind(15_000, order=nodes_in_order, down_ms=between(50, 800), gap_ms=between(0, 2_000))
def rolling_restart(scene: Scenario, order: list[str], down_ms: float, gap_ms: float) -> None:
    """Each node in turn is killed and started, as an upgrade does it."""
    for place, name in enumerate(order):
        node = scene.nodes[name]
        scene.world.after(
            place * (down_ms + gap_ms), lambda node=node: scene.while_chaos(node.crash_for, down_ms)
        )
