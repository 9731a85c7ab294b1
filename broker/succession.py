"""What becomes of the shards of a leader whose process seems dead: who stands, and when.

    tick   1   2   3   4   5   6 ...      after the reset of its link
    first  s1  s7                         two shards a tick, in the order of their numbers
           s4  s10
    second         s1 ...                 if the first does not: it is dead too, or its log is short

Every survivor works out the same order by itself, so for each shard one stands alone, and a
vote is rarely split. Should it be, chance decides the next time (`raftlog.raft`).
"""

from __future__ import annotations

from collections import Counter

from broker.cluster import Cluster
from broker.ring import succession

SHARDS_PER_TICK = 2
"""Elections of one node that begin together: they share their fsyncs, and bound a turn's work."""
RANK_TICKS = 4
"""How much later the next in line stands."""


def waits(cluster: Cluster, dead: str) -> dict[int, int]:
    """Of each shard that `dead` leads and this node keeps: the ticks until this node stands."""
    waits: dict[int, int] = {}
    able = {name for name, peer in cluster.peers.items() if cluster.can_lead(peer)}
    able.add(cluster.node)
    before: Counter[int] = Counter()  # by rank: shards that come first
    for number, shard in sorted(cluster.shards.items()):
        raft = shard.raft
        if not raft.leader or cluster.names.get(raft.leader) != dead:
            continue
        voters = [cluster.names.get(voter, "") for voter in raft.membership.voters]
        order = succession(number, [name for name in voters if name in able and name != dead])
        rank = order.index(cluster.node) if cluster.node in order else len(order)
        waits[number] = 1 + before[rank] // SHARDS_PER_TICK + rank * RANK_TICKS
        before[rank] += 1
    return waits
