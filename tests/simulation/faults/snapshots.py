"""What makes snapshots happen, and what happens to them: long absences, and deaths on the way.

With small limits of what a log keeps (`setting.py`), whoever was away needs a snapshot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_node, between

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

LOOK_MS = 20.0


@CLUSTER.kind(12_000, node=a_node, down_ms=between(3_000, 12_000))
def long_absence(scene: Scenario, node: str, down_ms: float) -> bool:
    """A node is away for so long that the others' logs begin behind its end."""
    return scene.nodes[node].crash_for(down_ms)


@CLUSTER.kind(5_000, down_ms=between(10, 3_000), later_ms=between(0, 500))
def crash_receiver(scene: Scenario, down_ms: float, later_ms: float) -> bool:
    """The next node to which a snapshot comes dies soon; what is on disk of it stays."""

    def victim() -> str:
        return next((name for name, givers in _transfers(scene) if givers), "")

    _watch(scene, "crash_receiver", victim, down_ms, later_ms)
    return False


@CLUSTER.kind(5_000, down_ms=between(10, 3_000), later_ms=between(0, 500))
def crash_giver(scene: Scenario, down_ms: float, later_ms: float) -> bool:
    """The next leader that gives a snapshot dies soon: another one offers its own."""

    def victim() -> str:
        return next((givers[0] for _, givers in _transfers(scene) if givers), "")

    _watch(scene, "crash_giver", victim, down_ms, later_ms)
    return False


@CLUSTER.kind(5_000, node=a_node, down_ms=between(10, 1_000))
def crash_at_install(scene: Scenario, node: str, down_ms: float) -> bool:
    """The next installation on this node meets its death: all of it is on disk, or nothing."""
    scene.nodes[node].dies_installing_ms = down_ms
    return False  # counted where it happens


def _transfers(scene: Scenario) -> Iterator[tuple[str, list[str]]]:
    """Each node that runs, and the nodes that snapshots come to it from."""
    for name, node in scene.nodes.items():
        if node.engine is not None:
            shards = node.engine.shards.values()
            yield name, [shard.receiving for shard in shards if shard.receiving]


def _watch(
    scene: Scenario, kind: str, victim: Callable[[], str], down_ms: float, later_ms: float
) -> None:
    """Look every now and then until there is somebody to crash, or peace."""
    if scene.peace:
        return
    if name := victim():
        scene.counts[kind] += 1
        scene.world.after(later_ms, lambda: scene.while_chaos(scene.nodes[name].crash_for, down_ms))
    else:
        scene.world.after(LOOK_MS, lambda: _watch(scene, kind, victim, down_ms, later_ms))
