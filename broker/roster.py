"""Who is a peer of this node: the list of nodes on shard 0, followed as it changes.

    a frame of             is
    another cluster        dropped
    one for another node   dropped: the sender's list is old, and has that node at this address
    a listed node          taken; another disk than the known one: dropped, the node dismissed
    a removed node         dropped, the node dismissed
    a name not listed      taken as far as it asks: this node's copy of the list may be old

What a node promises (an acknowledgement, a vote) counts only with the disk that shard 0 knows
of it. A founder may vote before it has been registered, or there would never be a first leader;
until then its disk is the one of its first frame. So a node whose disk was lost, and which
comes back empty under its old name, is believed by nobody who has heard of it before.
"""

from __future__ import annotations

import msgspec

from broker.charter import Charter, JoinAnswer, JoinAsk
from broker.cluster import Cluster
from broker.config import raft_id
from broker.machines.commands import ClusterFound, NodeSeen, encode
from broker.machines.members import NodeRecord, NodeState
from broker.peer_protocol import Dismissed, PeerFrame
from broker.peers import Peer
from broker.router import TOPOLOGY

REMOVED_CODE = 0
"""The exit code of a node that was removed: nothing is wrong, and nothing should start it again."""
WIPED_CODE = 2
"""The exit code of a node with another disk than the known one: its operator has to act."""

KNOWN_MAX = 1000
"""Names of other nodes that are remembered until this one restarts; more are dropped."""
STRANGERS_MAX = 64
"""Of whom it is logged that their frames are dropped."""
STRANGER_MS = 10_000
"""How long a peer that is not listed, or dismissed, is remembered after its last frame."""
DISMISS_MS = 1000
ADDRESS_MS = 5000
"""How long one address is tried before the other."""


class Roster:
    """Peers as the list has them, and guests that it does not (yet, or any more) have."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._guests: dict[str, Peer] = {}  #: not listed, and heard lately
        self._known: dict[str, Peer] = {}
        """Everybody there has been: the numbers of frames go on when a node comes back."""
        self._in_settings = {
            peer.id: (peer.host, peer.peer_port) for peer in cluster.config.cluster_nodes
        }
        self._seen = -1  #: the revision of the list that was followed
        self._refused: set[str] = set()  #: of whom it was logged
        self.follow()

    # --- following the list ---------------------------------------------------------------

    def follow(self) -> None:
        """Be in line with the list."""
        cluster, members = self._cluster, self._cluster.members
        if self._seen == members.revision:
            return
        self._seen = members.revision
        listed = cluster.listed()
        names = {raft_id(node.name): node.name for node in (*members, *listed)}
        names |= {raft_id(peer.id): peer.id for peer in cluster.config.cluster_nodes}
        names |= {guest.raft_id: guest.node for guest in self._guests.values()}
        cluster.names.update(names)
        present = {node.name for node in listed}
        for name in [name for name in cluster.peers if name not in present | set(self._guests)]:
            del cluster.peers[name]
        for node in listed:
            if node.name != cluster.node:
                self._guests.pop(node.name, None)
                peer = cluster.peers.get(node.name)
                if peer is None:
                    peer = cluster.peers[node.name] = self._peer(node.name)
                peer.host, peer.port, peer.guest = node.host, node.port, False
                peer.known_disk = node.disk
        own = members.get(cluster.node)
        if own is not None:
            self._judge_self(own)

    def _judge_self(self, own: NodeRecord) -> None:
        """A copy of the list that leads to here may well have been made without this node."""
        cluster = self._cluster
        if own.disk and cluster.head.disk != own.disk:
            cluster.dismissed = (WIPED_CODE, wiped(own.name))

    def expire(self) -> None:
        """Forget guests that are silent."""
        cluster = self._cluster
        for name, guest in list(self._guests.items()):
            if cluster.now_ms - guest.heard_ms > STRANGER_MS:
                del self._guests[name]
                cluster.peers.pop(name, None)

    def endpoints(self) -> dict[str, tuple[str, int]]:
        """(host, port) of everybody there may be something to send to.

        Who is not heard is tried in turn at the address in the list and at the one in this
        node's settings: a cluster may have moved while all of it was down.
        """
        cluster = self._cluster
        settings_turn = cluster.now_ms // ADDRESS_MS % 2 == 1
        endpoints = {}
        for peer in cluster.peers.values():
            place = (peer.host, peer.port)
            if settings_turn and not cluster.is_heard(peer):
                place = self._in_settings.get(peer.node, place)
            if all(place):
                endpoints[peer.node] = place
        return endpoints

    # --- frames ---------------------------------------------------------------------------

    def admit(self, frame: PeerFrame) -> Peer | None:
        """The peer whose frame this is; None when it is to be dropped."""
        cluster, name = self._cluster, frame.sender
        if frame.cluster != cluster.id or name == cluster.node:
            self._refuse(name, "it is not of this cluster")
            return None
        if frame.target and frame.target != cluster.node:
            self._refuse(name, f"it is for node '{frame.target}', which was here before")
            return None
        if frame.target_disk and frame.target_disk != cluster.head.disk:
            # Before anything of it is heeded: others count on what was on the lost disk.
            cluster.dismissed = (WIPED_CODE, wiped(cluster.node))
            return None
        record = cluster.members.get(name)
        if record is not None and record.state is NodeState.REMOVED:
            self._refuse(name, "it was removed")
            self._dismiss(self._guest(frame), REMOVED_CODE, removed(name), frame.disk)
            return None
        peer = cluster.peers.get(name)
        if peer is None:
            peer = self._guest(frame)
            if peer is None:
                self._refuse(name, "it is not in the list of nodes")
                return None
        known = record.disk if record is not None else b""
        if (known or peer.disk) and frame.disk != (known or peer.disk):
            self._refuse(name, "its disk is not the one that is known of it")
            self._dismiss(peer, WIPED_CODE, wiped(name), frame.disk)
            return None
        self._refused.discard(name)
        peer.disk, peer.endpoint = frame.disk, frame.endpoint
        peer.trusted = not peer.guest and (bool(known) or record is None or record.founder)
        return peer

    def _guest(self, frame: PeerFrame) -> Peer | None:
        """A peer for somebody who is not listed, at the address that he names."""
        cluster, name = self._cluster, frame.sender
        host, _, port = frame.endpoint.rpartition(":")
        guest = self._guests.get(name)
        if guest is None:
            full = name not in self._known and len(self._known) >= KNOWN_MAX
            if full or not host or not port.isdecimal():
                return None
            guest = self._guests[name] = cluster.peers[name] = self._peer(name)
            guest.guest = True
            cluster.names[guest.raft_id] = name
            guest.host, guest.port = host, int(port)
        guest.heard_ms = cluster.now_ms
        return guest

    def _peer(self, name: str) -> Peer:
        peer = self._known.get(name)
        if peer is None:
            peer = self._known[name] = Peer(name, raft_id(name))
        return peer

    def _refuse(self, name: str, why: str) -> None:
        self._cluster.counters.malformed_frames += 1
        if name not in self._refused and len(self._refused) < STRANGERS_MAX:
            self._refused.add(name)
            self._cluster.log(f"drops the frames of node '{name}': {why}")

    def _dismiss(self, peer: Peer | None, code: int, text: str, disk: bytes) -> None:
        if peer is None:
            return
        peer.trusted = False
        if self._cluster.now_ms - peer.told_ms >= DISMISS_MS:
            peer.told_ms = self._cluster.now_ms
            peer.records.append(Dismissed(code, text, disk))

    def answer(self, ask: JoinAsk, charter: Charter) -> JoinAnswer:
        """Whether a node of this name may join."""
        cluster, name = self._cluster, ask.node
        record = cluster.members.get(name)
        if not cluster.serving():
            return JoinAnswer(f"node {cluster.node} hears no leader of shard 0; it will")
        if record is None:
            return JoinAnswer(
                f"node {name} is not in the list of nodes: say `raftmq cluster add {name} "
                f"HOST:PEERPORT` with the address at which the others reach it"
            )
        if record.state in (NodeState.REMOVED, NodeState.LEAVING):
            return JoinAnswer(removed(name), final=True)
        if record.disk:
            return JoinAnswer(wiped(name), final=True)
        nodes = tuple((node.name, node.host, node.port) for node in cluster.listed())
        return JoinAnswer(charter=msgspec.structs.replace(charter, nodes=nodes))

    # --- what the leader of shard 0 writes into the list ----------------------------------

    def register(self) -> None:
        """Found the list where there is none; note down disks and addresses."""
        cluster = self._cluster
        if not cluster.shard_zero.in_service:
            return
        if not cluster.members.version:
            nodes = tuple(
                (peer.id, peer.host, peer.peer_port) for peer in cluster.config.cluster_nodes
            )
            cluster.submit(TOPOLOGY, encode(ClusterFound(nodes)))
            return
        for node in cluster.members.present:
            if node.name == cluster.node:
                self._note(node, cluster.head.disk, cluster.head.endpoint)
                continue
            peer = cluster.peers.get(node.name)
            if peer is not None and peer.disk and cluster.is_heard(peer):
                self._note(node, peer.disk, peer.endpoint)

    def _note(self, node: NodeRecord, disk: bytes, endpoint: str) -> None:
        host, _, port = endpoint.rpartition(":")
        moved = bool(host) and port.isdecimal() and (host, int(port)) != (node.host, node.port)
        if disk and ((node.disk == disk and moved) or not node.disk):
            number = int(port) if port.isdecimal() else 0
            self._cluster.submit(TOPOLOGY, encode(NodeSeen(node.name, disk, host, number)))


def removed(name: str) -> str:
    """What a node is told that was removed."""
    return (
        f"node {name} was removed from the cluster: its data directory may be deleted. "
        f"To have this machine in the cluster again, add it under a name that was never used."
    )


def wiped(name: str) -> str:
    """What a node is told whose disk is not the known one."""
    return (
        f"the data directory of node {name} is not the one that the cluster knows of it, so its "
        f"votes and acknowledgements are worth nothing. Start it with its own directory; if that "
        f"is lost, say `raftmq cluster remove {name}`, then add this machine under a name that "
        f"was never used, and start it with --join and an empty directory"
    )
