"""What a node does by the clock alone: signs of life, questions asked again, looking after."""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.auditor import Auditor
from broker.cluster import Cluster
from broker.expiry import Expiry
from broker.homes import Homes
from broker.inspector import Inspector
from broker.leadership import Leadership
from broker.limiter import Limiter
from broker.mover import Mover
from broker.operations import Operations
from broker.protocol import Beat, encode_answer
from broker.queues import Queues
from broker.reception import Reception
from broker.silence import Silence
from broker.unused import Unused

LEADS_MS = 500
"""How often a node tells its peers which shards it leads: also its sign of life."""

HELLO_AGAIN_MS = 300
MOVE_MS = 200
UPKEEP_MS = 1000


@dataclass(slots=True)
class Upkeep:
    """The parts that have something to do now and then, and when each is due."""

    cluster: Cluster
    homes: Homes
    reception: Reception
    operations: Operations
    leadership: Leadership
    queues: Queues
    unused: Unused
    expiry: Expiry
    inspector: Inspector
    silence: Silence
    limiter: Limiter
    auditor: Auditor
    mover: Mover
    _due: dict[str, int] = field(default_factory=dict)

    def tick(self) -> None:
        """Do what is due."""
        self.auditor.propose()
        if self._is_due("hello", HELLO_AGAIN_MS):
            self.reception.ask_again()
            self.operations.ask_again()
        if self._is_due("move", MOVE_MS):
            self.mover.run()
        if self._is_due("leads", LEADS_MS):
            self.leadership.announce()
        if self._is_due("beat", self.cluster.config.beat_ms):
            self._beat()
        if self._is_due("upkeep", UPKEEP_MS):
            self._look_after()

    def _is_due(self, what: str, every_ms: int) -> bool:
        now_ms = self.cluster.now_ms
        if now_ms < self._due.get(what, 0):
            return False
        self._due[what] = now_ms + every_ms
        return True

    def _beat(self) -> None:
        beat = encode_answer(Beat(self.cluster.serving()))
        for home in self.homes.by_session.values():
            if home.link is not None:
                home.answers.append(beat)

    def _look_after(self) -> None:
        """Once in a while: what events may have missed is found by looking."""
        self.silence.tell()
        self.limiter.run()
        for shard in self.cluster.shards.values():
            if shard.in_service:
                self.queues.reconcile(shard)
        self.unused.remove_all()
        self.queues.reconcile_volatile()
        self.expiry.run()
        self.leadership.balance()
        self.inspector.expire()
