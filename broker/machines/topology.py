"""Exchanges, queues and the bindings between them, of all virtual hosts; lives on shard 0.

    vhost --- exchange name --> Exchange --- routing key --> queue id --+
      |                                                                 |
      +------ queue name -----------------> QueueRecord <---------------+

A virtual host is there as soon as something is declared in it. In each stand the default
exchange "", which leads a routing key to the queue of that name, and amq.direct,
amq.fanout and amq.topic. Names are looked up once; what happens to a queue is by its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import msgspec

from broker.errors import Code
from broker.machines.commands import (
    Arguments,
    Bind,
    ExchangeDeclare,
    ExchangeDelete,
    QueueDeclare,
    QueueFlag,
    Unbind,
)
from broker.machines.exchange import KINDS, Exchange, ExchangeRecord, Target
from broker.machines.limits import Limits

VOLATILE = 0xFFFF
"""The shard of exclusive queues: every node has its own."""

_RESERVED = "amq."
_PREDECLARED = {"": "direct", "amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic"}
_FLAGS = QueueFlag.DURABLE | QueueFlag.EXCLUSIVE | QueueFlag.AUTO_DELETE

Place: TypeAlias = Callable[[str, str], int]
"""(virtual host, queue name) -> shard; the same on every replica and for ever."""


class QueueRecord(msgspec.Struct, frozen=True, array_like=True):
    id: int
    vhost: str
    name: str
    flags: int
    arguments: Arguments | None
    shard: int
    owner: int  #: the session whose exclusive queue it is, or 0


class Refusal(NamedTuple):
    """Why not; nothing has changed."""

    code: int
    text: str


@dataclass(slots=True)
class _Vhost:
    exchanges: dict[str, Exchange]
    queues: dict[str, QueueRecord] = field(default_factory=dict)


class BindingState(msgspec.Struct, frozen=True, array_like=True):
    vhost: str
    exchange: str
    routing_key: str
    queue: int
    arguments: Arguments | None


class TopologyState(msgspec.Struct, frozen=True, array_like=True):
    """The topology as a checkpoint has it; what is predeclared goes without saying."""

    version: int
    exchanges: list[ExchangeRecord]
    queues: list[QueueRecord]
    bindings: list[BindingState]


class Topology:
    """`version` grows with every change that may lead a message elsewhere."""

    def __init__(self, place: Place, shards: int, limits: Limits) -> None:
        self.version = 0
        self._place = place
        self._shards = shards
        self.limits = limits
        self._vhosts: dict[str, _Vhost] = {}
        self._queues: dict[int, QueueRecord] = {}
        self._owned: dict[int, dict[int, None]] = {}  # session -> its exclusive queues
        self._bound: dict[int, dict[tuple[str, str], None]] = {}  # queue -> (exchange, key)
        self._exchange_count = 0
        self._binding_count = 0

    # --- views ----------------------------------------------------------------------------

    def queue_named(self, vhost: str, name: str) -> QueueRecord | None:
        found = self._vhosts.get(vhost)
        return None if found is None else found.queues.get(name)

    def queue_by_id(self, queue: int) -> QueueRecord | None:
        return self._queues.get(queue)

    def queues(self) -> Iterator[QueueRecord]:
        """All queues, oldest first."""
        return iter(self._queues.values())

    def owned_by(self, session: int) -> tuple[QueueRecord, ...]:
        """The exclusive queues of a session."""
        return tuple(self._queues[queue] for queue in self._owned.get(session, ()))

    def exchange(self, vhost: str, name: str) -> ExchangeRecord | None:
        exchange = self._exchange(vhost, name)
        return None if exchange is None else exchange.record

    def exchanges(self, vhost: str) -> list[ExchangeRecord]:
        """The predeclared ones first."""
        found = self._vhosts.get(vhost)
        exchanges = _predeclared(vhost) if found is None else found.exchanges
        return [exchange.record for exchange in exchanges.values()]

    def bindings(self, vhost: str) -> Iterator[BindingState]:
        """All but those that each queue has with the default exchange."""
        found = self._vhosts.get(vhost)
        for name, exchange in found.exchanges.items() if found is not None else ():
            for key, (_, queue), arguments in exchange.all_bindings():
                yield BindingState(vhost, name, key, queue, arguments)

    def vhosts(self) -> list[str]:
        """Those in which something is declared, in order."""
        return sorted(self._vhosts)

    def route(self, vhost: str, exchange: str, routing_key: str) -> tuple[Target, ...] | None:
        """(shard, queue id) of each queue that takes the message; None: no such exchange."""
        if exchange == "":
            record = self.queue_named(vhost, routing_key)
            return () if record is None else ((record.shard, record.id),)
        found = self._exchange(vhost, exchange)
        return None if found is None else found.route(routing_key)

    # --- exchanges ------------------------------------------------------------------------

    def declare_exchange(self, vhost: str, command: ExchangeDeclare) -> Refusal | None:
        name = command.name
        exchange = self._exchange(vhost, name)
        if command.passive:
            return _no_exchange(vhost, name) if exchange is None else None
        if name == "":
            return Refusal(Code.ACCESS_REFUSED, "the default exchange cannot be declared")
        if command.kind not in KINDS:
            text = f"exchange '{name}': there is no kind '{command.kind}', only {', '.join(KINDS)}"
            return Refusal(Code.COMMAND_INVALID, text)
        if exchange is not None:
            return _difference(exchange.record, command)
        if name.startswith(_RESERVED):
            return Refusal(Code.ACCESS_REFUSED, f"names like '{name}' are the broker's own")
        if refusal := self._too_long("exchange name", name):
            return refusal
        if self._exchange_count >= self.limits.exchanges_max:
            return _exhausted("exchanges", self.limits.exchanges_max)
        self._add_exchange(
            ExchangeRecord(
                vhost=vhost,
                name=name,
                kind=command.kind,
                durable=command.durable,
                auto_delete=command.auto_delete,
                internal=command.internal,
                arguments=command.arguments or None,
            )
        )
        self.version += 1
        return None

    def delete_exchange(self, vhost: str, command: ExchangeDelete) -> Refusal | None:
        """One that is not there is as good as deleted."""
        name = command.name
        if name in _PREDECLARED:
            return Refusal(Code.ACCESS_REFUSED, f"the predeclared exchange '{name}' stays")
        exchange = self._exchange(vhost, name)
        if exchange is None:
            return None
        if command.if_unused and exchange.bindings:
            return Refusal(Code.PRECONDITION_FAILED, f"exchange '{name}' has bindings")
        for key, (_, queue), _ in exchange.all_bindings():
            self._bound[queue].pop((name, key), None)  # may stand for several bindings
            self._binding_count -= 1
        self._remove_exchange(exchange)
        self.version += 1
        return None

    # --- queues ---------------------------------------------------------------------------

    def declare_queue(self, vhost: str, command: QueueDeclare, id: int) -> QueueRecord | Refusal:
        name = command.name
        record = self.queue_named(vhost, name)
        if record is not None:
            return self._declare_again(record, command)
        if command.passive:
            return _no_queue(vhost, name)
        if name == "":
            return Refusal(Code.INVALID_ARGUMENT, "a queue must have a name")
        if refusal := self._too_long("queue name", name):
            return refusal
        if len(self._queues) >= self.limits.queues_max:
            return _exhausted("queues", self.limits.queues_max)
        flags = int(command.flags & _FLAGS)
        exclusive = bool(flags & QueueFlag.EXCLUSIVE)
        record = QueueRecord(
            id=id,
            vhost=vhost,
            name=name,
            flags=flags,
            arguments=command.arguments or None,
            shard=VOLATILE if exclusive else self._shard_of(vhost, name),
            owner=command.session if exclusive else 0,
        )
        self._add_queue(record)
        self.version += 1
        return record

    def remove_queue(self, queue: int, session: int) -> QueueRecord | Refusal | None:
        """The queue that was removed, with its bindings; None when there was none.

        session: who asks; 0 is the broker itself, which may remove any.
        """
        record = self._queues.get(queue)
        if record is None:
            return None
        if session and (refusal := _locked(record, session)):
            return refusal
        vhost = self._vhosts[record.vhost]
        for name, key in self._bound.pop(queue):
            exchange = vhost.exchanges[name]
            self._binding_count -= exchange.unbind_all(key, (record.shard, queue))
            self._bindings_gone(exchange)
        del self._queues[queue], vhost.queues[record.name]
        if record.owner:
            owned = self._owned[record.owner]
            del owned[queue]
            if not owned:
                del self._owned[record.owner]
        self._forget_if_empty(record.vhost)
        self.version += 1
        return record

    # --- bindings -------------------------------------------------------------------------

    def bind(self, vhost: str, command: Bind) -> Refusal | None:
        found = self._ends(vhost, command)
        if isinstance(found, Refusal):
            return found
        queue, exchange = found
        if refusal := self._too_long("routing key", command.routing_key):
            return refusal
        if self._binding_count >= self.limits.bindings_max:
            return _exhausted("bindings", self.limits.bindings_max)
        if self._add_binding(exchange, queue, command.routing_key, command.arguments):
            self.version += 1
        return None

    def unbind(self, vhost: str, command: Unbind) -> Refusal | None:
        """A binding that is not there is as good as removed, whatever is missing."""
        found = self._ends(vhost, command)
        if isinstance(found, Refusal):
            return None if found.code == Code.NOT_FOUND else found
        queue, exchange = found
        key, target = command.routing_key, (queue.shard, queue.id)
        if exchange.unbind(key, target, command.arguments):
            self._binding_count -= 1
            if not exchange.binds(key, target):
                del self._bound[queue.id][exchange.record.name, key]
            self._bindings_gone(exchange)
            self.version += 1
        return None

    # --- checkpoints ----------------------------------------------------------------------

    def state(self) -> TopologyState:
        vhosts = [self._vhosts[name] for name in sorted(self._vhosts)]
        return TopologyState(
            version=self.version,
            exchanges=[
                exchange.record
                for vhost in vhosts
                for name, exchange in vhost.exchanges.items()
                if name not in _PREDECLARED
            ],
            queues=list(self._queues.values()),
            bindings=[binding for name in sorted(self._vhosts) for binding in self.bindings(name)],
        )

    def load(self, state: TopologyState) -> None:
        """Be as it was then, whatever is here now."""
        for books in (self._vhosts, self._queues, self._owned, self._bound):
            books.clear()
        self._exchange_count = self._binding_count = 0
        for exchange in state.exchanges:
            self._add_exchange(exchange)
        for queue in state.queues:
            self._add_queue(queue)
        for binding in state.bindings:
            source = self._exchange(binding.vhost, binding.exchange)
            assert source is not None
            target = self._queues[binding.queue]
            self._add_binding(source, target, binding.routing_key, binding.arguments)
        self.version = state.version

    # --- books ----------------------------------------------------------------------------

    def _exchange(self, vhost: str, name: str) -> Exchange | None:
        found = self._vhosts.get(vhost)
        if found is not None:
            return found.exchanges.get(name)
        return _predeclared(vhost).get(name)

    def _vhost(self, name: str) -> _Vhost:
        found = self._vhosts.get(name)
        if found is None:
            found = self._vhosts[name] = _Vhost(_predeclared(name))
        return found

    def _forget_if_empty(self, name: str) -> None:
        """Without queues there are no bindings, so nothing is lost with what is predeclared."""
        vhost = self._vhosts[name]
        if not vhost.queues and len(vhost.exchanges) == len(_PREDECLARED):
            del self._vhosts[name]

    def _add_exchange(self, record: ExchangeRecord) -> None:
        self._vhost(record.vhost).exchanges[record.name] = Exchange(record)
        self._exchange_count += 1

    def _remove_exchange(self, exchange: Exchange) -> None:
        vhost = exchange.record.vhost
        del self._vhosts[vhost].exchanges[exchange.record.name]
        self._exchange_count -= 1
        self._forget_if_empty(vhost)

    def _bindings_gone(self, exchange: Exchange) -> None:
        if exchange.record.auto_delete and not exchange.bindings:
            self._remove_exchange(exchange)

    def _add_queue(self, record: QueueRecord) -> None:
        self._vhost(record.vhost).queues[record.name] = record
        self._queues[record.id] = record
        self._bound[record.id] = {}
        if record.owner:
            self._owned.setdefault(record.owner, {})[record.id] = None

    def _add_binding(
        self, exchange: Exchange, queue: QueueRecord, key: str, arguments: Arguments | None
    ) -> bool:
        """Was it a new one?"""
        if not exchange.bind(key, (queue.shard, queue.id), arguments):
            return False
        self._bound[queue.id][exchange.record.name, key] = None
        self._binding_count += 1
        return True

    def _declare_again(self, record: QueueRecord, command: QueueDeclare) -> QueueRecord | Refusal:
        if refusal := _locked(record, command.session):
            return refusal
        if command.passive:
            return record
        for flag, field_name in _FLAG_NAMES:
            if (record.flags ^ command.flags) & flag:
                has, wants = bool(record.flags & flag), bool(command.flags & flag)
                return _inequivalent("queue", record.name, field_name, has, wants)
        return _other_arguments("queue", record, command) or record

    def _ends(self, vhost: str, command: Bind | Unbind) -> tuple[QueueRecord, Exchange] | Refusal:
        """What a binding connects."""
        if command.exchange == "":
            text = "the bindings of the default exchange are not to be changed"
            return Refusal(Code.ACCESS_REFUSED, text)
        queue = self.queue_named(vhost, command.queue)
        if queue is None:
            return _no_queue(vhost, command.queue)
        if refusal := _locked(queue, command.session):
            return refusal
        exchange = self._exchange(vhost, command.exchange)
        if exchange is None:
            return _no_exchange(vhost, command.exchange)
        return queue, exchange

    def _shard_of(self, vhost: str, name: str) -> int:
        shard = self._place(vhost, name)
        assert 0 <= shard < self._shards
        return shard

    def _too_long(self, what: str, name: str) -> Refusal | None:
        length = len(name.encode())
        if length <= self.limits.name_bytes_max:
            return None
        text = f"the {what} has {length} bytes; {self.limits.name_bytes_max} are allowed"
        return Refusal(Code.INVALID_ARGUMENT, text)


_FLAG_NAMES = (
    (QueueFlag.DURABLE, "durable"),
    (QueueFlag.EXCLUSIVE, "exclusive"),
    (QueueFlag.AUTO_DELETE, "auto_delete"),
)


def _predeclared(vhost: str) -> dict[str, Exchange]:
    return {
        name: Exchange(ExchangeRecord(vhost, name, kind, True, False, False, None))
        for name, kind in _PREDECLARED.items()
    }


def _difference(record: ExchangeRecord, command: ExchangeDeclare) -> Refusal | None:
    """Declaring again what is there is no change, declaring it otherwise a mistake."""
    for name, has, wants in (
        ("kind", record.kind, command.kind),
        ("durable", record.durable, command.durable),
        ("auto_delete", record.auto_delete, command.auto_delete),
        ("internal", record.internal, command.internal),
    ):
        if has != wants:
            return _inequivalent("exchange", record.name, name, has, wants)
    return _other_arguments("exchange", record, command)


# A refusal's text is remembered, so it must be the same on every replica: no repr, which may
# name addresses, and changes with the Python that prints it.


def _inequivalent(
    what: str, name: str, field_name: str, has: str | bool, wants: str | bool
) -> Refusal:
    text = f"{what} '{name}' exists with {field_name} {has}, and {wants} was asked for"
    return Refusal(Code.PRECONDITION_FAILED, text)


def _other_arguments(
    what: str, record: ExchangeRecord | QueueRecord, command: ExchangeDeclare | QueueDeclare
) -> Refusal | None:
    has, wants = record.arguments or {}, command.arguments or {}
    other = [key for key in (*has, *wants) if key not in has or key not in wants]
    other += [key for key in has if key in wants and has[key] != wants[key]]
    if not other:
        return None
    text = f"{what} '{record.name}' exists with other arguments: '{other[0]}' differs"
    return Refusal(Code.PRECONDITION_FAILED, text)


def _locked(record: QueueRecord, session: int) -> Refusal | None:
    if record.owner in (0, session):
        return None
    text = f"queue '{record.name}' is exclusive to another session"
    return Refusal(Code.RESOURCE_LOCKED, text)


def _no_queue(vhost: str, name: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, f"there is no queue '{name}' in virtual host '{vhost}'")


def _no_exchange(vhost: str, name: str) -> Refusal:
    return Refusal(Code.NOT_FOUND, f"there is no exchange '{name}' in virtual host '{vhost}'")


def _exhausted(what: str, limit: int) -> Refusal:
    return Refusal(Code.RESOURCE_EXHAUSTED, f"there are {limit} {what}, which is the limit")
