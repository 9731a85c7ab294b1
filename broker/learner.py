"""What every node learns from shard 0 by applying it, whoever leads."""

from __future__ import annotations

from broker.batch import command_id
from broker.cluster import Cluster
from broker.expiry import Expiry
from broker.limiter import Limiter
from broker.machines import effects as fx
from broker.machines.commands import QueueDeclare, SetLimits
from broker.queues import Queues
from broker.reception import Reception
from broker.shard import Applied


class Learner:
    """Tells the parts that keep homes and queues of each entry."""

    def __init__(
        self,
        cluster: Cluster,
        reception: Reception,
        queues: Queues,
        expiry: Expiry,
        limiter: Limiter,
    ) -> None:
        self._topology = cluster.topology
        self._reception, self._queues, self._expiry = reception, queues, expiry
        self._limiter = limiter

    def learn(self, applied: Applied) -> None:
        """An entry of shard 0."""
        for effect in applied.effects:
            self._learn(effect)
        for offset, command in enumerate(applied.commands):
            if isinstance(command, QueueDeclare):
                record = self._topology.queue_by_id(command_id(applied.index, offset))
                if record is not None:
                    self._queues.create(record)
            elif isinstance(command, SetLimits):
                self._limiter.run()

    def restored(self) -> None:
        """Shard 0 is as a checkpoint says: what entries would have told is found by looking."""
        self._expiry.forget_all()
        self._reception.look_again()
        self._queues.look_again()
        self._limiter.run()

    def _learn(self, effect: fx.Effect) -> None:
        match effect:
            case fx.SessionMoved(session=session):
                self._expiry.forget(session)
                self._reception.moved(effect)
            case fx.SessionRefused():
                self._reception.refused(effect)
            case fx.SessionGone(session=session, reason=reason):
                self._expiry.forget(session)
                self._reception.gone(session, reason)
                self._queues.session_gone(session)
            case fx.QueueGone(queue=queue, shard=number):
                self._queues.gone(queue, number)
            case _:
                pass
