"""Where an operation of a client goes: names become places, by this node's copy of the topology.

A place is a shard's number, or the name of the node that keeps a memory-only queue. What the
copy at hand does not know may have been declared elsewhere a moment ago; then the answer is
`STALE`, and the caller looks again after a read of the newest topology (`fresh`).

An operation that takes several steps is a saga: a generator that yields what to send, is sent
each answer, and returns the client's answer. Each step may be repeated: a client repeats what
is not answered, perhaps at another node, and each machine does a (session, seq) only once.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from broker.config import Config
from broker.errors import Code
from broker.machines import commands
from broker.machines.commands import Arguments, QueueFlag, encode
from broker.machines.machine import Machine
from broker.machines.topology import QueueRecord
from broker.peer_protocol import Done, No, Value
from broker.protocol import (
    VOLATILE_SHARD,
    AnyAnswer,
    BindQueue,
    Cancel,
    Confirmed,
    Consume,
    DeclareExchange,
    DeclareQueue,
    DeleteExchange,
    DeleteQueue,
    Get,
    Held,
    Publish,
    PurgeQueue,
    RefusedAnswer,
    Replied,
    SettleMessages,
    SetWindow,
    UnbindQueue,
)

Place: TypeAlias = int | str
TOPOLOGY: Final = 0
"""The shard of topology and sessions."""


class Send(NamedTuple):
    """One command for one place."""

    place: Place
    command: bytes


class Stale(NamedTuple):
    """Ask again with the newest topology."""


STALE: Final = Stale()
NESTING_MAX: Final = 32
"""Of arguments and options. What this node decodes every replica must encode and decode too,
there with another depth of stack: near Python's recursion limit they would part ways."""

Result: TypeAlias = Done | Value | No
Saga: TypeAlias = Generator[Send, Result, AnyAnswer]
Plan: TypeAlias = list[Send] | Saga | AnyAnswer | Stale
Routed: TypeAlias = (
    Publish
    | Consume
    | Cancel
    | SetWindow
    | SettleMessages
    | Held
    | Get
    | DeclareExchange
    | DeleteExchange
    | DeclareQueue
    | DeleteQueue
    | BindQueue
    | UnbindQueue
    | PurgeQueue
)


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks."""

    session: int
    vhost: str
    floor: int
    node: str  #: where the session is at home


class Router:
    """Plans for operations. Holds no state but the machine of shard 0, whose copy it reads."""

    def __init__(self, machine: Machine, limits: Config) -> None:
        self._topology = machine.topology
        self._registry = machine.registry
        self._limits = limits

    def plan(self, caller: Caller, operation: Routed, *, fresh: bool) -> Plan:
        """What to do about an operation. Never raises for what a client can send."""
        if isinstance(operation, Publish):
            return self._publish(caller, operation, fresh)
        fault = self._fault(operation)
        if fault is not None:
            return fault
        session, seq, floor = caller.session, operation.seq, caller.floor
        command: commands.Command
        match operation:
            case SettleMessages(shard=shard, queue=queue, outcome=outcome, ids=ids):
                command = commands.Settle(session, seq, floor, queue, outcome, ids)
                return self._at(caller, operation, shard, command)
            case SetWindow(shard=shard, consumer=consumer, window=window):
                command = commands.Credit(session, seq, floor, consumer, window)
                return self._at(caller, operation, shard, command)
            case Cancel(shard=shard, consumer=consumer):
                command = commands.Unsubscribe(session, seq, floor, consumer)
                return self._at(caller, operation, shard, command)
            case Held(shard=shard, held=held):
                command = commands.Attach(session, seq, floor, held)
                return self._at(caller, operation, shard, command)
            case DeclareExchange():
                command = commands.ExchangeDeclare(
                    session,
                    seq,
                    floor,
                    operation.name,
                    operation.kind,
                    operation.durable,
                    operation.auto_delete,
                    operation.internal,
                    operation.passive,
                    operation.arguments,
                )
            case DeleteExchange():
                command = commands.ExchangeDelete(
                    session, seq, floor, operation.name, operation.if_unused
                )
            case BindQueue(queue=name, exchange=exchange, routing_key=key, arguments=arguments):
                command = commands.Bind(session, seq, floor, name, exchange, key, arguments)
            case UnbindQueue(queue=name, exchange=exchange, routing_key=key, arguments=arguments):
                command = commands.Unbind(session, seq, floor, name, exchange, key, arguments)
            case DeclareQueue():
                return self._declare(caller, operation)
            case _:
                return self._on_queue(caller, operation, fresh)
        return [Send(TOPOLOGY, encode(command))]

    def place(self, record: QueueRecord) -> Place | None:
        """Where a queue is; None: its owner is gone, and the queue with it."""
        if record.shard != VOLATILE_SHARD:
            return record.shard
        owner = self._registry.get(record.owner)
        return owner.node if owner is not None else None

    # --- publishing -----------------------------------------------------------------------

    def _publish(self, caller: Caller, operation: Publish, fresh: bool) -> Plan:
        seq, key, limits = operation.seq, operation.routing_key, self._limits
        if len(operation.payload) > limits.body_bytes_max + limits.header_bytes_max:
            text = f"a message of {len(operation.payload)} bytes; the limit for a body is"
            return RefusedAnswer(
                seq, Code.CONTENT_TOO_LARGE, f"{text} {limits.body_bytes_max} (body_bytes_max)"
            )
        if len(key) + len(operation.exchange) > limits.name_bytes_max // 4:
            fault = self._fault(operation)
            if fault is not None:
                return fault
        if operation.options is not None and _nests_deeper(operation.options, NESTING_MAX):
            text = f"options of a message are nested more than {NESTING_MAX} levels deep"
            return RefusedAnswer(seq, Code.INVALID_ARGUMENT, text)
        if not 0 <= operation.priority <= 9:
            text = f"priority {operation.priority} is not between 0 and 9"
            return RefusedAnswer(seq, Code.INVALID_ARGUMENT, text)
        targets = self._topology.route(caller.vhost, operation.exchange, key)
        if not targets:
            return self._unroutable(caller, operation, targets is not None, fresh)
        by_place: dict[Place, list[int]] = {}
        for shard, queue in targets:
            if shard != VOLATILE_SHARD:
                by_place.setdefault(shard, []).append(queue)
                continue
            record = self._topology.queue_by_id(queue)
            place = self.place(record) if record is not None else None
            if place is not None:
                by_place.setdefault(place, []).append(queue)
        sends = [
            Send(place, self._enqueue(caller, operation, tuple(queues)))
            for place, queues in by_place.items()
        ]
        if sends and len(sends[0].command) - len(operation.payload) > limits.header_bytes_max:
            text = f"options of a message exceed {limits.header_bytes_max} bytes (header_bytes_max)"
            return RefusedAnswer(seq, Code.INVALID_ARGUMENT, text)
        return sends or Confirmed((seq,))

    @staticmethod
    def _enqueue(caller: Caller, operation: Publish, queues: tuple[int, ...]) -> bytes:
        return encode(
            commands.Enqueue(
                caller.session,
                operation.seq,
                caller.floor,
                queues,
                operation.exchange,
                operation.routing_key,
                operation.priority,
                operation.options,
                operation.payload,
            )
        )

    def _unroutable(self, caller: Caller, operation: Publish, exchange: bool, fresh: bool) -> Plan:
        if not fresh:
            return STALE
        seq = operation.seq
        if not exchange:
            text = f"no exchange '{operation.exchange}' in vhost '{caller.vhost}'"
            return RefusedAnswer(seq, Code.NOT_FOUND, text)
        if operation.mandatory:
            text = (
                f"no queue takes routing key '{operation.routing_key}' of exchange "
                f"'{operation.exchange}'; declare and bind one first"
            )
            return RefusedAnswer(seq, Code.NO_ROUTE, text)
        return Confirmed((seq,))

    # --- queues ---------------------------------------------------------------------------

    def _on_queue(
        self, caller: Caller, operation: Consume | Get | PurgeQueue | DeleteQueue, fresh: bool
    ) -> Plan:
        name = operation.queue if isinstance(operation, Consume | Get) else operation.name
        seq, floor, session = operation.seq, caller.floor, caller.session
        record = self._topology.queue_named(caller.vhost, name)
        place = self.place(record) if record is not None else None
        if record is None or place is None:
            if not fresh:
                return STALE
            if isinstance(operation, DeleteQueue):
                return Replied(seq, 0)
            return _no_queue(seq, caller.vhost, name)
        if record.owner and record.owner != session:
            return _locked(seq, name)
        match operation:
            case Consume():
                return [
                    Send(
                        place,
                        encode(
                            commands.Subscribe(
                                session,
                                seq,
                                floor,
                                operation.consumer,
                                record.id,
                                operation.window,
                                operation.exclusive,
                                operation.priority,
                                operation.arguments,
                            )
                        ),
                    )
                ]
            case Get():
                return [Send(place, encode(commands.Fetch(session, seq, floor, record.id)))]
            case PurgeQueue():
                return [Send(place, encode(commands.Purge(session, seq, floor, record.id)))]
            case DeleteQueue():
                drop = commands.QueueDrop(
                    session, seq, floor, record.id, operation.if_unused, operation.if_empty
                )
                remove = commands.QueueRemove(session, seq, floor, record.id)
                return _delete(Send(place, encode(drop)), Send(TOPOLOGY, encode(remove)), seq)

    def _declare(self, caller: Caller, operation: DeclareQueue) -> Saga:
        flags = (
            (QueueFlag.DURABLE if operation.durable else 0)
            | (QueueFlag.EXCLUSIVE if operation.exclusive else 0)
            | (QueueFlag.AUTO_DELETE if operation.auto_delete else 0)
        )
        session, seq, floor = caller.session, operation.seq, caller.floor
        declare = commands.QueueDeclare(
            session,
            seq,
            floor,
            operation.name,
            int(flags),
            operation.passive,
            operation.arguments,
        )
        result = yield Send(TOPOLOGY, encode(declare))
        if isinstance(result, No):
            return RefusedAnswer(seq, result.code, result.text)
        if not isinstance(result, Value):
            return _used_twice(seq)
        record = QueueRecord(*result.value)
        place = self.place(record)
        if place is None:
            return _no_queue(seq, caller.vhost, operation.name)
        counted = yield Send(place, encode(commands.Count(session, seq, floor, record.id)))
        if isinstance(counted, No):
            return RefusedAnswer(seq, counted.code, counted.text)
        match counted:
            case Value(value=(ready, consumers)):
                return Replied(seq, (operation.name, ready, consumers))
        return _used_twice(seq)

    # --- checks ---------------------------------------------------------------------------

    def _at(
        self,
        caller: Caller,
        operation: SettleMessages | SetWindow | Cancel | Held,
        shard: int,
        command: commands.Command,
    ) -> Plan:
        if shard == VOLATILE_SHARD:
            return [Send(caller.node, encode(command))]
        if not 0 <= shard < self._limits.shards:
            text = f"shard {shard} does not exist; there are {self._limits.shards}"
            return RefusedAnswer(operation.seq, Code.INVALID_ARGUMENT, text)
        return [Send(shard, encode(command))]

    def _fault(self, operation: Routed) -> RefusedAnswer | None:
        """The first thing in an operation that is beyond its limit."""
        limits = self._limits
        for field in ("queue", "name", "exchange", "routing_key", "kind"):
            text = getattr(operation, field, None)
            if isinstance(text, str) and len(text.encode()) > limits.name_bytes_max:
                return RefusedAnswer(
                    operation.seq,
                    Code.INVALID_ARGUMENT,
                    f"{field} has {len(text.encode())} bytes; the limit is "
                    f"{limits.name_bytes_max} (name_bytes_max)",
                )
        window = getattr(operation, "window", 0)
        if not 0 <= window <= limits.window_max:
            text = f"window {window} is not between 0 and {limits.window_max} (window_max)"
            return RefusedAnswer(operation.seq, Code.INVALID_ARGUMENT, text)
        arguments: Arguments | None = getattr(operation, "arguments", None)
        if arguments is not None:
            if _nests_deeper(arguments, NESTING_MAX):
                text = f"arguments are nested more than {NESTING_MAX} levels deep"
                return RefusedAnswer(operation.seq, Code.INVALID_ARGUMENT, text)
            size = len(commands.encode_arguments(arguments))
            if size > limits.header_bytes_max:
                return RefusedAnswer(
                    operation.seq,
                    Code.INVALID_ARGUMENT,
                    f"arguments have {size} bytes; the limit is "
                    f"{limits.header_bytes_max} (header_bytes_max)",
                )
        if isinstance(operation, DeclareQueue | DeleteQueue | PurgeQueue) and not operation.name:
            return RefusedAnswer(operation.seq, Code.INVALID_ARGUMENT, "name of a queue is empty")
        return None


def _nests_deeper(value: object, levels: int) -> bool:
    """Whether plain data has containers within containers beyond so many levels."""
    if isinstance(value, dict):
        value = [*value, *value.values()]  # a key may be an array
    if not isinstance(value, list | tuple):
        return False
    return levels == 0 or any(_nests_deeper(inner, levels - 1) for inner in value)


def _delete(drop: Send, remove: Send, seq: int) -> Saga:
    """The content first: what is left after a half-done deletion is an empty queue."""
    dropped = yield drop
    if isinstance(dropped, No):
        return RefusedAnswer(seq, dropped.code, dropped.text)
    removed = yield remove
    if isinstance(removed, No):
        return RefusedAnswer(seq, removed.code, removed.text)
    return Replied(seq, dropped.value if isinstance(dropped, Value) else 0)


def _used_twice(seq: int) -> RefusedAnswer:
    """The shard remembers this seq for something else, and gave the answer to that."""
    return RefusedAnswer(seq, Code.NOT_ALLOWED, f"seq {seq} was used for another operation")


def _no_queue(seq: int, vhost: str, name: str) -> RefusedAnswer:
    return RefusedAnswer(seq, Code.NOT_FOUND, f"no queue '{name}' in vhost '{vhost}'")


def _locked(seq: int, name: str) -> RefusedAnswer:
    text = f"queue '{name}' is exclusive to another connection"
    return RefusedAnswer(seq, Code.RESOURCE_LOCKED, text)
