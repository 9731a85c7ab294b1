"""A shard's machine: what each committed entry does to it, and what that asks of the outside.

    entry (index, now_ms, commands)
        -> queues, and each session's operations and consumers    on every shard
        -> topology, registry and the cluster's nodes             on shard 0
        -> effects, in order

The same entries give the same state and the same effects on every replica: the machine
knows no clock, no chance and no order but that of the log. An operation of a session goes

    done before?       the remembered answer again, or silence below the floor
    unknown queue?     `Misrouted`, and nothing is done or remembered
    otherwise          done, remembered, answered; deliveries come after the answer

Session 0 is the broker itself: its operations are neither remembered nor answered.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, KeysView
from hashlib import blake2b
from itertools import chain
from typing import Any, NoReturn

import msgspec

from broker.batch import command_id
from broker.errors import Code, FormatTooNew
from broker.machines.commands import (
    AnyCommand,
    Attach,
    Audit,
    Bind,
    ClusterCommand,
    ClusterFound,
    ClusterSettle,
    Count,
    Credit,
    Enqueue,
    ExchangeDeclare,
    ExchangeDelete,
    Fetch,
    NodeAdd,
    NodePromote,
    NodeRemove,
    NodeSeen,
    Outcome,
    Purge,
    QueueCreate,
    QueueDeclare,
    QueueDrop,
    QueueRemove,
    SessionClose,
    SessionDown,
    SessionOpen,
    SessionResume,
    SetLimits,
    Settle,
    Subscribe,
    Tick,
    Unbind,
    Unsubscribe,
)
from broker.machines.consumer import FETCHED, PRIORITY_BITS, Consumer
from broker.machines.effects import (
    Cancelled,
    Confirm,
    Deliver,
    Effect,
    Fetched,
    Misrouted,
    QueueGone,
    Refuse,
    Reply,
    SessionGone,
    TopologyChanged,
    Unused,
)
from broker.machines.limits import Limits, with_changes
from broker.machines.members import Members, MembersState
from broker.machines.queue import PRIORITY_MAX, Queue, QueueState, queue_from, queue_state
from broker.machines.registry import Registry, SessionRecord
from broker.machines.sessions import (
    NEW,
    Answer,
    Session,
    SessionState,
    again,
    session_from,
    session_state,
)
from broker.machines.topology import Place, QueueRecord, Refusal, Topology, TopologyState

FORMAT = 1
HASH_FORMAT = 1
"""Of what `state_hash` covers: to be raised with every change of it, for hashes of different
formats are not compared. Else nodes of two versions would find one another damaged."""

_OUTCOMES = tuple(int(outcome) for outcome in Outcome)

# Every operation of a session but the two hot ones, Enqueue and Settle.
_QueueOperation = Subscribe | Unsubscribe | Credit | Attach | Fetch | Purge | QueueDrop | Count
_TopologyOperation = ExchangeDeclare | ExchangeDelete | QueueDeclare | QueueRemove | Bind | Unbind


class MachineState(msgspec.Struct, frozen=True, array_like=True):
    """All of a machine but the bodies."""

    format: int
    shard: int
    applied: int
    now_ms: int
    queues: list[QueueState]
    sessions: list[SessionState]
    topology: TopologyState
    registry: list[SessionRecord]
    topology_index: int = 0
    limits: Limits | None = None
    limits_index: int = 0
    members: MembersState = MembersState()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(MachineState)


class Machine:
    """The state of one shard. `topology`, `registry` and `members` are empty but on shard 0.

    shards: how many there are; `place` gives one below that for a virtual host and a queue's
    name, the same on every replica; both never change in a cluster's life. `limits` are in
    force until the log sets others.
    """

    def __init__(self, *, shard: int, shards: int, limits: Limits, place: Place) -> None:
        self.shard = shard
        self.applied = 0  #: the highest entry index applied
        self.now_ms = 0  #: entry time, which never goes back
        self.topology_index = 0  #: what a leader must have applied of shard 0 to propose here
        self.limits = limits
        self.limits_index = 0  #: the entry of shard 0 that set them; 0: none has yet
        self.audited = 0  #: the last entry that asked for an `Audit`; no part of the state
        self.topology = Topology(place, shards, limits)
        self.registry = Registry(limits)
        self.members = Members()
        self._founding = limits
        self._queues: dict[int, Queue] = {}
        self._sessions: dict[int, Session] = {}

    def apply(self, index: int, now_ms: int, commands: list[AnyCommand]) -> list[Effect]:
        """Apply one entry: what it asks of the outside, in order. Indexes grow, with gaps."""
        assert index > self.applied, f"entry {index} after entry {self.applied}"
        self.applied = index
        self.now_ms = max(self.now_ms, now_ms)
        effects: list[Effect] = []
        for offset, command in enumerate(commands):
            self._perform(command, command_id(index, offset), effects)
        return effects

    # --- views ----------------------------------------------------------------------------

    @property
    def sessions(self) -> KeysView[int]:
        """The sessions that have something to do with this shard, as it knows."""
        return self._sessions.keys()

    def knows(self, queue: int) -> bool:
        return queue in self._queues

    def queues(self) -> Iterator[int]:
        """The ids of this shard's queues, oldest first."""
        return iter(self._queues)

    def unused_queues(self) -> list[int]:
        """The auto-delete queues that had consumers and have none any more."""
        return [
            queue.id
            for queue in self._queues.values()
            if queue.used and queue.auto_delete and not queue.consumers
        ]

    def counts(self, queue: int) -> tuple[int, int, int]:
        """(ready, checked out, consumers) of a queue; zeros when it is not known."""
        found = self._queues.get(queue)
        if found is None:
            return 0, 0, 0
        return found.ready, len(found.checked_out), len(found.consumers)

    def holds(self, queue: int, id: int) -> bool:
        """Is this message in the queue, ready or checked out?"""
        found = self._queues.get(queue)
        return found is not None and found.holds(id)

    def messages(self, queue: int) -> Iterator[int]:
        """The ids of a queue's messages, ready and checked out, in no particular order."""
        found = self._queues.get(queue)
        return iter(()) if found is None else found.messages()

    def ids_between(self, low: int, high: int) -> array[int]:
        """The ids of [low, high] alive in any queue, ready or checked out: ascending, each once.

        Costs what it returns, and a look at each message that is, or has been, checked out.
        """
        parts: list[array[int]] = []
        for queue in self._queues.values():
            queue.between(low, high, parts)
        if len(parts) == 1:
            return parts[0]
        # One message may be in several queues.
        return array("Q", sorted(set(chain.from_iterable(parts))))

    def count_between(self, low: int, high: int) -> int:
        """How many are alive, cheaper; one that is in several queues counts in each."""
        return sum(queue.count_between(low, high) for queue in self._queues.values())

    def checkouts(self, session: int) -> list[tuple[int, int, int]]:
        """(queue, consumer, message id) of all that a session holds; consumer -1: fetched."""
        found = self._sessions.get(session)
        if found is None:
            return []
        return [(holder.queue, holder.id, id) for holder in _holders(found) for id in holder.held]

    # --- checkpoints ----------------------------------------------------------------------

    def snapshot(self) -> bytes:
        """The state without bodies: the same bytes on every replica at the same index."""
        return _encoder.encode(
            MachineState(
                format=FORMAT,
                shard=self.shard,
                applied=self.applied,
                now_ms=self.now_ms,
                queues=[queue_state(queue) for queue in self._queues.values()],
                sessions=[session_state(session) for session in self._sessions.values()],
                topology=self.topology.state(),
                registry=self.registry.state(),
                topology_index=self.topology_index,
                limits=self.limits if self.limits_index else None,
                limits_index=self.limits_index,
                members=self.members.state(),
            )
        )

    def restore(self, data: bytes) -> None:
        """Become the machine that made this snapshot, an earlier or a later one.

        `topology`, `registry` and `members` stay the objects they are, for those who look at them.
        `msgspec.DecodeError` when the bytes are no snapshot, `FormatTooNew` when they are one of a
        later version; then nothing has changed.
        """
        if format_of(data) > FORMAT:
            raise FormatTooNew(
                f"the checkpoint of shard {self.shard} has format {format_of(data)}, and this "
                f"version knows {FORMAT}: run the version that wrote it, or a later one"
            )
        state = _decoder.decode(data)
        assert state.format == FORMAT, f"a snapshot of format {state.format}"
        assert state.shard == self.shard, f"a snapshot of shard {state.shard} at {self.shard}"
        self.applied, self.now_ms = state.applied, state.now_ms
        self.topology_index = state.topology_index
        self._set_limits(state.limits or self._founding, state.limits_index)
        self.topology.load(state.topology)
        self.registry.load(state.registry)
        self.members.load(state.members)
        self._queues.clear()
        self._sessions.clear()
        keepers: dict[tuple[int, int, int], Consumer] = {}
        for queue in state.queues:
            self._queues[queue.id], kept = queue_from(queue)
            keepers.update({(keeper.session, queue.id, keeper.id): keeper for keeper in kept})
        for each in state.sessions:
            session = self._sessions[each.id] = session_from(each)
            for uid, id in each.consumers:
                session.consumers[id] = self._queues[uid].consumers[session.id, id]
            for uid, id in each.keepers:
                session.keepers[uid, id] = keepers[session.id, uid, id]

    def state_hash(self) -> bytes:
        """16 bytes that are equal on replicas in the same state, and only there."""
        return blake2b(self.snapshot(), digest_size=16).digest()

    def check(self) -> None:
        """Assert the invariants between two entries. Costs as much as the state is large."""
        for queue in self._queues.values():
            queue.check()
            for holder in (*queue.consumers.values(), *queue.keepers()):
                session = self._sessions[holder.session]
                assert holder in _holders(session)
        for session in self._sessions.values():
            assert all(keeper.held for keeper in session.keepers.values())
            assert len(session.order) == len(session.done)
            for holder in _holders(session):
                assert all(
                    self._queues[holder.queue].checked_out[id] is holder for id in holder.held
                )

    # --- commands -------------------------------------------------------------------------

    def _perform(self, command: AnyCommand, id: int, effects: list[Effect]) -> None:
        match command:
            case Enqueue():
                self._enqueue(command, id, effects)
            case Settle():
                self._settle(command, effects)
            case (
                Subscribe()
                | Unsubscribe()
                | Credit()
                | Attach()
                | Fetch()
                | Purge()
                | QueueDrop()
                | Count()
            ):
                self._operate(command, effects)
            case QueueCreate():
                if command.queue not in self._queues:
                    self._queues[command.queue] = Queue(
                        command.queue, command.flags, command.arguments
                    )
            case SessionDown():
                self.topology_index = max(self.topology_index, command.topology)
                self._end_session(command.session, effects)
            case Tick():
                pass
            case SetLimits():
                self._limit(command)
            case Audit():
                self.audited = self.applied
            case SessionOpen():
                assert self.shard == 0
                effects.append(self.registry.open(command, id, self.now_ms))
            case SessionResume():
                assert self.shard == 0
                effects.append(self.registry.resume(command))
            case SessionClose():
                assert self.shard == 0
                self._close_session(command, effects)
            case (
                ExchangeDeclare()
                | ExchangeDelete()
                | QueueDeclare()
                | QueueRemove()
                | Bind()
                | Unbind()
            ):
                assert self.shard == 0
                self._shape(command, id, effects)
            case (
                ClusterFound()
                | NodeAdd()
                | NodePromote()
                | NodeRemove()
                | NodeSeen()
                | ClusterSettle()
            ):
                assert self.shard == 0
                self._list(command)
            case _:
                raise _never(command)

    def _limit(self, command: SetLimits) -> None:
        if command.founding and self.limits_index:
            return
        if command.topology and command.topology <= self.limits_index:
            return
        # What one node was set up with must not outlive it here, where others had other values.
        limits = self.limits if self.limits_index else Limits()
        index = command.topology or self.applied
        self._set_limits(with_changes(limits, command.changes), index)

    def _set_limits(self, limits: Limits, index: int) -> None:
        self.limits, self.limits_index = limits, index
        self.topology.limits = self.registry.limits = limits

    # Each of the three ways of doing an operation begins with _admit: None means that there
    # is nothing to do any more.

    def _admit(
        self, session_id: int, seq: int, floor: int, effects: list[Effect]
    ) -> Session | None:
        session = self._sessions.get(session_id)
        if session is None:
            if session_id == 0:
                return Session(0)
            if self.shard == 0 and session_id not in self.registry:
                text = "there is no such session (any more)"
                effects.append(Refuse(session_id, seq, Code.SESSION_EXPIRED, text))
                return None
            session = self._sessions[session_id] = Session(session_id)
        if floor > session.floor:
            session.advance(floor)
        if seq < session.floor:
            return None
        answer = session.done.get(seq, NEW)
        if answer is not NEW:
            effects.append(self._again(session, seq))
            return None
        if len(session.done) >= self.limits.remembered_per_session_max:
            text = f"{len(session.done)} later operations are done, and seq {session.floor} is not"
            effects.append(Refuse(session_id, seq, Code.RESOURCE_EXHAUSTED, text))
            return None
        return session

    def _again(self, session: Session, seq: int) -> Effect:
        answer = again(session, seq, session.done[seq])
        if not isinstance(answer, Fetched):
            return answer
        queue = self._queues.get(answer.queue)
        holder = queue.checked_out.get(answer.id) if queue is not None else None
        if holder is not None and (holder.session, holder.id) == (session.id, FETCHED):
            return answer
        return Reply(session.id, seq, None)  # settled since, or gone with its queue

    def _enqueue(self, command: Enqueue, id: int, effects: list[Effect]) -> None:
        session = self._admit(command.session, command.seq, command.floor, effects)
        if session is None:
            return
        queues: list[Queue] = []
        for uid in command.queues:
            queue = self._queues.get(uid)
            if queue is None:
                _misroute(session, command.seq, effects)
                return
            if queue not in queues:
                queues.append(queue)
        for queue in queues:
            if queue.filled and queue.ready >= self.limits.ready_per_queue_max:
                text = f"{queue.ready} messages are waiting, which is the limit of a queue"
                _refuse(session, command.seq, Code.RESOURCE_EXHAUSTED, text, effects)
                return
        _confirm(session, command.seq, effects)
        priority = min(max(command.priority, 0), PRIORITY_MAX)
        for queue in queues:
            queue.put(id, priority, effects)

    def _settle(self, command: Settle, effects: list[Effect]) -> None:
        session = self._admit(command.session, command.seq, command.floor, effects)
        if session is None:
            return
        if command.outcome not in _OUTCOMES:
            text = f"there is no outcome {command.outcome}"
            _refuse(session, command.seq, Code.INVALID_ARGUMENT, text, effects)
            return
        _confirm(session, command.seq, effects)
        queue = self._queues.get(command.queue)
        if queue is None:
            return  # and so are its messages
        queue.settle(session.id, command.outcome, command.ids)
        if session.keepers:
            session.release_keepers()
        queue.deliver(effects)

    def _operate(self, command: _QueueOperation, effects: list[Effect]) -> None:
        session = self._admit(command.session, command.seq, command.floor, effects)
        if session is None:
            return
        if session.id == 0 and not isinstance(command, Purge | QueueDrop):
            return  # the broker consumes nothing
        match command:
            case Subscribe():
                self._subscribe(command, session, effects)
            case Unsubscribe():
                self._unsubscribe(command, session, effects)
            case Credit():
                self._credit(command, session, effects)
            case Attach():
                self._attach(command, session, effects)
            case Fetch():
                self._fetch(command, session, effects)
            case Purge():
                self._purge(command, session, effects)
            case QueueDrop():
                self._drop(command, session, effects)
            case Count():
                self._count(command, session, effects)
            case _:
                raise _never(command)

    # --- consumers ------------------------------------------------------------------------

    def _subscribe(self, command: Subscribe, session: Session, effects: list[Effect]) -> None:
        queue = self._queues.get(command.queue)
        if queue is None:
            return _misroute(session, command.seq, effects)
        if refusal := self._unfit(command, session, queue):
            return _refuse(session, command.seq, refusal.code, refusal.text, effects)
        consumer = Consumer(
            session=session.id,
            id=command.consumer,
            queue=queue.id,
            window=self._window(command.window),
            exclusive=command.exclusive,
            priority=command.priority,
            arguments=command.arguments,
        )
        session.consumers[consumer.id] = consumer
        queue.add(consumer)
        queue.used = True
        _reply(session, command.seq, (self.shard, queue.id), effects)
        queue.deliver(effects)
        return None

    def _unfit(self, command: Subscribe, session: Session, queue: Queue) -> Refusal | None:
        id, limit = command.consumer, self.limits.consumers_per_session_max
        if id < 0:
            return Refusal(Code.INVALID_ARGUMENT, f"consumer {id} is below 0")
        if id in session.consumers or any(id == kept for _, kept in session.keepers):
            return Refusal(Code.NOT_ALLOWED, f"consumer {id} has been used in this session")
        if queue.taken:
            return Refusal(Code.ACCESS_REFUSED, "the queue has an exclusive consumer")
        if command.exclusive and queue.consumers:
            text = "the queue has consumers, so none can have it to itself"
            return Refusal(Code.ACCESS_REFUSED, text)
        if len(session.consumers) >= limit:
            return Refusal(Code.RESOURCE_EXHAUSTED, f"the session has {limit} consumers here")
        return None

    def _unsubscribe(self, command: Unsubscribe, session: Session, effects: list[Effect]) -> None:
        _confirm(session, command.seq, effects)
        consumer = session.consumers.pop(command.consumer, None)
        if consumer is None:
            return
        queue = self._queues[consumer.queue]
        queue.remove(consumer)
        if consumer.held:
            session.keepers[queue.id, consumer.id] = consumer
        if queue.auto_delete and not queue.consumers:
            effects.append(Unused(queue.id))

    def _credit(self, command: Credit, session: Session, effects: list[Effect]) -> None:
        _confirm(session, command.seq, effects)
        consumer = session.consumers.get(command.consumer)
        if consumer is None:
            return  # ended meanwhile
        queue = self._queues[consumer.queue]
        queue.set_window(consumer, self._window(command.window))
        queue.deliver(effects)

    def _window(self, wished: int) -> int:
        return min(max(wished, 0), self.limits.window_max)

    def _attach(self, command: Attach, session: Session, effects: list[Effect]) -> None:
        held = frozenset(command.held)  # asked, never iterated
        missing = [
            (holder.queue, id, holder.id, packed >> PRIORITY_BITS)
            for holder in _holders(session)
            if holder.id != FETCHED  # those are sent again when their Fetch is repeated
            for id, packed in holder.held.items()
            if (holder.queue, id) not in held
        ]
        for queue, id, consumer, count in sorted(missing):
            effects.append(Deliver(session.id, consumer, queue, id, count))
        _confirm(session, command.seq, effects)

    def _fetch(self, command: Fetch, session: Session, effects: list[Effect]) -> None:
        queue = self._queues.get(command.queue)
        if queue is None:
            return _misroute(session, command.seq, effects)
        key = (queue.id, FETCHED)
        hand = session.keepers.get(key) or Consumer(session.id, FETCHED, queue.id, window=0)
        taken = queue.fetch(hand)
        if taken is None:
            return _reply(session, command.seq, None, effects)
        session.keepers[key] = hand
        id, count = taken
        fetched = Fetched(session.id, command.seq, queue.id, id, count, queue.ready)
        return _answer(session, command.seq, fetched, effects)

    # --- whole queues ---------------------------------------------------------------------

    def _purge(self, command: Purge, session: Session, effects: list[Effect]) -> None:
        queue = self._queues.get(command.queue)
        if queue is None:
            return _misroute(session, command.seq, effects)
        return _reply(session, command.seq, queue.purge(), effects)

    def _count(self, command: Count, session: Session, effects: list[Effect]) -> None:
        queue = self._queues.get(command.queue)
        if queue is None:
            return _misroute(session, command.seq, effects)
        return _reply(session, command.seq, (queue.ready, len(queue.consumers)), effects)

    def _drop(self, command: QueueDrop, session: Session, effects: list[Effect]) -> None:
        queue = self._queues.get(command.queue)
        if queue is None:
            return _reply(session, command.seq, 0, effects)
        if command.if_unused and queue.consumers:
            text = f"the queue has {len(queue.consumers)} consumers"
            return _refuse(session, command.seq, Code.PRECONDITION_FAILED, text, effects)
        if command.if_empty and queue.filled:
            text = f"the queue has {queue.ready} messages"
            return _refuse(session, command.seq, Code.PRECONDITION_FAILED, text, effects)
        del self._queues[queue.id]
        for consumer in queue.consumers.values():
            del self._sessions[consumer.session].consumers[consumer.id]
            effects.append(Cancelled(consumer.session, consumer.id))
        for keeper in queue.keepers():
            del self._sessions[keeper.session].keepers[queue.id, keeper.id]
        return _reply(session, command.seq, queue.ready, effects)

    # --- sessions -------------------------------------------------------------------------

    def _end_session(self, session_id: int, effects: list[Effect]) -> None:
        session = self._sessions.pop(session_id, None)
        if session is None:
            return
        left = {consumer.queue for consumer in session.consumers.values()}  # asked, never iterated
        holders = _holders(session)
        for consumer in session.consumers.values():
            self._queues[consumer.queue].remove(consumer)
        for holder in holders:
            self._queues[holder.queue].take_back(holder)
        for uid in dict.fromkeys(holder.queue for holder in holders):
            queue = self._queues[uid]
            queue.deliver(effects)
            if uid in left and queue.auto_delete and not queue.consumers:
                effects.append(Unused(uid))

    def _close_session(self, command: SessionClose, effects: list[Effect]) -> None:
        if not self.registry.close(command.session, command.epoch):
            return
        self._end_session(command.session, effects)
        owned = self.topology.owned_by(command.session)
        for record in owned:
            self.topology.remove_queue(record.id, command.session)
            effects.append(QueueGone(record.id, record.shard))
        effects.append(SessionGone(command.session, command.reason))
        if owned:
            effects.append(TopologyChanged())

    # --- the cluster's nodes --------------------------------------------------------------

    def _list(self, command: ClusterCommand) -> None:
        match command:
            case ClusterFound():
                self.members.found(command)
            case NodeAdd():
                self.members.add(command)
            case NodePromote():
                self.members.promote(command)
            case NodeRemove():
                self.members.remove(command)
            case NodeSeen():
                self.members.seen(command)
            case ClusterSettle():
                self.members.settle(command)
            case _:
                raise _never(command)

    # --- topology -------------------------------------------------------------------------

    def _shape(self, command: _TopologyOperation, id: int, effects: list[Effect]) -> None:
        session = self._admit(command.session, command.seq, command.floor, effects)
        if session is None:
            return None
        version = self.topology.version
        done: QueueRecord | Refusal | None
        if isinstance(command, QueueRemove):
            done = self.topology.remove_queue(command.queue, session.id)
        else:
            caller = self.registry.get(session.id)
            if caller is None:
                return None  # session 0: the broker declares nothing
            done = self._declare(command, caller.vhost, id)
        match done:
            case Refusal():
                return _refuse(session, command.seq, done.code, done.text, effects)
            case QueueRecord() if isinstance(command, QueueRemove):
                effects.append(QueueGone(done.id, done.shard))
                _confirm(session, command.seq, effects)
            case QueueRecord():
                _reply(session, command.seq, msgspec.structs.astuple(done), effects)
            case _:
                _confirm(session, command.seq, effects)
        if self.topology.version != version:
            effects.append(TopologyChanged())
        return None

    def _declare(
        self,
        command: ExchangeDeclare | ExchangeDelete | QueueDeclare | Bind | Unbind,
        vhost: str,
        id: int,
    ) -> QueueRecord | Refusal | None:
        match command:
            case ExchangeDeclare():
                return self.topology.declare_exchange(vhost, command)
            case ExchangeDelete():
                return self.topology.delete_exchange(vhost, command)
            case QueueDeclare():
                return self.topology.declare_queue(vhost, command, id)
            case Bind():
                return self.topology.bind(vhost, command)
            case Unbind():
                return self.topology.unbind(vhost, command)
            case _:
                raise _never(command)


def format_of(beginning: bytes) -> int:
    """The format of a snapshot, whose first bytes these are; 0 for what is no snapshot.

    Of every format it is the first field, so that it can be told without reading the rest.
    """
    at = {0xDC: 3, 0xDD: 5}.get(beginning[0], 1) if beginning else 0
    head = beginning[at : at + 2]
    if len(head) < 2:
        return 0
    return head[0] if head[0] < 0x80 else head[1]


def _holders(session: Session) -> tuple[Consumer, ...]:
    """All in whose name the session holds messages."""
    return (*session.consumers.values(), *session.keepers.values())


# An answer is remembered, then given; for the broker itself neither.


def _confirm(session: Session, seq: int, effects: list[Effect]) -> None:
    if session.id:
        session.remember(seq, None)
        effects.append(Confirm(session.id, seq))


def _answer(session: Session, seq: int, answer: Answer, effects: list[Effect]) -> None:
    if session.id:
        session.remember(seq, answer)
        effects.append(answer)


def _reply(session: Session, seq: int, value: Any, effects: list[Effect]) -> None:
    _answer(session, seq, Reply(session.id, seq, value), effects)


def _refuse(session: Session, seq: int, code: int, text: str, effects: list[Effect]) -> None:
    _answer(session, seq, Refuse(session.id, seq, code, text), effects)


def _misroute(session: Session, seq: int, effects: list[Effect]) -> None:
    """Neither done nor remembered: the router tries again, here or elsewhere."""
    if session.id:
        effects.append(Misrouted(session.id, seq))


def _never(value: NoReturn) -> AssertionError:
    return AssertionError(f"not a command: {value!r}")
