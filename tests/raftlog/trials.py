"""What a healed group must bear: each trial hurts it in one way and demands what is due then.

reads            every read that was asked in peace is answered
sticky voters    who loses its link to the leader alone unseats nobody
lost majority    a leader that nobody hears falls silent, and the others go on
bridge           who led and reaches one voter alone cannot keep it from the others
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import TYPE_CHECKING

from raftlog.errors import RaftError
from raftlog.membership import members
from raftlog.messages import AppendRequest, HeartbeatRequest
from raftlog.node import Role
from tests.simulation.violation import Violation

if TYPE_CHECKING:
    from tests.raftlog.host import Host
    from tests.raftlog.network import Network

CALM_ROUNDS = 100
ELECTION_ROUNDS = 300


def all_trials(network: Network) -> None:
    """One after the other, each from a healed group."""
    _reads(network)
    _paused_leader(network)
    options = network.options
    if options["check_quorum"] and options["pre_vote"]:
        _sticky_voters(network)
        _lost_majority(network)
        _bridge(network)


def _calm(network: Network) -> Host | None:
    """A leader whom all voters hear, of a group of three or more; None without one."""
    network.broken = set()
    network.rounds(CALM_ROUNDS)
    leader = network.top()
    if leader is None:
        raise Violation("liveness", f"nobody leads: {network.states()}")
    membership = leader.node.membership
    simple = not membership.outgoing and len(membership.voters) > 2
    return leader if simple and leader.node.id in membership.voters else None


def _reads(network: Network) -> None:
    leader = network.top()
    if leader is None:
        return
    asked = {
        b"peace%d" % id: network.hosts[id]
        for id in members(leader.node.membership)
        if network.hosts[id].node.leader == leader.node.id
    }
    before = len(network.checker.committed) - 1
    for name, host in asked.items():
        network.reads[name] = before
        host.node.read_index(name)
    network.rounds(10)
    missing = sorted(asked.keys() & network.reads.keys())
    if missing and network.top() is leader:
        raise Violation("reads are answered", f"{missing}: {network.states()}")


def _sticky_voters(network: Network) -> None:
    leader = _calm(network)
    if leader is None:
        return
    id, term = leader.node.id, leader.node.term
    other = next(voter for voter in leader.node.membership.voters if voter != id)
    network.broken = {(id, other), (other, id)}
    network.rounds(CALM_ROUNDS)
    if (leader.node.role, leader.node.term) != (Role.LEADER, term):
        raise Violation("voters stick to their leader", f"{other} unseated {id}")


def _paused_leader(network: Network) -> None:
    leader = _calm(network)
    if leader is None:
        return
    membership = leader.node.membership
    side = {leader.node.id, *membership.learners}
    network.broken = {
        (a, b) for a in network.hosts for b in network.hosts if (a in side) != (b in side)
    }
    _await_other(network, leader, "the others elect and commit", still=side)
    name = b"late"
    network.reads[name] = len(network.checker.committed) - 1
    leader.node.read_index(name)
    network.rounds(5, still=side)


def _lost_majority(network: Network) -> None:
    leader = _calm(network)
    if leader is None:
        return
    network.cut_off(leader.node.id)
    network.rounds(2 * leader.config.election_tick + 2)
    _silent(network, leader)
    _await_other(network, leader, "the others elect and commit")


def _bridge(network: Network) -> None:
    """openraft#2080: five voters, one is dead, and the old leader reaches one of the others."""
    leader = _calm(network)
    if leader is None or len(leader.node.membership.voters) != 5:
        return
    id = leader.node.id
    bridge, dead, *_ = (voter for voter in leader.node.membership.voters if voter != id)
    network.cut_off(dead)
    network.broken |= {
        link for other in network.hosts if other != bridge for link in ((id, other), (other, id))
    }
    network.rounds(2 * leader.config.election_tick + 2)
    _silent(network, leader)
    _await_other(network, leader, "a bridge does not block")


def _silent(network: Network, leader: Host) -> None:
    """All leader's traffic has stopped, not only heartbeats."""
    with suppress(RaftError):
        leader.node.propose(b"nobody hears this")
    for _ in range(leader.config.heartbeat_tick):
        leader.node.tick()
    heard: list[object] = []
    while leader.node.has_ready():
        heard += leader.begin()
        network.complete(leader, crash=0.0)
    if any(isinstance(message, AppendRequest | HeartbeatRequest) for message in heard):
        raise Violation("a leader without a majority is silent", f"{heard}")


def _await_other(network: Network, old: Host, checker: str, still: Collection[int] = ()) -> None:
    for _ in range(ELECTION_ROUNDS // 10):
        network.rounds(10, still)
        top = network.top()
        if top is not None and top is not old and top.node.commit == top.node.last_index:
            return
    raise Violation(checker, f"{network.broken}: {network.states()}")
