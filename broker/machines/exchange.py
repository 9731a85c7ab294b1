"""One exchange: its bindings, and the queues to which they lead a routing key.

Bindings are kept by routing key (for a topic exchange: by pattern), then queue, then
arguments, so that a direct exchange finds its queues without looking at the others. Routes
are remembered until a binding changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TypeAlias

import msgspec

from broker.machines.commands import Arguments
from broker.machines.topics import Words, matches, words_of

KINDS = ("direct", "fanout", "topic")
Target: TypeAlias = tuple[int, int]
"""A queue and where to find it: (shard, queue id)."""

ROUTES_MAX = 4096  #: remembered routes of one exchange; at the limit all are forgotten


class ExchangeRecord(msgspec.Struct, frozen=True, array_like=True):
    vhost: str
    name: str
    kind: str  #: one of KINDS
    durable: bool
    auto_delete: bool
    internal: bool
    arguments: Arguments | None


@dataclass(slots=True)
class Exchange:
    record: ExchangeRecord
    bindings: dict[str, dict[Target, dict[bytes, Arguments | None]]] = field(default_factory=dict)
    """Routing key -> queue -> encoded arguments -> arguments. No level is ever empty."""
    patterns: dict[str, Words] = field(default_factory=dict)  #: of a topic exchange
    routes: dict[str, tuple[Target, ...]] = field(default_factory=dict)

    def bind(self, key: str, queue: Target, arguments: Arguments | None) -> bool:
        """Was it a new binding?"""
        found = self.bindings.setdefault(key, {}).setdefault(queue, {})
        tag = _tag(arguments)
        if tag in found:
            return False
        found[tag] = arguments
        if self.record.kind == "topic":
            self.patterns[key] = words_of(key)
        self.routes.clear()
        return True

    def unbind(self, key: str, queue: Target, arguments: Arguments | None) -> bool:
        """Was there such a binding?"""
        found = self.bindings.get(key, {}).get(queue, {})
        tag = _tag(arguments)
        if tag not in found:
            return False
        del found[tag]
        if not found:
            self.unbind_all(key, queue)
        self.routes.clear()
        return True

    def unbind_all(self, key: str, queue: Target) -> int:
        """Remove the bindings of a queue by this key, and say how many there were."""
        queues = self.bindings[key]
        count = len(queues.pop(queue))
        if not queues:
            del self.bindings[key]
            self.patterns.pop(key, None)
        self.routes.clear()
        return count

    def binds(self, key: str, queue: Target) -> bool:
        return queue in self.bindings.get(key, {})

    def all_bindings(self) -> Iterator[tuple[str, Target, Arguments | None]]:
        """(routing key, queue, arguments) of each."""
        for key, queues in self.bindings.items():
            for queue, found in queues.items():
                for arguments in found.values():
                    yield key, queue, arguments

    def route(self, key: str) -> tuple[Target, ...]:
        """The queues for this routing key, each once, in the order of their bindings."""
        route = self.routes.get(key)
        if route is None:
            if len(self.routes) >= ROUTES_MAX:
                self.routes.clear()
            route = self.routes[key] = tuple(self._find(key))
        return route

    def _find(self, key: str) -> dict[Target, None]:
        match self.record.kind:
            case "direct":
                return dict.fromkeys(self.bindings.get(key, {}))
            case "fanout":
                chosen = list(self.bindings)
            case _:
                words = words_of(key)
                chosen = [name for name, parts in self.patterns.items() if matches(parts, words)]
        return {queue: None for name in chosen for queue in self.bindings[name]}


def _tag(arguments: Arguments | None) -> bytes:
    """Arguments as a key: the same bytes for the same ones, in whatever order they came."""
    # Deeper levels keep their order: their keys need not be strings, nor comparable.
    return (
        msgspec.msgpack.encode(sorted(arguments.items(), key=itemgetter(0))) if arguments else b""
    )
