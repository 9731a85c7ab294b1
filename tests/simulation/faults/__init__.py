"""The faults of the whole cluster: one small function each, in modules by what they are done to.

    @CLUSTER.kind(8_000, node=a_node, down_ms=between(10, 5_000))
    def crash(scene: Scenario, node: str, down_ms: float) -> bool: ...

The function's name is the fault's. `every_ms` says how often it strikes where it is on; the
other keywords draw its arguments, plain JSON. It returns False when there was nothing to do it
to, which is then not counted. What it breaks it also mends after a while; `Scenario` mends all
the rest when there is to be peace, in `_make_peace`. A module of faults is imported below.
"""

from tests.simulation.faults import (
    clients,
    leaders,
    links,
    membership,
    processes,
    shells,
    snapshots,
)
from tests.simulation.faults.catalogue import CLUSTER

__all__ = [
    "CLUSTER",
    "clients",
    "leaders",
    "links",
    "membership",
    "processes",
    "shells",
    "snapshots",
]
