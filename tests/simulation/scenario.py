"""A cluster, its clients and the faults of one seed; then peace, and the reckoning.

    start -> traffic -> faults as scheduled -> in some seeds peace for a majority (majority.py)
          -> peace: all works, nothing new -> drained?

`run(seed)` is the way in for tests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.simulation.checks import Checker
from tests.simulation.client import History, SimClient
from tests.simulation.faults import CLUSTER
from tests.simulation.majority import Majority
from tests.simulation.network import Network
from tests.simulation.node import SimNode
from tests.simulation.operator import Operator
from tests.simulation.schedule import Fault, Place
from tests.simulation.setting import Setting, draw_setting
from tests.simulation.violation import Violation, noticed
from tests.simulation.world import World

PUBLISHERS, CONSUMERS, BOTH = ("p1", "p2"), ("c1", "c2"), ("b1",)
CHAOS_MS = 20_000.0
WARM_UP_MS = 3_000.0
DRAIN_MS = 60_000.0
LOOK_MS = 100.0
"""Between two looks at what is not looked at after each turn."""


@dataclass(frozen=True)
class Outcome:
    """What a run was like."""

    seed: int
    simulated_ms: float
    events: int
    published: int
    confirmed: int
    delivered: int
    faults: dict[str, int] = field(default_factory=dict)  #: by kind, those that did something
    seen: dict[str, int] = field(default_factory=dict)  #: what came of it, by its name
    like: str = ""  #: sizes and speeds


def run(
    seed: int,
    chaos_ms: float = CHAOS_MS,
    faults: list[Fault] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Run one seed. Raise `Violation`, whatever it was that showed the bug."""
    return Scenario(seed, chaos_ms, faults, tell).run()


def draw(seed: int, chaos_ms: float) -> list[Fault]:
    """The faults of a seed."""
    return Scenario(seed, chaos_ms).faults


class Scenario:
    """One seed's cluster. `faults` and `setting` in place of those that the seed draws."""

    def __init__(
        self,
        seed: int,
        chaos_ms: float = CHAOS_MS,
        faults: list[Fault] | None = None,
        tell: Callable[[str], None] | None = None,
        setting: Setting | None = None,
    ) -> None:
        self.world = World(seed, tell)
        self.network = Network(self.world)
        self.setting = setting or draw_setting(seed)
        self.queues = self.setting.queues
        self.nodes: dict[str, SimNode] = {}
        for config in self.setting.configs():
            self.nodes[config.node_id] = SimNode(self.world, self.network, config, self.nodes)
        self.clients: dict[str, SimClient] = {}
        self.history = History()
        self.operator = Operator(self)
        self.checker = Checker(self.nodes, self.history)
        for node in self.nodes.values():
            node.on_turn = self.checker.turned
        self.counts: Counter[str] = Counter()  #: faults that did something, by kind
        self.chaos_ms = chaos_ms
        self.peace = False
        self.majority = Majority(self)
        self.faults = self._draw(seed) if faults is None else faults

    def _draw(self, seed: int) -> list[Fault]:
        return CLUSTER.draw(seed, self.place, WARM_UP_MS, WARM_UP_MS + self.chaos_ms)

    @property
    def place(self) -> Place:
        """What faults are drawn of."""
        return Place(list(self.nodes), [*PUBLISHERS, *CONSUMERS, *BOTH], self.setting.shards)

    def run(self) -> Outcome:
        """Chaos, then peace until everything is drained. `Violation` when it is not."""
        try:
            self._live()
        except Violation:
            raise
        except Exception as error:
            raise noticed(error) from error
        return self.outcome()

    def outcome(self) -> Outcome:
        """What it was like up to now."""
        history = self.history
        return Outcome(
            self.world.seed,
            self.world.now,
            self.world.events,
            len(history.published),
            len(history.confirmed),
            len(history.delivered),
            dict(sorted(self.counts.items())),
            {
                "snapshots installed": sum(node.installed for node in self.nodes.values()),
                "majorities that went on alone": int(bool(self.majority.broken)),
                "deaths while one was": sum(node.died_installing for node in self.nodes.values()),
            },
            str(self.setting),
        )

    def while_chaos(self, act: Callable[..., object], *arguments: object) -> None:
        """Do a later part of a fault, unless there is peace by now."""
        if not self.peace:
            act(*arguments)

    # --- the course of it -----------------------------------------------------------------

    def _live(self) -> None:
        world = self.world
        for node in self.nodes.values():
            node.start()
        self.until(2000)
        for name in PUBLISHERS:
            self._add_client(name, publishes=True)
        for name in CONSUMERS:
            self._add_client(name, consumes=True)
        for name in BOTH:
            self._add_client(name, publishes=True, consumes=True)
        for fault in self.faults:
            world.at(fault.at_ms, lambda fault=fault: self._strike(fault))
        self.until(WARM_UP_MS + self.chaos_ms)
        self.majority.run()
        self.world.note("peace")
        self.heal()
        self._await_drained()
        for client in self.clients.values():
            client.stopped = True
        self.checker.finish(self.queues)

    def _add_client(self, name: str, *, publishes: bool = False, consumes: bool = False) -> None:
        self.clients[name] = SimClient(
            name,
            self.world,
            self.network,
            self.nodes,
            self.history,
            queues=self.queues,
            publishes_per_s=self.setting.publishes_per_s if publishes else 0.0,
            consumes=consumes,
            prefetch=self.world.chance(f"prefetch/{name}").choice([1, 3, 10]),
        )

    def until(self, time_ms: float) -> None:
        while self.world.now < time_ms:
            self.world.run_until(min(time_ms, self.world.now + LOOK_MS))
            self.checker.step()

    def _strike(self, fault: Fault) -> None:
        if self.peace:
            return
        arguments = ", ".join(f"{key}={value}" for key, value in fault.arguments.items())
        self.world.note(f"* {fault.kind}({arguments})")
        if CLUSTER.strike(self, fault):
            self.counts[fault.kind] += 1

    # --- peace ----------------------------------------------------------------------------

    def heal(self) -> None:
        """Everything works again; nothing new is published by itself."""
        self.peace = True
        self.network.heal()
        for node in self.nodes.values():
            node.mend()
        for client in self.clients.values():
            client.publishes_per_s = 0.0
            client.hold_ms = 5.0

    def _await_drained(self) -> None:
        """Progress is owed: a leader everywhere, all answers, empty queues."""
        end = self.world.now + DRAIN_MS
        while self.world.now < end:
            self.until(self.world.now + 500)
            if not self._unrest():
                return
        raise Violation("liveness", f"no rest within {DRAIN_MS:g} ms of peace: {self._unrest()}")

    def _unrest(self) -> list[str]:
        unrest = [
            f"{client.name} waits for {client.core.unanswered} answers"
            for client in self.clients.values()
            if client.core.unanswered or not client.core.in_service
        ]
        if self.operator.busy:
            unrest.append(self.operator.busy)
        for node in self.nodes.values():
            if node.engine is None:
                if not node.gone:
                    unrest.append(f"{node.name} is down")
                continue
            status = node.engine.status()
            if not node.engine.shards[0].machine.members.is_settled():
                unrest.append(f"{node.name}: the list of nodes is not settled")
            if not status.ready:
                unrest.append(f"{node.name}: {status.reason}")
            unrest += [
                f"{node.name}: {queue.name} has {queue.ready} ready, {queue.checked_out} out"
                for queue in status.queues
                if queue.name in self.queues and (queue.ready or queue.checked_out)
            ]
        return unrest + self.checker.checkpoints.leftovers()
