"""Who leads which shard, as the nodes tell; a new leader, or a lost frame of one, is a resync."""

from __future__ import annotations

from broker.homes import Homes
from broker.protocol import Resync, encode_answer


class Leaders:
    """The newest leader in service of each shard, this node's own among them."""

    def __init__(self, homes: Homes) -> None:
        self._homes = homes
        self._terms: dict[int, tuple[int, str]] = {}  # shard -> (term, node), in service

    def __contains__(self, shard: int) -> bool:
        return shard in self._terms

    def node_of(self, shard: int) -> str:
        """The node that leads; "" when none is known."""
        return self._terms.get(shard, (0, ""))[1]

    def term_of(self, shard: int) -> int:
        """The term it leads in; 0 when none is known."""
        return self._terms.get(shard, (0, ""))[0]

    def lead(self, shard: int, term: int, node: str) -> None:
        """`node` leads and serves a shard."""
        if term > self.term_of(shard):
            self._terms[shard] = (term, node)
            self._resync(shard, term)

    def resync_led_by(self, node: str) -> None:
        """Something of this node was lost: clients go over all that it leads."""
        for shard, (term, leader) in self._terms.items():
            if leader == node:
                self._resync(shard, term)

    def _resync(self, shard: int, term: int) -> None:
        resync = encode_answer(Resync(shard, term))
        for home in self._homes.by_session.values():
            home.answers.append(resync)
