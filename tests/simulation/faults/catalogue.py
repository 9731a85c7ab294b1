"""Where the kinds of faults of the whole cluster are registered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.simulation.schedule import Catalogue

if TYPE_CHECKING:
    from tests.simulation.scenario import Scenario

CLUSTER: Catalogue[Scenario] = Catalogue()
