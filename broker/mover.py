"""Groups on their way to the nodes that should keep them, as the list of nodes changes.

    every leader     moves its groups, one at a time, and tells all nodes who keeps each (Groups)
    shard 0's        when every group has reached the newest version of the list: ClusterSettle
    every node       gives up a group whose leader says that it is kept elsewhere

A group that has reached its nodes counts only when a majority of them has the log up to the
last change: what the nodes that went had acknowledged must not be on fewer disks than before.
"""

from __future__ import annotations

from broker.cluster import Cluster, Kept
from broker.config import raft_id
from broker.machines.commands import ClusterSettle, encode
from broker.machines.members import NodeState
from broker.peer_protocol import Groups
from broker.peers import Peer
from broker.placement import HandOver, Target, Wait, majority, next_move
from broker.roster import Roster
from broker.router import TOPOLOGY
from broker.shard import Shard, is_level
from raftlog.errors import ChangeInvalid, ProposalDropped
from raftlog.membership import Change
from raftlog.messages import Membership
from raftlog.ready import Status

TELL_MS = 2000
"""How often the leaders tell who keeps their groups, beside at every news."""
HAND_OVER_MS = 1000
"""How long a transfer may take before it is asked for again."""


class Mover:
    """What the list of nodes means to groups."""

    def __init__(self, cluster: Cluster, roster: Roster) -> None:
        self._cluster, self._roster = cluster, roster
        self.given_up: set[int] = set()  #: groups that this node is to drop
        self._told_ms = 0
        self._told: dict[int, Kept] = {}
        self._handed_over_ms: dict[int, int] = {}
        self._said: dict[int, str] = {}

    def run(self) -> None:
        """Everything that is to be done now; called several times a second."""
        self._roster.follow()
        self._roster.expire()
        self._roster.register()
        self._move()
        self._tell()
        self._settle()

    # --- moving ---------------------------------------------------------------------------

    def _move(self) -> None:
        """One group at a time makes progress, of those that this node leads.

        One that waits for a node that is not heard does not keep the others waiting.
        """
        cluster = self._cluster
        if not cluster.members.version:
            return
        live = cluster.live()
        for number in sorted(cluster.shards):
            shard = cluster.shards[number]
            if shard.in_service and self._move_one(shard, self._target(shard), live):
                return

    def _target(self, shard: Shard) -> Target:
        """Where the group is to be next: who leaves keeps shard 0 until it keeps nothing else.

        A node without shard 0 does not learn of anything any more: what it still led would
        stand still, and it would not even know that it is to give it away.
        """
        cluster, membership = self._cluster, shard.raft.membership
        target = cluster.target(shard.number)
        if shard.number != TOPOLOGY:
            return target
        kept = [cluster.kept.get(number) for number in range(1, cluster.config.shards)]
        busy = [
            id
            for id in (raft_id(n.name) for n in cluster.members.in_state(NodeState.LEAVING))
            if any(group is None or id in (*group.voters, *group.learners) for group in kept)
        ]
        return Target(
            target.voters + tuple(id for id in busy if id in membership.voters),
            target.learners + tuple(id for id in busy if id in membership.learners),
        )

    def _move_one(self, shard: Shard, target: Target, live: set[int]) -> bool:
        """Whether the group is on its way, so that the others wait."""
        membership = shard.raft.membership
        if _is_there(membership, target):
            self._say(shard, "")
            return False
        status = shard.raft.status()
        move = next_move(membership, target, leader=shard.raft.id, level=_level(status), live=live)
        match move:
            case None:
                return False
            case HandOver(to=to):
                self._hand_over(shard, to)
                return True
            case Wait(why=why, for_nodes=nodes):
                names = ", ".join(self._cluster.names.get(node, "?") for node in nodes)
                self._say(shard, f"{why}: {names}" if names else why)
                return not nodes or any(node in live for node in nodes)
            case Change():
                self._propose(shard, move)
                return True

    def _propose(self, shard: Shard, change: Change) -> None:
        try:
            shard.raft.propose_conf_change(change)
        except (ProposalDropped, ChangeInvalid):
            return  # another one is not applied yet: the next look decides anew
        names = self._cluster.names
        steps = [f"{step.kind.name} {names.get(step.node, '?')}" for step in change.steps]
        self._say(shard, ", ".join(steps).lower().replace("_", " "))

    def _hand_over(self, shard: Shard, to: int) -> None:
        now_ms, number = self._cluster.now_ms, shard.number
        if now_ms - self._handed_over_ms.get(number, -HAND_OVER_MS) >= HAND_OVER_MS:
            self._handed_over_ms[number] = now_ms
            self._say(shard, f"goes to leader {self._cluster.names.get(to, '?')}")
            shard.raft.transfer_leader(to)

    def _say(self, shard: Shard, text: str) -> None:
        if self._said.get(shard.number, "") != text:
            self._said[shard.number] = text
            self._cluster.log(f"shard {shard.number}: {text or 'is where it should be'}")

    # --- telling --------------------------------------------------------------------------

    def _tell(self) -> None:
        cluster = self._cluster
        led = {
            number: self._kept(shard)
            for number, shard in cluster.shards.items()
            if shard.in_service
        }
        cluster.kept.update(led)
        if led == self._told and cluster.now_ms - self._told_ms < TELL_MS:
            return
        self._told, self._told_ms = led, cluster.now_ms
        record = Groups(
            [
                (number, kept.term, kept.version, list(kept.voters), list(kept.learners))
                for number, kept in led.items()
            ]
        )
        for peer in cluster.peers.values():
            peer.records.append(record)

    def _kept(self, shard: Shard) -> Kept:
        raft, membership = shard.raft, shard.raft.membership
        version = self._cluster.members.version
        told = self._told.get(shard.number)
        if (
            told is not None
            and told.version == version > 0
            and told.term == raft.term
            and told.voters == membership.voters
            and told.learners == membership.learners
            and not membership.outgoing
        ):
            return told  # what was safe stays so: no need to look at all progress again
        target = self._cluster.target(shard.number)
        if not _is_there(membership, target) or not _is_safe(raft.status(), shard.changed_at):
            version = 0
        voters = tuple(sorted({*membership.voters, *membership.outgoing}))
        return Kept(raft.term, version, voters, membership.learners)

    def told(self, peer: Peer, record: Groups) -> None:
        """A peer tells who keeps the groups that it leads."""
        cluster = self._cluster
        for number, term, version, voters, learners in record.groups:
            known = cluster.kept.get(number)
            if known is not None and known.term > term:
                continue
            cluster.kept[number] = Kept(term, version, tuple(voters), tuple(learners))
            shard, own = cluster.shards.get(number), raft_id(cluster.node)
            if (
                number != TOPOLOGY
                and shard is not None
                and version
                and term >= shard.raft.term
                and own not in voters
                and own not in learners
                and not self.keeps(number)
            ):
                self.given_up.add(number)

    def keeps(self, number: int) -> bool:
        """Whether this node should keep a group, by its own copy of the list."""
        if not 0 <= number < self._cluster.config.shards:
            return False
        target = self._cluster.target(number)
        return raft_id(self._cluster.node) in (*target.voters, *target.learners)

    def _settle(self) -> None:
        """Close a change that all groups have followed."""
        cluster = self._cluster
        members = cluster.members
        if not cluster.shard_zero.in_service or not members.version or members.is_settled():
            return
        kept = [cluster.kept.get(number) for number in range(cluster.config.shards)]
        if all(group is not None and group.version == members.version for group in kept):
            cluster.submit(TOPOLOGY, encode(ClusterSettle(members.version)))


def _is_there(membership: Membership, target: Target) -> bool:
    return (
        not membership.outgoing
        and set(membership.voters) == set(target.voters)
        and set(membership.learners) == set(target.learners)
    )


def _level(status: Status) -> set[int]:
    return {node for node, progress in status.progress.items() if is_level(progress, status)}


def _is_safe(status: Status, changed_at: int) -> bool:
    """Whether a majority of the voters has all up to the last change."""
    voters, progress = status.membership.voters, status.progress
    have = sum(node in progress and progress[node].match >= changed_at for node in voters)
    return have >= majority(len(voters))
