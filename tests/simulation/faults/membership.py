"""Nodes join, leave, lose their disks and are replaced, while everything goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import one_of

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

PLACES = one_of(0, 1, 2, 3, 4)


@CLUSTER.kind(8_000)
def join(scene: Scenario) -> bool:
    """A new node joins, and is made a member when it has caught up."""
    return scene.operator.join()


@CLUSTER.kind(8_000, place=PLACES)
def leave(scene: Scenario, place: int) -> bool:
    """A member is to give away what it has, unless the cluster refuses."""
    return scene.operator.leave(place)


@CLUSTER.kind(10_000, place=PLACES)
def replace(scene: Scenario, place: int) -> bool:
    """A member's disk is lost; it comes back empty, is removed, and another one joins."""
    return scene.operator.replace(place)
