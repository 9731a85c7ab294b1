"""Compares the states of a shard's replicas now and then; stops this node when it is the odd one.

    leader, every `audit_ms` when something was applied    Audit -> the log
    each replica, having applied it                        state hash -> the other replicas
    each replica, having theirs                            all the same: all is well
                                                           most voters have another: StateDiffers
                                                           no majority: told and counted

A replica that goes on wrongly is worse than one that is down. Whoever stops leaves behind a
majority that agrees, so no comparison can take a group's quorum away.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.cluster import Cluster
from broker.errors import StateDiffers
from broker.machines.commands import Audit, encode
from broker.machines.machine import HASH_FORMAT
from broker.peer_protocol import StateHash
from broker.peers import Peer
from broker.shard import Shard
from raftlog.messages import Membership
from raftlog.quorum import VoteResult, joint_vote

AUDITS_KEPT = 4
"""Of each shard: replicas come to an entry at different times."""

_COMMAND = encode(Audit())


@dataclass(slots=True)
class _Audits:
    """One shard's."""

    due_ms: int  #: when its leader may propose the next
    since: int  #: audits up to this entry are those of an earlier start: nobody compares them
    last: int = 0  #: the entry of the last one
    hashes: dict[int, dict[int, bytes]] = field(default_factory=dict)
    """Of the newest entries: Raft id -> hash."""
    told: int = 0  #: the last entry of which a difference was told


class Auditor:
    """The audits of all shards of this node."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._audits: dict[int, _Audits] = {}
        for shard in cluster.shards.values():
            self._of(shard)

    def propose(self) -> None:
        """At each tick: audits of shards that this node leads, where one is due.

        Hashing takes a while where the state is large, so shards have their own times.
        """
        every_ms, now_ms = self._cluster.config.audit_ms, self._cluster.now_ms
        if not every_ms:
            return
        for shard in self._cluster.shards.values():
            audits = self._of(shard)
            if now_ms >= audits.due_ms and shard.in_service:
                audits.due_ms = now_ms + every_ms
                if shard.applied > max(audits.last, shard.machine.audited):
                    shard.inbox.add_first(_COMMAND)

    def applied(self, shard: Shard) -> None:
        """The machine has just applied an `Audit`. Raise `StateDiffers`."""
        audits = self._of(shard)
        audits.last = index = shard.applied
        if index <= audits.since:
            return
        cluster, own = self._cluster, shard.machine.state_hash()
        cluster.counters.audits += 1
        record = StateHash(shard.number, shard.storage.incarnation, index, HASH_FORMAT, own)
        for member in _members(shard.raft.membership):
            peer = cluster.peers.get(cluster.names.get(member, ""))
            if peer is not None:
                peer.records.append(record)
        self._compare(shard, audits, index, shard.raft.id, own)

    def told(self, peer: Peer, record: StateHash) -> None:
        """The hash of another replica. Raise `StateDiffers`."""
        shard = self._cluster.shards.get(record.group)
        if shard is None or record.format != HASH_FORMAT:
            return
        if record.incarnation != shard.storage.incarnation:
            self._cluster.counters.other_incarnation += 1
            return
        self._compare(shard, self._of(shard), record.index, peer.raft_id, record.hash)

    def _of(self, shard: Shard) -> _Audits:
        audits = self._audits.get(shard.number)
        if audits is None:
            config = self._cluster.config
            wait_ms = config.audit_ms * (shard.number + 1) // config.shards
            audits = _Audits(self._cluster.now_ms + wait_ms, since=shard.raft.last_index)
            self._audits[shard.number] = audits
        return audits

    def _compare(self, shard: Shard, audits: _Audits, index: int, member: int, hash: bytes) -> None:
        hashes = audits.hashes.setdefault(index, {})
        hashes[member] = hash
        while len(audits.hashes) > AUDITS_KEPT:
            del audits.hashes[min(audits.hashes)]
        own = hashes.get(shard.raft.id)
        if own is None:
            return
        news = [hash] if member != shard.raft.id else [*hashes.values()][:-1]
        self._cluster.counters.audits_equal += news.count(own)
        if any(other != own for other in hashes.values()):
            self._differ(shard, audits, index, own)

    def _differ(self, shard: Shard, audits: _Audits, index: int, own: bytes) -> None:
        cluster, hashes = self._cluster, audits.hashes.get(index, {})
        names = {member: cluster.names.get(member, str(member)) for member in hashes}
        names[shard.raft.id] = cluster.node
        seen = ", ".join(sorted(f"{names[id]} {hash.hex()[:8]}" for id, hash in hashes.items()))
        membership = shard.raft.membership
        for other in {hash: None for hash in hashes.values() if hash != own}:
            votes = {id: True for id, hash in hashes.items() if hash == other}
            if joint_vote(membership.voters, membership.outgoing, votes) is VoteResult.WON:
                raise StateDiffers(cluster.node, shard.number, index, seen)
        if audits.told < index:
            audits.told = index
            cluster.counters.audits_different += 1
            cluster.log(
                f"the replicas of shard {shard.number} differ after entry {index} ({seen}): a "
                "node that a majority contradicts stops by itself; without a majority none does, "
                "and somebody must look"
            )


def _members(membership: Membership) -> tuple[int, ...]:
    everybody = (
        *membership.voters,
        *membership.outgoing,
        *membership.learners,
        *membership.learners_next,
    )
    return tuple(dict.fromkeys(everybody))
