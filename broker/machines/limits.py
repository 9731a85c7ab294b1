"""How much the machines hold at most: replicated state, or replicas would part ways.

    founding    a node's own settings, until the log says something: nothing is decided by them
                in a log of this version, for `SetLimits` stands before all that they would limit
    law         what `SetLimits` made of them, the same on every replica; in force from its
                entry on, and part of a checkpoint

Shard 0's leader writes the law once, from its settings; an operator changes it there. Each
other shard has it in its own log, from its leader, by shard 0's.
"""

from __future__ import annotations

from collections.abc import Mapping

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


LIMIT_MAX = (1 << 53) - 1
"""Of any limit: what JSON carries exactly."""


def limits_fault(changes: Mapping[str, int]) -> str:
    """What is wrong with these new values; "" for nothing."""
    for name, value in changes.items():
        if name not in Limits.__struct_fields__:
            return f"there is no limit {name!r}, only {', '.join(Limits.__struct_fields__)}"
        if not 1 <= value <= LIMIT_MAX:
            return f"{name} {value} is not between 1 and {LIMIT_MAX}"
    return ""


def with_changes(limits: Limits, changes: Mapping[str, int]) -> Limits:
    """The limits with new values; a name or value that is none changes nothing."""
    known = {name: value for name, value in changes.items() if not limits_fault({name: value})}
    return msgspec.structs.replace(limits, **known)


def values_of(limits: Limits) -> dict[str, int]:
    """Every limit by its name."""
    return {name: getattr(limits, name) for name in Limits.__struct_fields__}
