"""How much the machines hold at most. The same on every replica, or they would part ways."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """At a limit the operation that would exceed it is refused with 506, unless said otherwise."""

    queues_max: int = 100_000  #: of the cluster, in all virtual hosts
    exchanges_max: int = 10_000  #: declared ones, in all virtual hosts
    bindings_max: int = 500_000  #: in all virtual hosts
    sessions_max: int = 50_000  #: open at a time, in the cluster
    consumers_per_session_max: int = 10_000  #: of one session, per shard
    window_max: int = 65_535  #: messages; a larger window counts as this one
    ready_per_queue_max: int = 50_000_000  #: messages waiting in one queue
    remembered_per_session_max: int = 1 << 20  #: operations at or above the floor, per shard
    name_bytes_max: int = 255  #: of queues, exchanges and routing keys, in UTF-8 (then 502)
