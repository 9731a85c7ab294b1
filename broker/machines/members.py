"""The nodes of the cluster, one change after the other; lives on shard 0.

           add              promote                remove
    (new) -----> JOINING ------------> MEMBER ---------------> LEAVING ---settled---> REMOVED
                    |     disk known   (founders begin here)     ^
                    +-------------------- remove ----------------+

`version` counts the changes. All groups of Raft follow the newest version, and `settled` is
the version that they have all reached: until then the next change waits. Only a removal may
come before, or a node that dies while it joins could never be got rid of. A name is never
used again: what a node has voted hangs on it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum

import msgspec

from broker.machines.commands import (
    ClusterFound,
    ClusterSettle,
    NodeAdd,
    NodePromote,
    NodeRemove,
    NodeSeen,
)

NODES_MAX = 64
"""Of a cluster, those that were removed not counted. The same on every replica, for ever."""


class NodeState(str, Enum):
    """What a node is to the cluster."""

    JOINING = "joining"  #: has a copy of shard 0, and no vote
    MEMBER = "member"  #: votes on shard 0, and takes its share of the others
    LEAVING = "leaving"  #: gives away what it has
    REMOVED = "removed"  #: and never comes back under this name


class NodeRecord(msgspec.Struct, frozen=True, array_like=True):
    name: str
    host: str
    port: int  #: for peers
    state: NodeState
    disk: bytes = b""  #: of its first contact; b"": there was none yet
    founder: bool = False
    changed: int = 0  #: the version with which it got into its state


class MembersState(msgspec.Struct, frozen=True, array_like=True):
    """The list as a checkpoint has it."""

    version: int = 0
    settled: int = 0
    nodes: list[NodeRecord] = []


class Members:
    """The list. A command that does not fit it any more changes nothing."""

    def __init__(self) -> None:
        self.version = 0  #: 0: not founded yet
        self.settled = 0
        self.revision = 0  #: of this object: grows whenever anything about it changes
        self._nodes: dict[str, NodeRecord] = {}

    # --- views ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[NodeRecord]:
        """All nodes there have ever been, oldest first."""
        return iter(self._nodes.values())

    def get(self, name: str) -> NodeRecord | None:
        return self._nodes.get(name)

    def in_state(self, *states: NodeState) -> list[NodeRecord]:
        """The nodes in one of these states, oldest first."""
        return [node for node in self._nodes.values() if node.state in states]

    @property
    def present(self) -> list[NodeRecord]:
        """All that are not removed."""
        return [node for node in self._nodes.values() if node.state is not NodeState.REMOVED]

    def is_settled(self) -> bool:
        """Whether all groups are where the newest version wants them."""
        return self.settled == self.version

    # --- commands -------------------------------------------------------------------------

    def found(self, command: ClusterFound) -> None:
        """The nodes with which the cluster begins, once."""
        if self.version:
            return
        for name, host, port in command.nodes:
            self._nodes[name] = NodeRecord(
                name, host, port, NodeState.MEMBER, founder=True, changed=1
            )
        self._next()

    def add(self, command: NodeAdd) -> None:
        if (
            command.version == self.version
            and self.is_settled()
            and command.name not in self._nodes
            and len(self.present) < NODES_MAX
        ):
            self._nodes[command.name] = NodeRecord(
                command.name,
                command.host,
                command.port,
                NodeState.JOINING,
                changed=self.version + 1,
            )
            self._next()

    def promote(self, command: NodePromote) -> None:
        node = self._nodes.get(command.name)
        if (
            command.version == self.version
            and self.is_settled()
            and node is not None
            and node.state is NodeState.JOINING
            and node.disk
        ):
            self._turn(node, NodeState.MEMBER)

    def remove(self, command: NodeRemove) -> None:
        node = self._nodes.get(command.name)
        if command.version != self.version or node is None:
            return
        others = [other for other in self.in_state(NodeState.MEMBER) if other is not node]
        if node.state in (NodeState.JOINING, NodeState.MEMBER) and others:
            self._turn(node, NodeState.LEAVING)

    def seen(self, command: NodeSeen) -> None:
        """First contact fixes the disk; the address is that of the last one with this disk."""
        node = self._nodes.get(command.name)
        if node is None or node.state is NodeState.REMOVED or not command.disk:
            return
        if node.disk not in (b"", command.disk):
            return
        self._nodes[node.name] = msgspec.structs.replace(
            node,
            disk=command.disk,
            host=command.host or node.host,
            port=command.port or node.port,
        )
        self.revision += 1

    def settle(self, command: ClusterSettle) -> None:
        """All groups have reached this version; who was leaving has nothing any more."""
        if command.version != self.version:
            return
        self.settled = self.version
        for node in self.in_state(NodeState.LEAVING):
            self._nodes[node.name] = msgspec.structs.replace(node, state=NodeState.REMOVED)
        self.revision += 1

    # --- checkpoints ----------------------------------------------------------------------

    def state(self) -> MembersState:
        return MembersState(self.version, self.settled, list(self._nodes.values()))

    def load(self, state: MembersState) -> None:
        """Be as it was then, whatever is here now."""
        self.version, self.settled = state.version, state.settled
        self._fill(state.nodes)
        self.revision += 1

    # --- books ----------------------------------------------------------------------------

    def _fill(self, nodes: Iterable[NodeRecord]) -> None:
        self._nodes = {node.name: node for node in nodes}

    def _turn(self, node: NodeRecord, state: NodeState) -> None:
        self._nodes[node.name] = msgspec.structs.replace(
            node, state=state, changed=self.version + 1
        )
        self._next()

    def _next(self) -> None:
        self.version += 1
        self.revision += 1
