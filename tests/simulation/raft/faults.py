"""The faults of one group: one small function each, registered as those of the whole cluster are.

A fault does something to the `Scenario` and returns False when there was nothing to do it to.
What lasts, ends by itself.
"""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from raftlog.errors import ChangeInvalid
from raftlog.membership import Change, Step, StepKind, Transition, is_joint, next_membership
from raftlog.ready import Role
from tests.simulation.network import between as across
from tests.simulation.schedule import (
    Catalogue,
    Place,
    a_node,
    between,
    nodes_in_order,
    one_of,
    some_nodes,
    two_nodes,
)

if TYPE_CHECKING:
    from tests.simulation.raft.scenario import Scenario

RAFT: Catalogue[Scenario] = Catalogue()
NODES_MAX = 6
"""Ids of nodes that may ever be members."""


# --- the network --------------------------------------------------------------------------


@RAFT.kind(8_000, share=one_of(0.02, 0.1, 0.3), for_ms=between(500, 10_000))
def loss(scene: Scenario, share: float, for_ms: float) -> None:
    """Messages are lost."""
    scene.links.lose(share, for_ms)


@RAFT.kind(8_000, share=one_of(0.05, 0.3), for_ms=between(500, 10_000))
def duplication(scene: Scenario, share: float, for_ms: float) -> None:
    """Messages come twice."""
    scene.links.double(share, for_ms)


@RAFT.kind(8_000, high_ms=one_of(20.0, 200.0, 1_500.0), for_ms=between(500, 8_000))
def disorder(scene: Scenario, high_ms: float, for_ms: float) -> None:
    """Messages are late, each as it likes: they overtake each other."""
    scene.links.delay(0.2, high_ms, for_ms)


@RAFT.kind(10_000, side=some_nodes, for_ms=between(100, 10_000))
def partition(scene: Scenario, side: list[int], for_ms: float) -> None:
    """Two sides hear nothing of each other."""
    others = [id for id in scene.hosts if id not in side]
    scene.links.block(across(side, others), for_ms)


@RAFT.kind(10_000, pair=two_nodes, for_ms=between(100, 10_000))
def one_way(scene: Scenario, pair: list[int], for_ms: float) -> None:
    """One node does not hear another, which hears it."""
    scene.links.block([(pair[0], pair[1])], for_ms)


@RAFT.kind(12_000, node=a_node, for_ms=between(100, 10_000))
def deaf(scene: Scenario, node: int, for_ms: float) -> None:
    """A node is heard and hears nobody."""
    scene.links.block([(id, node) for id in scene.hosts if id != node], for_ms)


@RAFT.kind(12_000, node=a_node, side=some_nodes, for_ms=between(100, 10_000))
def bridge(scene: Scenario, node: int, side: list[int], for_ms: float) -> None:
    """Two sides that do not hear each other, and one node that is heard by all."""
    left = [id for id in side if id != node]
    right = [id for id in scene.hosts if id != node and id not in side]
    scene.links.block(across(left, right), for_ms)


@RAFT.kind(8_000, pair=two_nodes, for_ms=between(50, 5_000))
def clog(scene: Scenario, pair: list[int], for_ms: float) -> None:
    """One direction stands still; everything comes at once when it is over."""
    scene.links.clog((pair[0], pair[1]), for_ms)


# --- processes and disks ------------------------------------------------------------------


@RAFT.kind(8_000, node=a_node, down_ms=between(5, 8_000), hint=one_of(True, False))
def crash(scene: Scenario, node: int, down_ms: float, hint: bool) -> bool:
    """kill -9, with or without its peers noticing."""
    return scene.crash(node, down_ms, hint)


@RAFT.kind(30_000, down_ms=between(5, 5_000))
def blackout(scene: Scenario, down_ms: float) -> bool:
    """All die at once, and come back one by one."""
    ids = sorted(scene.hosts)
    downs = [scene.crash(id, down_ms * at / len(ids), False) for at, id in enumerate(ids)]
    return any(downs)


@RAFT.kind(20_000, order=nodes_in_order, down_ms=between(20, 1_000), gap_ms=between(0, 3_000))
def rolling_restart(scene: Scenario, order: list[int], down_ms: float, gap_ms: float) -> None:
    """Each node in turn."""
    for place, id in enumerate(order):
        scene.later(place * (down_ms + gap_ms), lambda node=id: scene.crash(node, down_ms, True))


@RAFT.kind(10_000, node=a_node, for_ms=between(100, 12_000))
def pause(scene: Scenario, node: int, for_ms: float) -> bool:
    """SIGSTOP."""
    host = scene.hosts[node]
    if host.node is None or host.paused:
        return False
    host.pause()
    scene.world.after(for_ms, host.resume)
    return True


@RAFT.kind(10_000, node=a_node, write_ms=one_of(20.0, 100.0, 800.0), for_ms=between(500, 10_000))
def slow_disk(scene: Scenario, node: int, write_ms: float, for_ms: float) -> None:
    """Each write takes up to so long; messages are taken meanwhile."""
    scene.hosts[node].slow_disk(write_ms, for_ms)


@RAFT.kind(15_000, node=a_node, for_ms=between(1_000, 10_000))
def stalled_disk(scene: Scenario, node: int, for_ms: float) -> None:
    """No write ends for a while."""
    scene.hosts[node].stall_disk(for_ms)


@RAFT.kind(12_000, node=a_node, apply_ms=one_of(50.0, 500.0), for_ms=between(500, 10_000))
def slow_machine(scene: Scenario, node: int, apply_ms: float, for_ms: float) -> None:
    """Applying takes its time; messages are taken meanwhile."""
    scene.hosts[node].slow_machine(apply_ms, for_ms)


# --- what operators and drivers do --------------------------------------------------------


@RAFT.kind(4_000, node=a_node)
def transfer(scene: Scenario, node: int) -> bool:
    """All who think that they lead hand over to this node."""
    given = [host.attempt(lambda raw: raw.transfer_leader(node)) for host in scene.leaders()]
    return any(given)


@RAFT.kind(10_000, node=a_node)
def campaign(scene: Scenario, node: int) -> bool:
    """A node stands for election without reason."""
    return scene.hosts[node].attempt(lambda raw: raw.campaign())


@RAFT.kind(10_000, pair=two_nodes)
def false_alarm(scene: Scenario, pair: list[int]) -> bool:
    """A node is told that the link to another was reset, which lives."""
    return scene.hosts[pair[0]].attempt(lambda raw: raw.peer_lost(pair[1]))


@RAFT.kind(3_000, node=a_node, careful=one_of(True, True, False))
def checkpoint(scene: Scenario, node: int, careful: bool) -> bool:
    """A checkpoint, and the log is cut as far as followers allow, or in spite of them."""
    return scene.hosts[node].checkpoint(compact=True, careful=careful)


@RAFT.kind(10_000, pair=two_nodes, ok=one_of(True, False))
def snapshot_report(scene: Scenario, pair: list[int], ok: bool) -> bool:
    """A driver says how a snapshot fared, perhaps wrongly."""
    return scene.hosts[pair[0]].attempt(lambda raw: raw.report_snapshot(pair[1], ok))


@RAFT.kind(6_000, count=one_of(10, 50, 200))
def burst(scene: Scenario, count: int) -> bool:
    """Many proposals at once."""
    return sum(scene.propose() for _ in range(count)) > 0


@RAFT.kind(15_000, node=a_node, count=one_of(5, 20), down_ms=between(5, 200))
def read_across_crash(scene: Scenario, node: int, count: int, down_ms: float) -> bool:
    """Reads, a crash while their answers are on their way, and reads again in the next life."""
    host = scene.hosts[node]
    if host.node is None:
        return False
    scene.links.delay(0.2, 1_500.0, 3_000.0)
    for _ in range(count):
        scene.ask(host)
    for place in range(40):
        scene.later(down_ms + 50.0 * place, lambda: scene.ask(host))
        scene.later(down_ms + 50.0 * place, scene.propose)
    scene.later(20.0, lambda: scene.crash(node, down_ms, False))
    return True


def _steps(random: Random, place: Place) -> list[list[Any]]:
    nodes = random.sample(range(1, NODES_MAX + 1), random.choice([1, 1, 2, 3]))
    return [[random.choice(list(StepKind)).name, node] for node in nodes]


@RAFT.kind(5_000, steps=_steps, transition=one_of(*[each.name for each in Transition]))
def change(scene: Scenario, steps: list[list[Any]], transition: str) -> bool:
    """A change of members, simple or joint; an explicit joint phase is left by the next one."""
    wanted = Change(
        tuple(Step(StepKind[kind], node) for kind, node in steps), Transition[transition]
    )
    proposed = False
    for host in scene.leaders():
        node = host.node
        if node is None or node.role is not Role.LEADER:
            continue
        offer = Change() if is_joint(node.membership) else wanted
        try:
            next_membership(node.membership, offer)
        except ChangeInvalid:
            continue
        for step in offer.steps:
            scene.host(step.node)
        proposed |= host.attempt(lambda raw, offer=offer: raw.propose_conf_change(offer))
    return proposed
