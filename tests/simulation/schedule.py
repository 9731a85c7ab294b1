"""Faults drawn up front from a seed: a list of (time, kind, arguments).

    Catalogue --kind(...)--> kinds --draw(seed)--> Schedule --at each time--> strike(scene, ...)

Each seed draws which kinds are on at all (swarm testing), how often they strike, and with what
arguments, each kind from a stream of its own: a new kind leaves the schedules of the others as
they are. A schedule is plain JSON, so it can be kept, shortened and replayed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Generic, NamedTuple, TypeVar

Scene = TypeVar("Scene")
ON_SHARE = 0.5
"""Of the kinds, how many are on in a seed, about."""


@dataclass(frozen=True)
class Place:
    """What arguments are drawn of."""

    nodes: list[str]
    clients: list[str]
    shards: int


Draw = Callable[[Random, Place], Any]
"""One argument of a fault, plain JSON."""


class Fault(NamedTuple):
    """Something bad at a moment, in virtual ms."""

    at_ms: float
    kind: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Kind(Generic[Scene]):
    """A kind of fault. `strike` returns False when there was nothing to do it to."""

    every_ms: float  #: how often it strikes where it is on, on average, give or take a factor
    draws: dict[str, Draw]
    strike: Callable[..., bool | None]


@dataclass
class Catalogue(Generic[Scene]):
    """All kinds of faults of one level of the simulation."""

    kinds: dict[str, Kind[Scene]] = field(default_factory=dict)

    def kind(
        self, every_ms: float, **draws: Draw
    ) -> Callable[[Callable[..., bool | None]], Callable[..., bool | None]]:
        """Decorates `name(scene, **arguments)`, which makes the fault of that name happen."""

        def register(strike: Callable[..., bool | None]) -> Callable[..., bool | None]:
            name = strike.__name__
            assert name not in self.kinds, f"two kinds of faults are called {name}"
            self.kinds[name] = Kind(every_ms, draws, strike)
            return strike

        return register

    def draw(
        self,
        seed: int,
        place: Place,
        start_ms: float,
        end_ms: float,
        always: Collection[str] = (),
    ) -> list[Fault]:
        """The faults of a seed, in order. always: kinds that are on whatever the seed says."""
        faults = []
        for name in sorted(self.kinds):
            kind, random = self.kinds[name], Random(f"{seed}/fault/{name}")
            if random.random() >= ON_SHARE and name not in always:
                continue
            mean_ms = kind.every_ms * random.choice([0.5, 1.0, 2.0])
            at_ms = start_ms + random.expovariate(1 / mean_ms)
            while at_ms < end_ms:
                arguments = {key: draw(random, place) for key, draw in kind.draws.items()}
                faults.append(Fault(round(at_ms, 3), name, arguments))
                at_ms += random.expovariate(1 / mean_ms)
        return sorted(faults, key=lambda fault: (fault.at_ms, fault.kind))

    def strike(self, scene: Scene, fault: Fault) -> bool:
        """Make it happen; whether anything did."""
        return self.kinds[fault.kind].strike(scene, **fault.arguments) is not False


# --- arguments ----------------------------------------------------------------------------


def between(low: float, high: float) -> Draw:
    """A number, rounded so that people can read it."""
    return lambda random, place: round(random.uniform(low, high), 2)


def one_of(*values: Any) -> Draw:
    """One of these."""
    return lambda random, place: random.choice(values)


def a_node(random: Random, place: Place) -> str:
    """A node's name."""
    return random.choice(place.nodes)


def two_nodes(random: Random, place: Place) -> list[str]:
    """Two nodes' names."""
    return random.sample(place.nodes, 2)


def nodes_in_order(random: Random, place: Place) -> list[str]:
    """All nodes' names, shuffled."""
    return random.sample(place.nodes, len(place.nodes))


def some_nodes(random: Random, place: Place) -> list[str]:
    """Some nodes' names, not all."""
    return sorted(random.sample(place.nodes, random.randrange(1, len(place.nodes))))


def a_client(random: Random, place: Place) -> str:
    """A client's name."""
    return random.choice(place.clients)


def a_shard(random: Random, place: Place) -> int:
    """A shard's number."""
    return random.randrange(place.shards)


# --- files --------------------------------------------------------------------------------


class Script(NamedTuple):
    """A scenario as a file has it: what a seed means, with its faults written out."""

    level: str
    seed: int
    chaos_ms: float
    faults: list[Fault]

    def save(self, path: Path) -> None:
        """One fault a line."""
        head = {"level": self.level, "seed": self.seed, "chaos_ms": self.chaos_ms}
        lines = ",\n".join("  " + json.dumps(list(fault)) for fault in self.faults)
        path.write_text(json.dumps(head)[:-1] + f', "faults": [\n{lines}\n]}}\n')


def load(path: Path) -> Script:
    """What `Script.save` wrote."""
    data = json.loads(path.read_text())
    faults = [Fault(*fault) for fault in data.pop("faults")]
    return Script(**data, faults=faults)
