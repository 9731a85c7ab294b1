"""Clients' questions about the whole cluster, while the other nodes' counts are on their way."""

from __future__ import annotations

from broker.cluster import Cluster
from broker.errors import Code
from broker.homes import Home, Homes
from broker.inspection import Inspection
from broker.overview import Overview
from broker.peer_protocol import Ask
from broker.protocol import Inspect, RefusedAnswer, Replied

INSPECTION_MS = 1000
"""Then the answer is made of what came."""

COUNTS = "counts"


class Inspector:
    """Asks all nodes that are heard, and concludes when all of them have told."""

    def __init__(self, cluster: Cluster, homes: Homes, overview: Overview) -> None:
        self._cluster, self._homes, self._overview = cluster, homes, overview
        self._inspections: dict[int, Inspection] = {}
        self._count = 0

    def inspect(self, home: Home, operation: Inspect) -> None:
        """A client asks."""
        if operation.what not in ("queues", "sessions", "status"):
            text = f"what = '{operation.what}'; choose queues, sessions or status"
            self._cluster.counters.refused += 1
            home.say(RefusedAnswer(operation.seq, Code.INVALID_ARGUMENT, text))
            return
        self._count += 1
        number = self._count
        peers = self._cluster.peers.values()
        heard = [peer for peer in peers if self._cluster.is_heard(peer) and not peer.guest]
        self._inspections[number] = Inspection(
            home.caller.session,
            operation.seq,
            operation.what,
            self._cluster.now_ms,
            {peer.node for peer in heard},
            self._overview.counts(),
        )
        for peer in heard:
            peer.records.append(Ask(number, COUNTS))
        if not heard:
            self._conclude(number)

    def answer(self, what: str) -> object:
        """Another node asks: what this one knows best, nothing for a question it does not know."""
        return self._overview.counts() if what == COUNTS else {}

    def told(self, number: int, node: str, value: object) -> None:
        """Another node's answer."""
        inspection = self._inspections.get(number)
        if inspection is not None and inspection.add(node, value):
            self._conclude(number)

    def expire(self) -> None:
        """Do not wait for ever for nodes that do not answer."""
        for number, inspection in list(self._inspections.items()):
            if self._cluster.now_ms - inspection.asked_ms > INSPECTION_MS:
                self._conclude(number)

    def _conclude(self, number: int) -> None:
        inspection = self._inspections.pop(number)
        home = self._homes.by_session.get(inspection.session)
        if home is not None:
            ids = {(r.vhost, r.name): r.id for r in self._cluster.topology.queues()}
            home.say(Replied(inspection.seq, inspection.report(self._overview.status(), ids)))
