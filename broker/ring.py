"""Consistent hashing, twice: a queue belongs to a shard, a shard to its nodes.

Both answers are for ever the same for the same names, on every machine and in every version.

Rendezvous hashing: every node is weighed against the shard, and the heaviest keep it. With few
shards that alone can give one node twice the share of another, so a node that has its share
and a quarter more of the shards before this one is passed over (consistent hashing with
bounded loads). Shards are placed in the order of their numbers: adding shards moves none, and
adding a node moves little more than what it takes over.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b


def shard_of(vhost: str, queue: str, shards: int) -> int:
    """The number of a queue's shard, 0 to `shards` - 1; their number is fixed for ever."""
    return _weight(vhost, queue) % shards


def replicas_of(shard: int, nodes: Sequence[str], factor: int) -> tuple[str, ...]:
    """The nodes that keep a shard, first the one that is to lead it when everybody is well.

    Shard 0 is on all nodes; of no more than `factor` nodes each keeps all.
    """
    assert shard >= 0, shard
    assert nodes, "a cluster without nodes"
    assert factor > 0, factor
    ordered = tuple(sorted(nodes))
    if shard == 0 or len(ordered) <= factor:
        turn = shard % len(ordered)
        return ordered[turn:] + ordered[:turn]
    # Placements agree on the shards they share; so a few sizes serve all askers.
    return _placement(ordered, factor, 1 << shard.bit_length())[shard]


def preferred_leader(replicas: Sequence[str]) -> str:
    """Which of `replicas_of` a shard is to lead when everybody is well."""
    return replicas[0]


def succession(shard: int, nodes: Sequence[str]) -> tuple[str, ...]:
    """Who is to lead a shard after its leader has gone, in order: one of these, in turns.

    A leader's shards are some way apart in their numbers; so each of two heirs gets half.
    """
    ordered = tuple(sorted(nodes))
    turn = _weight("succession", str(shard)) % len(ordered) if ordered else 0
    return ordered[turn:] + ordered[:turn]


@lru_cache(maxsize=64)
def _placement(nodes: tuple[str, ...], factor: int, shards: int) -> list[tuple[str, ...]]:
    """Where each of `shards` shards goes. `nodes` are sorted, and more than `factor`."""
    kept = dict.fromkeys(nodes, 0)
    led = dict.fromkeys(nodes, 0)
    led[nodes[0]] = 1  # shard 0
    placed = [nodes]
    for shard in range(1, shards):
        share_max = -(-5 * shard * factor // (4 * len(nodes)))
        weights = {node: _weight(f"shard {shard}", node) for node in nodes}
        # False sorts before True: who has room comes first, however light.
        wanted = sorted(nodes, key=lambda node: (kept[node] >= share_max, -weights[node]))
        leader, *others = sorted(wanted[:factor], key=lambda node: (led[node], -weights[node]))
        led[leader] += 1
        for node in (leader, *others):
            kept[node] += 1
        placed.append((leader, *sorted(others)))
    return placed


def _weight(first: str, second: str) -> int:
    digest = blake2b(f"{first}\0{second}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
