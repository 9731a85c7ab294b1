"""A question about the whole cluster: one node's status, with counts from those who know best."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec

from broker.machines.commands import QueueFlag
from broker.machines.registry import SessionRecord
from broker.machines.topology import QueueRecord
from broker.status import NodeStatus, QueueStatus, SessionStatus

Counts: TypeAlias = tuple[int, int, int]
"""Of a queue: (ready, checked out, consumers)."""


def session_status(record: SessionRecord, connected: bool) -> SessionStatus:
    """A session, without its secret."""
    return SessionStatus(
        id=record.id,
        vhost=record.vhost,
        user=record.user,
        node=record.node,
        epoch=record.epoch,
        client=record.client,
        connected=connected,
    )


def queue_status(record: QueueRecord, counts: Counts) -> QueueStatus:
    """A queue with its counts."""
    ready, checked_out, consumers = counts
    return QueueStatus(
        vhost=record.vhost,
        name=record.name,
        shard=record.shard,
        durable=bool(record.flags & QueueFlag.DURABLE),
        exclusive=bool(record.flags & QueueFlag.EXCLUSIVE),
        auto_delete=bool(record.flags & QueueFlag.AUTO_DELETE),
        ready=ready,
        checked_out=checked_out,
        consumers=consumers,
    )


@dataclass(slots=True)
class Inspection:
    """An `Inspect` operation that waits for what the other nodes know."""

    session: int
    seq: int
    what: str
    asked_ms: int
    missing: set[str]
    counts: dict[int, Counts]

    def add(self, node: str, value: object) -> bool:
        """A node's counts; True when none is missing any more."""
        self.missing.discard(node)
        with suppress(msgspec.ValidationError):  # of another version: it counts as silent
            self.counts.update(msgspec.convert(value, dict[int, tuple[int, int, int]]))
        return not self.missing

    def report(self, status: NodeStatus, ids: dict[tuple[str, str], int]) -> Any:
        """Plain data: `status` with the best counts, or the asked part of it."""
        queues = []
        for queue in status.queues:
            counts = self.counts.get(ids.get((queue.vhost, queue.name), 0))
            if counts is not None:
                ready, checked_out, consumers = counts
                queue = msgspec.structs.replace(
                    queue, ready=ready, checked_out=checked_out, consumers=consumers
                )
            queues.append(queue)
        status = msgspec.structs.replace(status, queues=queues)
        plain = msgspec.to_builtins(status)
        return plain if self.what == "status" else plain[self.what]
