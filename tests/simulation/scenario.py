"""A scenario: a cluster, clients, a swarm of faults from one seed, then peace and the reckoning.

python -m tests.simulation.scenario SEED      runs one seed and prints its trace
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

from broker.config import Config, Peer
from tests.simulation.checks import Checker, Violation
from tests.simulation.client import History, SimClient
from tests.simulation.node import SimNode
from tests.simulation.world import Faults, Network, World

QUEUES = ["alpha", "beta", "gamma"]


@dataclass(frozen=True)
class Outcome:
    """What a run was like."""

    seed: int
    simulated_ms: float
    events: int
    published: int
    confirmed: int
    delivered: int
    faults: int


class Scenario:
    """Three nodes, five clients, one seed."""

    def __init__(self, seed: int, *, nodes: int = 3, shards: int = 3) -> None:
        self.world = World(seed)
        self.network = Network(self.world)
        peers = tuple(Peer(f"n{i}", "sim", i) for i in range(1, nodes + 1))
        self.nodes: dict[str, SimNode] = {}
        for peer in peers:
            config = Config(
                node_id=peer.id,
                cluster_nodes=peers,
                peer_port=peer.peer_port,
                shards=shards,
                grace_ms=5000,
            )
            self.nodes[peer.id] = SimNode(self.world, self.network, config, self.nodes)
        self.history = History()
        self.checker = Checker(self.nodes, self.history)
        self.faults = 0

    def run(self, chaos_ms: float = 20_000) -> Outcome:
        """Chaos, then peace until everything is drained. `Violation` when it is not."""
        world = self.world
        for node in self.nodes.values():
            node.start()
        self._until(2000)
        clients = [self._client(f"p{i}", publishes=True) for i in range(2)]
        clients += [self._client(f"c{i}", consumes=True) for i in range(2)]
        clients.append(self._client("pc", publishes=True, consumes=True))
        self._until(world.now + 1000)
        end = world.now + chaos_ms
        while world.now < end:
            self._break_something(clients)
            self._until(min(end, world.now + world.random.uniform(200, 3000)))
        self._make_peace(clients)
        self._await_drained(clients)
        for client in clients:
            client.stopped = True
        self.checker.finish(QUEUES)
        return Outcome(
            world.seed,
            world.now,
            world.events,
            len(self.history.published),
            len(self.history.confirmed),
            len(self.history.delivered),
            self.faults,
        )

    def _client(self, name: str, *, publishes: bool = False, consumes: bool = False) -> SimClient:
        return SimClient(
            name,
            self.world,
            self.network,
            self.nodes,
            self.history,
            queues=QUEUES,
            publishes=publishes,
            consumes=consumes,
            prefetch=self.world.random.choice([1, 3, 10]),
        )

    def _until(self, time_ms: float) -> None:
        while self.world.now < time_ms:
            self.world.run_until(min(time_ms, self.world.now + 20))
            self.checker.step()

    # --- faults ---------------------------------------------------------------------------

    def _break_something(self, clients: list[SimClient]) -> None:
        random, network = self.world.random, self.network
        self.faults += 1
        node = self.nodes[random.choice(sorted(self.nodes))]
        match random.randrange(9):
            case 0 | 1:
                if node.engine is not None:
                    node.crash()
                    self.world.after(random.uniform(10, 5000), lambda: self._restart(node))
            case 2:
                if node.engine is not None and not node.paused:
                    node.pause()
                    self.world.after(random.uniform(100, 8000), node.resume)
            case 3:
                network.faults.loss = random.choice([0.0, 0.02, 0.1, 0.3])
            case 4:
                low = random.uniform(0.1, 20)
                network.faults.latency_ms = (low, low * random.uniform(1, 10))
            case 5:
                names = sorted(self.nodes)
                random.shuffle(names)
                cut = random.randrange(1, len(names))
                network.partition(set(names[:cut]), set(names[cut:]))
                self.world.after(random.uniform(100, 6000), network.heal)
            case 6:
                one, other = random.sample(sorted(self.nodes), 2)
                network.faults.blocked = {(one, other)}
                self.world.after(random.uniform(100, 6000), network.heal)
            case 7:
                random.choice(clients).kill()
            case 8:
                node.disk_ms = random.choice([(0.2, 1.0), (5.0, 50.0), (50.0, 400.0)])
                node.clock_skew_ms = random.choice([0, -60_000, 60_000])
        self.world.note(f"faults: {network.faults}")

    def _restart(self, node: SimNode) -> None:
        if node.engine is None:
            node.start()

    def _make_peace(self, clients: list[SimClient]) -> None:
        """Everything works again; nothing new is published."""
        self.world.note("peace")
        self.network.faults = Faults()
        for node in self.nodes.values():
            node.disk_ms = (0.2, 1.0)
            node.resume()
            self._restart(node)
        for client in clients:
            client.publishing = False
            client.hold_ms = 5.0

    def _await_drained(self, clients: list[SimClient], limit_ms: float = 60_000) -> None:
        """Progress is owed: a leader everywhere, all answers, empty queues."""
        end = self.world.now + limit_ms
        while self.world.now < end:
            self._until(self.world.now + 500)
            if self._is_drained(clients):
                return
        raise Violation(f"no rest within {limit_ms:g} ms of peace: {self._unrest(clients)}")

    def _is_drained(self, clients: list[SimClient]) -> bool:
        return not self._unrest(clients)

    def _unrest(self, clients: list[SimClient]) -> list[str]:
        unrest = [
            f"{client.name} waits for {client.core.unanswered} answers"
            for client in clients
            if client.core.unanswered or not client.core.in_service
        ]
        for node in self.nodes.values():
            assert node.engine is not None
            status = node.engine.status()
            if not status.ready:
                unrest.append(f"{node.name}: {status.reason}")
            unrest += [
                f"{node.name}: {queue.name} has {queue.ready} ready, {queue.checked_out} out"
                for queue in status.queues
                if queue.name in QUEUES and (queue.ready or queue.checked_out)
            ]
        return unrest


def main() -> None:
    """Run one seed; print the trace when it fails, the outcome when it does not."""
    seed = int(sys.argv[1])
    scenario = Scenario(seed)
    try:
        print(scenario.run())
    except BaseException:
        print("\n".join(scenario.world.trace[-400:]))
        raise


if __name__ == "__main__":
    main()
