"""Answers that other nodes send for sessions at home here, told in the order of shard 0.

An answer of shard 0 waits until this node has applied what it tells of: what a client does next
must find it.
"""

from __future__ import annotations

from collections import deque

from broker.cluster import Cluster
from broker.homes import Homes
from broker.operations import Operations
from broker.peer_protocol import Done, No, Value
from broker.protocol import VOLATILE_SHARD
from broker.router import TOPOLOGY, Place, Result


class Answers:
    """Gives answers of shards and of memory-only queues' nodes to the operations they are for."""

    def __init__(self, cluster: Cluster, homes: Homes, operations: Operations) -> None:
        self._shard_zero = cluster.shard_zero
        self._homes, self._operations = homes, operations
        self._waiting: deque[tuple[int, int, Result]] = deque()  # (session, seq, answer)

    def done(self, node: str, record: Done) -> None:
        """Operations that have no other answer than that they are done."""
        place = node if record.shard == VOLATILE_SHARD else record.shard
        for session, seqs in record.sessions:
            self._done(place, record, session, seqs)

    def result(self, node: str, record: Value | No) -> None:
        """The answer to one operation."""
        place = node if record.shard == VOLATILE_SHARD else record.shard
        self._answer(place, record.session, record.seq, record)

    def release(self) -> None:
        """Shard 0 has moved on."""
        if self._waiting:
            waiting, self._waiting = self._waiting, deque()
            for session, seq, result in waiting:
                self._answer(TOPOLOGY, session, seq, result)

    def _done(self, place: Place, record: Done, session: int, seqs: list[int]) -> None:
        home = self._homes.by_session.get(session)
        if home is None:
            return
        if place == TOPOLOGY or home.missing or home.sagas:
            for seq in seqs:
                self._answer(place, session, seq, record)
        else:
            home.confirms += seqs

    def _answer(self, place: Place, session: int, seq: int, result: Result) -> None:
        if place == TOPOLOGY and result.index > self._shard_zero.applied:
            self._waiting.append((session, seq, result))
            return
        home = self._homes.by_session.get(session)
        if home is not None:
            self._operations.answered(home, place, result, seq)
