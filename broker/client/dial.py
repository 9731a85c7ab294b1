"""Which node to try next, and when: no sockets, no clock, no chance.

every node once, without delay, those that failed least first
  -> a round is over: wait 50 ms, 100 ms, ... at most 1 s (each with jitter) -> next round
"""

from __future__ import annotations

from dataclasses import dataclass, field

BACKOFF_MIN_MS = 50
BACKOFF_MAX_MS = 1_000


@dataclass(slots=True)
class Dialer:
    """The nodes of a cluster as a client knows them. All times in ms."""

    nodes: list[str]  #: host:port; those of the URL first
    failures: dict[str, int] = field(default_factory=dict)  #: since the node last served us
    _left: list[str] = field(default_factory=list)  #: not tried yet in this round
    _rounds: int = 0

    def learn(self, nodes: list[str]) -> None:
        """What a node says of the cluster; those that the URL names stay."""
        for node in nodes:
            if node not in self.nodes:
                self.nodes.append(node)

    def next(self) -> str:
        """The node to try now."""
        if not self._left:
            self._left = sorted(self.nodes, key=lambda node: self.failures.get(node, 0))
        return self._left.pop(0)

    def failed(self, node: str, chance: float) -> int:
        """This node will not do. Returns how long to wait before the next; chance is in [0, 1)."""
        self.failures[node] = self.failures.get(node, 0) + 1
        if self._left:
            return 0
        backoff = min(BACKOFF_MAX_MS, BACKOFF_MIN_MS << min(self._rounds, 10))
        self._rounds += 1
        return int(backoff * (0.5 + chance / 2))

    def served(self, node: str) -> None:
        """This node took us."""
        self.failures[node] = 0
        self._left = []
        self._rounds = 0

    def lost(self, node: str) -> None:
        """The link to a node that served us is gone: begin with the one after it."""
        place = self.nodes.index(node) + 1 if node in self.nodes else 0
        others = self.nodes[place:] + self.nodes[: max(0, place - 1)]
        self._left = [*sorted(others, key=lambda each: self.failures.get(each, 0)), node]
        self._rounds = 0
