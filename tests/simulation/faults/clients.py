"""Clients die, and their links break."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.faults.catalogue import CLUSTER
from tests.simulation.schedule import a_client

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario


@CLUSTER.kind(6_000, client=a_client)
def kill_client(scene: Scenario, client: str) -> None:
    """kill -9; another process takes its place, with a session of its own."""
    scene.clients[client].kill()


@CLUSTER.kind(4_000, client=a_client)
def cut_client(scene: Scenario, client: str) -> None:
    """The link breaks; the session resumes, perhaps at another node."""
    scene.clients[client].unplug()
