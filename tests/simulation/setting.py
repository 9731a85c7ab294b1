"""What a cluster of the simulation is like: drawn from the seed, one stream of chance a field.

A field of `Config` that is to be tried out with small or odd values is a line in `_CONFIG`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from broker.config import Config, Peer
from broker.ring import shard_of

_CONFIG: dict[str, Callable[[Random], Any]] = {
    "replay_commands_max": lambda random: random.choice([30, 100, 400, 200_000]),
    "log_bytes_max": lambda random: random.choice([2_000, 20_000, 64 << 20]),
    "sweep_entries_max": lambda random: random.choice([20, 100, 512]),
    "entry_commands_max": lambda random: random.choice([2, 10_000, 10_000]),
    "snapshot_part_bytes": lambda random: random.choice([100, 1000]),
    "snapshot_bytes_per_s": lambda random: random.choice([5_000, 64 << 20]),
    "audit_ms": lambda random: random.choice([500, 2000, 60_000]),
}


@dataclass(frozen=True)
class Setting:
    """Sizes and speeds of one scenario."""

    nodes: int
    shards: int
    publishes_per_s: float  #: of each publisher; two messages each, on average
    config: dict[str, Any]

    @property
    def queues(self) -> list[str]:
        """At least one on every shard but 0, and two with a neighbour."""
        left, names = set(range(self.shards - 1)), []
        for number in range(1000):
            name = f"q{number}"
            place = shard_of("/", name, self.shards - 1)
            if place in left or number == 0:
                names.append(name)
                left.discard(place)
            elif not left:
                return [*names, name]
        raise AssertionError("some shard takes no queue")

    def __str__(self) -> str:
        return f"{self.nodes} nodes x {self.shards} shards, {self.publishes_per_s:g} publishes/s"

    def configs(self) -> list[Config]:
        """One for each node."""
        peers = tuple(Peer(f"n{i}", "sim", i) for i in range(1, self.nodes + 1))
        return [self.config_of(peer, peers) for peer in peers]

    def config_of(self, own: Peer, peers: tuple[Peer, ...]) -> Config:
        """Of one node, which is told of these peers."""
        return Config(
            node_id=own.id,
            cluster_nodes=peers,
            peer_port=own.peer_port,
            shards=self.shards,
            grace_ms=5000,
            **self.config,
        )


def draw_setting(seed: int) -> Setting:
    """The setting of a seed."""

    def choose(name: str, *values: Any) -> Any:
        return Random(f"{seed}/setting/{name}").choice(values)

    return Setting(
        nodes=choose("nodes", 3, 3, 3, 5),
        shards=choose("shards", 3, 3, 8),
        publishes_per_s=choose("publishes_per_s", 0.5, 3.0, 15.0),
        config={
            name: draw(Random(f"{seed}/setting/config/{name}")) for name, draw in _CONFIG.items()
        },
    )
