"""The network: loss, latency, partitions of every shape, clogs, connections made anew.

A frame is never doubled: a link is a TCP connection, and ZeroMQ sends nothing again on a new
one. Frames overtake each other only where one connection follows another.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation import network
from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_node, between, one_of, some_nodes, two_nodes

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario


@CLUSTER.kind(6_000, share=one_of(0.02, 0.1, 0.3), for_ms=between(500, 8_000))
def loss(scene: Scenario, share: float, for_ms: float) -> None:
    """Frames between nodes are lost, links of clients break."""
    scene.network.lose(share, for_ms)


@CLUSTER.kind(6_000, low_ms=between(0.1, 20), factor=between(1, 10), for_ms=between(500, 8_000))
def latency(scene: Scenario, low_ms: float, factor: float, for_ms: float) -> None:
    """Everything is late."""
    scene.network.slow(low_ms, low_ms * factor, for_ms)


@CLUSTER.kind(8_000, side=some_nodes, for_ms=between(100, 6_000))
def partition(scene: Scenario, side: list[str], for_ms: float) -> None:
    """Two sides hear nothing of each other."""
    others = [name for name in scene.nodes if name not in side]
    scene.network.block(network.between(side, others), for_ms)


@CLUSTER.kind(8_000, pair=two_nodes, for_ms=between(100, 6_000))
def one_way(scene: Scenario, pair: list[str], for_ms: float) -> None:
    """One node does not hear another, which hears it."""
    scene.network.block([(pair[0], pair[1])], for_ms)


@CLUSTER.kind(10_000, node=a_node, for_ms=between(100, 6_000))
def deaf(scene: Scenario, node: str, for_ms: float) -> None:
    """A node is heard and hears nobody."""
    scene.network.block([(name, node) for name in scene.nodes if name != node], for_ms)


@CLUSTER.kind(10_000, node=a_node, side=some_nodes, for_ms=between(100, 6_000))
def bridge(scene: Scenario, node: str, side: list[str], for_ms: float) -> None:
    """Two sides that do not hear each other, and one node that is heard by all."""
    left = [name for name in side if name != node]
    right = [name for name in scene.nodes if name != node and name not in side]
    scene.network.block(network.between(left, right), for_ms)


@CLUSTER.kind(5_000, pair=two_nodes, for_ms=between(50, 5_000))
def clog(scene: Scenario, pair: list[str], for_ms: float) -> None:
    """One direction stands still; everything comes at once when it is over."""
    scene.network.clog((pair[0], pair[1]), for_ms)


@CLUSTER.kind(5_000, pair=two_nodes)
def reconnect(scene: Scenario, pair: list[str]) -> None:
    """A connection breaks and is made anew; both processes live, and are told it was reset."""
    one, other = (scene.nodes[name] for name in pair)
    scene.network.reset(one.name, other.name)
    one.take(lambda engine: engine.peer_reset(other.name))
    other.take(lambda engine: engine.peer_reset(one.name))
