"""The levels of the simulation under their names."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from tests.simulation import absences, scenario
from tests.simulation.raft import scenario as raft
from tests.simulation.schedule import Fault

Tell = Callable[[str], None]


class Outcome(Protocol):
    """What is said of every run."""

    seed: int
    simulated_ms: float
    confirmed: int
    faults: dict[str, int]
    like: str  #: sizes and speeds: what the speed of the simulation depends on


class Run(Protocol):
    """One seed to its end. `Violation` when something did not hold."""

    def __call__(
        self,
        seed: int,
        chaos_ms: float = ...,
        faults: list[Fault] | None = None,
        tell: Tell | None = None,
    ) -> Outcome: ...


class Level(NamedTuple):
    """A level: how to run a seed, and the faults that it draws when none are given."""

    run: Run
    draw: Callable[[int, float], list[Fault]]
    chaos_ms: float


LEVELS: dict[str, Level] = {
    "raft": Level(raft.run, raft.draw, raft.CHAOS_MS),
    "cluster": Level(scenario.run, scenario.draw, scenario.CHAOS_MS),
    "absences": Level(absences.run, absences.draw, absences.CHAOS_MS),
}
