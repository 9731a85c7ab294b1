"""Consistent hashing, twice: a queue belongs to a shard, a shard to its nodes.

Both answers are for ever the same for the same names, on every machine and in every version.
Rendezvous hashing: each candidate is weighed against the key, the heaviest win; when a node is
added it takes what it wins, and nothing else moves.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b


def shard_of(vhost: str, queue: str, shards: int) -> int:
    """The number of a queue's shard, 0 to `shards` - 1; their number is fixed for ever."""
    return _weight(vhost, queue) % shards


def replicas_of(shard: int, nodes: Sequence[str], factor: int) -> tuple[str, ...]:
    """The nodes that keep a shard. Shard 0 is on all of them; of few nodes each keeps all."""
    ordered = sorted(nodes)
    if shard == 0 or len(ordered) <= factor:
        return tuple(ordered)
    heaviest = sorted(ordered, key=lambda node: _weight(f"shard {shard}", node), reverse=True)
    return tuple(sorted(heaviest[:factor]))


def preferred_leader(shard: int, replicas: Sequence[str]) -> str:
    """Who is to lead a shard when everybody is well: in turn, so that it is spread evenly."""
    return sorted(replicas)[shard % len(replicas)]


def _weight(first: str, second: str) -> int:
    digest = blake2b(f"{first}\0{second}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
