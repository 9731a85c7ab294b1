"""What stands around a process: its disk and its clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_node, between, one_of

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario


@CLUSTER.kind(8_000, node=a_node, write_ms=one_of(10.0, 50.0, 400.0), for_ms=between(500, 8_000))
def slow_disk(scene: Scenario, node: str, write_ms: float, for_ms: float) -> None:
    """Each write takes up to so long."""
    scene.nodes[node].slow_disk(write_ms, for_ms)


@CLUSTER.kind(15_000, node=a_node, for_ms=between(1_000, 8_000))
def stalled_disk(scene: Scenario, node: str, for_ms: float) -> None:
    """One write hangs, and with it the node; its clock and its links go on."""
    scene.nodes[node].stall_disk(for_ms)


@CLUSTER.kind(8_000, node=a_node, skew_ms=one_of(-60_000, 0, 60_000))
def clock_jump(scene: Scenario, node: str, skew_ms: int) -> None:
    """Somebody sets the time of day."""
    scene.nodes[node].clock_skew_ms = skew_ms
