"""What an entry did, told to those concerned: deliveries, confirms, replies.

A session's answers go to its home: here, or with the next frame to the peer where it is.
"""

from __future__ import annotations

from collections.abc import Callable

from broker.cluster import Cluster
from broker.homes import Homes
from broker.machines import effects as fx
from broker.machines.commands import AnyCommand, Enqueue, Outcome, Settle
from broker.operations import Operations
from broker.peer_protocol import Again, Done, No, Value
from broker.peers import Peer
from broker.protocol import (
    VOLATILE_SHARD,
    AnyAnswer,
    Cancelled,
    Delivery,
    Fetched,
    encode_answer,
)
from broker.shard import Applied
from broker.unused import Unused


class Courier:
    """Carries out effects of the shards that this node leads and of its memory-only queues."""

    def __init__(
        self, cluster: Cluster, homes: Homes, operations: Operations, unused: Unused
    ) -> None:
        # Some are the cluster's: each message passes here, so a look-up counts.
        self._node, self._peers = cluster.node, cluster.peers
        self._registry, self._counters = cluster.registry, cluster.counters
        self._homes, self._operations, self._unused = homes, operations, unused

    def carry_out(
        self, shard: int, term: int, applied: Applied, message: Callable[[int], Enqueue]
    ) -> None:
        """Tell the clients what an entry did to their operations and queues."""
        registry, index, counters = self._registry, applied.index, self._counters
        for effect in applied.effects:
            if type(effect) is fx.Confirm:
                self._tell_done(shard, index, effect.session, effect.seq)
            elif type(effect) is fx.Deliver:
                counters.delivered += 1
                if effect.count > 1:
                    counters.redelivered += 1
                if registry.get(effect.session) is None:
                    continue
                enqueue = message(effect.id)
                answer: AnyAnswer = Delivery(
                    shard,
                    term,
                    effect.consumer,
                    effect.queue,
                    effect.id,
                    effect.count,
                    enqueue.exchange,
                    enqueue.routing_key,
                    enqueue.priority,
                    enqueue.payload,
                )
                self._relay(effect.session, answer)
            else:
                self._carry_out_rare(shard, index, effect, message)
        self._count(applied.commands)

    def _count(self, commands: list[AnyCommand]) -> None:
        counters = self._counters
        for command in commands:
            if type(command) is Settle:
                match command.outcome:
                    case Outcome.ACK:
                        counters.acked += len(command.ids)
                    case Outcome.DROP:
                        counters.dropped += len(command.ids)
                    case Outcome.REQUEUE:
                        counters.requeued += len(command.ids)
                    case _:
                        pass
            elif type(command) is Enqueue:
                counters.published += 1

    def _carry_out_rare(
        self, shard: int, index: int, effect: fx.Effect, message: Callable[[int], Enqueue]
    ) -> None:
        match effect:
            case fx.Reply(session=session, seq=seq, value=value):
                self._tell_result(session, seq, Value(shard, index, session, seq, value))
            case fx.Refuse(session=session, seq=seq, code=code, text=text):
                self._tell_result(session, seq, No(shard, index, session, seq, code, text))
            case fx.Fetched(session=session):
                self._relay(session, _fetched(shard, effect, message(effect.id)))
            case fx.Misrouted(session=session, seq=seq):
                peer = self._peer_of(session)
                if peer is None:
                    self._operations.misrouted(session)
                else:
                    peer.records.append(Again(shard, session, seq))
            case fx.Cancelled(session=session, consumer=consumer):
                self._relay(session, Cancelled(consumer))
            case fx.Unused(queue=queue):
                self._unused.remove(queue)
            case _:
                pass  # of the topology: every node has learned it already

    def _peer_of(self, session: int) -> Peer | None:
        record = self._registry.get(session)
        return self._peers.get(record.node) if record is not None else None

    def _tell_done(self, shard: int, index: int, session: int, seq: int) -> None:
        record = self._registry.get(session)
        if record is None:
            return
        if record.node != self._node:
            peer = self._peers.get(record.node)
            if peer is not None:
                peer.confirm(shard, index, session, seq)
            return
        home = self._homes.by_session.get(session)
        if home is not None:
            if home.missing or home.sagas:
                place = self._node if shard == VOLATILE_SHARD else shard
                self._operations.answered(home, place, Done(shard, index, []), seq)
            else:
                home.confirms.append(seq)

    def _tell_result(self, session: int, seq: int, result: Value | No) -> None:
        peer = self._peer_of(session)
        if peer is not None:
            peer.records.append(result)
        elif (home := self._homes.by_session.get(session)) is not None:
            place = self._node if result.shard == VOLATILE_SHARD else result.shard
            self._operations.answered(home, place, result, seq)

    def _relay(self, session: int, answer: AnyAnswer) -> None:
        record = self._registry.get(session)
        peer = self._peers.get(record.node) if record is not None else None
        if record is not None and peer is not None:
            peer.relay(session, record.epoch, encode_answer(answer))
        elif (home := self._homes.by_session.get(session)) is not None and home.link is not None:
            home.answers.append(encode_answer(answer))


def _fetched(shard: int, effect: fx.Fetched, command: Enqueue) -> Fetched:
    return Fetched(
        effect.seq,
        shard,
        effect.queue,
        effect.id,
        effect.count,
        effect.ready,
        command.exchange,
        command.routing_key,
        command.priority,
        command.payload,
    )
