"""What operators want changed in the list of nodes: judged by the leader of shard 0.

    asked here --Change--> leader: is it so already?  yes
         ^                         may it be?         no, and what to do instead
         |                         it may             a command, and silence
         +-- repeated until it is answered -----------+

Repeating makes it exact: the answer "it is so" is given by a leader that has applied it. A
command names the version of the list that was judged, so two of them are never one too many.
"""

from __future__ import annotations

from dataclasses import dataclass

from broker.cluster import Cluster
from broker.config import NODE_NAME, PORT_MAX, WILDCARDS, raft_id
from broker.errors import Code
from broker.machines.commands import NodeAdd, NodePromote, NodeRemove, encode
from broker.machines.members import NODES_MAX, NodeRecord, NodeState
from broker.peer_protocol import Change, Changed
from broker.peers import Peer
from broker.placement import majority
from broker.ring import replicas_of
from broker.router import TOPOLOGY

OK = 0
PENDING_MAX = 64


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to an operator; code 0: it is so."""

    code: int
    text: str


def _no(text: str) -> Verdict:
    return Verdict(Code.PRECONDITION_FAILED, text)


class Changes:
    """Operators' wishes asked here, and those that this node judges."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._count = 0
        self._pending: dict[int, Change] = {}
        self._verdicts: dict[int, Verdict] = {}

    # --- for whom is asked here -----------------------------------------------------------

    def begin(self, kind: str, node: str, host: str, port: int) -> int:
        """A number under which the answer can be had from `answer`."""
        self._count += 1
        if len(self._pending) >= PENDING_MAX:
            self.end(next(iter(self._pending)))
        self._pending[self._count] = Change(self._count, kind, node, host, port)
        return self._count

    def answer(self, number: int) -> Verdict | None:
        """The answer, once there is one. Asks (again) meanwhile."""
        wish = self._pending.get(number)
        if wish is None or number in self._verdicts:
            return self._verdicts.get(number)
        cluster = self._cluster
        if cluster.shard_zero.in_service:
            verdict = self._judge(wish)
            if verdict is not None:
                self._verdicts[number] = verdict
            return verdict
        peer = cluster.peers.get(cluster.leader_of(TOPOLOGY))
        if peer is not None:
            peer.records.append(wish)
        return None

    def end(self, number: int) -> None:
        """Nobody waits for the answer any more."""
        self._pending.pop(number, None)
        self._verdicts.pop(number, None)

    def told(self, record: Changed) -> None:
        """The leader has answered."""
        if record.number in self._pending:
            self._verdicts[record.number] = Verdict(record.code, record.text)

    # --- for the leader of shard 0 --------------------------------------------------------

    def asked(self, peer: Peer, record: Change) -> None:
        """A peer asks on behalf of an operator."""
        if not self._cluster.shard_zero.in_service:
            return
        verdict = self._judge(record)
        if verdict is not None:
            peer.records.append(Changed(record.number, verdict.code, verdict.text))

    def _judge(self, wish: Change) -> Verdict | None:
        """What is answered; None when a command is under way that will make it so."""
        if not self._cluster.members.version:
            return None  # the list is founded within a moment
        match wish.kind:
            case "add":
                return self._add(wish)
            case "promote":
                return self._promote(wish.node)
            case "remove":
                return self._remove(wish.node)
            case _:
                return Verdict(Code.INVALID_ARGUMENT, f"there is no change {wish.kind!r}")

    def _add(self, wish: Change) -> Verdict | None:
        name, members = wish.node, self._cluster.members
        if not NODE_NAME.fullmatch(name):
            text = (
                f"{name!r} is no name for a node: use 1 to 64 letters, digits, dots, dashes and "
                f"underscores, a letter or digit first"
            )
            return Verdict(Code.INVALID_ARGUMENT, text)
        if not wish.host or not 0 < wish.port <= PORT_MAX:
            text = f"{wish.host}:{wish.port} is no address: give host and peer port, as in h:7651"
            return Verdict(Code.INVALID_ARGUMENT, text)
        if wish.host in WILDCARDS:
            text = f"{wish.host} is no address to connect to: give the host of {name} itself"
            return Verdict(Code.INVALID_ARGUMENT, text)
        known = members.get(name)
        if known is not None:
            return self._add_known(known, wish)
        if raft_id(name) in map(raft_id, (node.name for node in members)):
            return _no(f"the id of {name} is that of another node: choose another name")
        for node in members.present:
            if (node.host, node.port) == (wish.host, wish.port):
                return _no(f"{wish.host}:{wish.port} is {node.name}: give the new node's own")
        if len(members.present) >= NODES_MAX:
            return _no(f"there are {NODES_MAX} nodes, which is the limit: remove one first")
        running = self._running()
        if running:
            return _no(running)
        command = NodeAdd(members.version, name, wish.host, wish.port)
        self._cluster.submit(TOPOLOGY, encode(command))
        return None

    def _add_known(self, known: NodeRecord, wish: Change) -> Verdict:
        name = known.name
        if known.state is NodeState.REMOVED:
            return _no(f"{name} was removed, and a name is never used again: choose another")
        if known.state is NodeState.JOINING and (known.host, known.port) == (wish.host, wish.port):
            return Verdict(
                OK,
                f"{name} may join: start it with an empty data directory, --node-id {name} and "
                f"--join with the peer address of a node; then say `raftmq cluster promote {name}`",
            )
        return _no(f"{name} is {known.state.value} at {known.host}:{known.port} already")

    def _promote(self, name: str) -> Verdict | None:
        cluster = self._cluster
        members = cluster.members
        node = members.get(name)
        if node is None or node.state is NodeState.REMOVED:
            return self._not_listed(name)
        if node.state is NodeState.MEMBER:
            return Verdict(OK, f"{name} is a member; its share of the shards moves to it")
        if node.state is NodeState.LEAVING:
            return _no(f"{name} is leaving: add a new node under another name")
        running = self._running()
        if running:
            return _no(running)
        peer = cluster.peers.get(name)
        if not node.disk or peer is None or not cluster.is_heard(peer):
            return _no(
                f"{name} was not heard at {node.host}:{node.port}: start it with --node-id "
                f"{name} and --join, and promote it then"
            )
        if not cluster.shard_zero.is_level(peer.raft_id):
            return _no(f"{name} does not have all of shard 0 yet: try again in a moment")
        fault = self._fault([*self._voters(), name])
        if fault:
            return _no(f"with {name} as a voter {fault}")
        cluster.submit(TOPOLOGY, encode(NodePromote(members.version, name)))
        return None

    def _remove(self, name: str) -> Verdict | None:
        members = self._cluster.members
        node = members.get(name)
        if node is None:
            return self._not_listed(name)
        if node.state is NodeState.REMOVED:
            return Verdict(OK, f"{name} is removed; its data directory may be deleted")
        if node.state is NodeState.LEAVING:
            return Verdict(
                OK,
                f"{name} is leaving: it stops by itself once others have what it has; "
                f"`raftmq cluster members` shows it",
            )
        left = [other for other in self._voters() if other != name]
        if not left:
            return _no(f"{name} is the only member: a cluster needs one")
        running = self._running()
        # A node that fails while the groups move to it would hold them up for ever.
        if running and node.changed != members.version and self._is_heard(name):
            return _no(running)
        fault = self._fault(left)
        if fault:
            return _no(f"without {name} {fault}")
        self._cluster.submit(TOPOLOGY, encode(NodeRemove(members.version, name)))
        return None

    # --- checks ---------------------------------------------------------------------------

    def _voters(self) -> list[str]:
        return [node.name for node in self._cluster.members.in_state(NodeState.MEMBER)]

    def _is_heard(self, name: str) -> bool:
        peer = self._cluster.peers.get(name)
        return name == self._cluster.node or (peer is not None and self._cluster.is_heard(peer))

    def _not_listed(self, name: str) -> Verdict:
        names = ", ".join(node.name for node in self._cluster.members.present)
        return Verdict(Code.NOT_FOUND, f"there is no node {name}, only {names}")

    def _running(self) -> str:
        """Which change runs; "" for none."""
        members = self._cluster.members
        if members.is_settled():
            return ""
        what = [
            f"{node.name} is {node.state.value}"
            for node in members.present
            if node.changed == members.version and members.version > 1
        ]
        moving = [
            str(number)
            for number in range(self._cluster.config.shards)
            if (kept := self._cluster.kept.get(number)) is None or kept.version != members.version
        ]
        shards = f"shards {', '.join(moving)} are" if moving else "it is"
        return (
            f"a change runs ({'; '.join(what) or 'the cluster is being founded'}), and {shards} "
            f"not through with it: wait for `raftmq cluster members` to show it settled"
        )

    def _fault(self, voters: list[str]) -> str:
        """Why these members could not go on: a shard that would lack a majority; "" if none."""
        cluster = self._cluster
        live = cluster.live()
        for number in range(cluster.config.shards):
            kept = cluster.kept.get(number)
            if kept is None:
                return f"nothing can be said yet: who keeps shard {number} is not known, try again"
            now = [node for node in kept.voters if node in live]
            if len(now) < majority(len(kept.voters)):
                return (
                    f"nothing can change: {len(now)} of the {len(kept.voters)} nodes of shard "
                    f"{number} are heard, which is no majority; start the others first"
                )
            after = replicas_of(number, voters, cluster.config.replication_factor)
            silent = sorted(node for node in after if raft_id(node) not in live)
            if len(after) - len(silent) < majority(len(after)):
                return (
                    f"shard {number} would have no majority: its nodes would be "
                    f"{', '.join(sorted(after))}, and {', '.join(silent)} is not heard; "
                    f"start or remove what is silent first"
                )
        return ""
