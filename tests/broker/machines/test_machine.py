"""The queue machine against a model of plain lists, under whatever Hypothesis thinks of.

The model looks for the next message by sorting, and holds each message in one place only:
ready, checked out or gone. It shares no idea with the machine but the commands.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from broker.batch import command_id
from broker.machines import commands as c
from broker.machines import effects as e
from broker.machines.limits import Limits
from broker.machines.machine import Machine

QUEUES = (1, 2)
SESSIONS = (8, 9, 10)
PUBLISHER = 7
LIMITS = Limits(window_max=6)


def machine() -> Machine:
    return Machine(shard=1, shards=2, limits=LIMITS, place=lambda vhost, name: 1)


@dataclass
class Message:
    id: int
    queue: int
    priority: int
    count: int = 0  # deliveries
    holder: tuple[int, int] | None = None  # (session, consumer)


@dataclass
class Model:
    messages: list[Message] = field(default_factory=list)
    windows: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    enqueued: int = 0
    settled: int = 0

    def ready(self, queue: int) -> list[Message]:
        """Next one first."""
        ready = [m for m in self.messages if m.queue == queue and m.holder is None]
        return sorted(ready, key=lambda m: (-m.priority, m.id))

    def held_by(self, session: int, consumer: int | None = None) -> list[Message]:
        return [
            m
            for m in self.messages
            if m.holder is not None and m.holder[0] == session and consumer in (None, m.holder[1])
        ]

    def has_room(self, queue: int) -> list[tuple[int, int]]:
        return [
            key
            for key, (of, window) in self.windows.items()
            if of == queue and len(self.held_by(*key)) < window
        ]

    def delivered(self, effect: e.Deliver) -> None:
        """Check a delivery, and follow it."""
        key = (effect.session, effect.consumer)
        first = self.ready(effect.queue)[0]
        assert effect.id == first.id, "not the first that was ready"
        assert key in self.has_room(effect.queue), "no room in the window"
        first.holder = key
        first.count += 1
        assert effect.count == first.count


class MachineAgainstModel(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.machines = [machine(), machine()]  # the second is restored again and again
        self.model = Model()
        self.index = 0
        self.seq = 0
        self.consumer = 0
        self.past: list[c.AnyCommand] = []
        self.apply(*(c.QueueCreate(queue, 0, None) for queue in QUEUES))

    # --- help -----------------------------------------------------------------------------

    def apply(self, *commands: c.AnyCommand) -> list[e.Effect]:
        self.index += 1
        effects = self.machines[0].apply(self.index, self.index, list(commands))
        assert self.machines[1].apply(self.index, self.index, list(commands)) == effects
        self.past += commands
        return effects

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq

    def follow(self, effects: list[e.Effect]) -> None:
        """Deliveries come last in what a rule does; nothing may be left that could be had."""
        for effect in effects:
            assert isinstance(effect, e.Deliver), effect
            self.model.delivered(effect)
        for queue in QUEUES:
            assert not (self.model.ready(queue) and self.model.has_room(queue))

    # --- rules ----------------------------------------------------------------------------

    @rule(queues=st.sampled_from([(1,), (2,), (1, 2)]), priority=st.integers(0, 9))
    def publish(self, queues: tuple[int, ...], priority: int) -> None:
        seq = self.next_seq()
        command = c.Enqueue(PUBLISHER, seq, 0, queues, "", "", priority, None, b"")
        first, *rest = self.apply(command)
        assert first == e.Confirm(PUBLISHER, seq)
        id = command_id(self.index, 0)
        self.model.messages += [Message(id, queue, priority) for queue in queues]
        self.model.enqueued += len(queues)
        self.follow(rest)

    @rule(
        session=st.sampled_from(SESSIONS),
        queue=st.sampled_from(QUEUES),
        window=st.integers(0, 8),
    )
    def subscribe(self, session: int, queue: int, window: int) -> None:
        seq = self.next_seq()
        self.consumer += 1
        command = c.Subscribe(session, seq, 0, self.consumer, queue, window)
        first, *rest = self.apply(command)
        assert first == e.Reply(session, seq, (1, queue))
        self.model.windows[session, self.consumer] = (queue, min(window, LIMITS.window_max))
        self.follow(rest)

    @precondition(lambda self: self.model.windows)
    @rule(data=st.data())
    def unsubscribe(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(list(self.model.windows)))
        del self.model.windows[key]
        seq = self.next_seq()
        assert self.apply(c.Unsubscribe(key[0], seq, 0, key[1])) == [e.Confirm(key[0], seq)]

    @precondition(lambda self: self.model.windows)
    @rule(data=st.data(), window=st.integers(0, 8))
    def credit(self, data: st.DataObject, window: int) -> None:
        session, consumer = data.draw(st.sampled_from(list(self.model.windows)))
        queue, _ = self.model.windows[session, consumer]
        self.model.windows[session, consumer] = (queue, min(window, LIMITS.window_max))
        seq = self.next_seq()
        first, *rest = self.apply(c.Credit(session, seq, 0, consumer, window))
        assert first == e.Confirm(session, seq)
        self.follow(rest)

    @precondition(lambda self: any(m.holder for m in self.model.messages))
    @rule(
        data=st.data(),
        outcome=st.sampled_from(c.Outcome),
        session=st.sampled_from(SESSIONS),
        queue=st.sampled_from(QUEUES),
    )
    def settle(self, data: st.DataObject, outcome: c.Outcome, session: int, queue: int) -> None:
        """Ids of any session's messages: only this session's may be touched."""
        known = [m.id for m in self.model.messages if m.holder]
        ids = data.draw(st.lists(st.sampled_from(known), min_size=1, max_size=5))
        mine = [m for m in self.model.held_by(session) if m.queue == queue and m.id in ids]
        for m in mine:
            m.holder = None
            if outcome is c.Outcome.RELEASE:
                m.count -= 1
            elif outcome is not c.Outcome.REQUEUE:
                self.model.messages.remove(m)
                self.model.settled += 1
        seq = self.next_seq()
        first, *rest = self.apply(c.Settle(session, seq, 0, queue, outcome, tuple(ids)))
        assert first == e.Confirm(session, seq)
        self.follow(rest)

    @rule(session=st.sampled_from(SESSIONS), queue=st.sampled_from(QUEUES))
    def fetch(self, session: int, queue: int) -> None:
        seq = self.next_seq()
        command = c.Fetch(session, seq, 0, queue)
        (answer,) = self.apply(command)
        ready = self.model.ready(queue)
        if not ready:
            assert answer == e.Reply(session, seq, None)
            return
        ready[0].holder = (session, -1)
        ready[0].count += 1
        expected = e.Fetched(session, seq, queue, ready[0].id, ready[0].count, len(ready) - 1)
        assert answer == expected
        assert self.apply(command) == [expected]

    @rule(session=st.sampled_from(SESSIONS), queue=st.sampled_from(QUEUES))
    def purge(self, session: int, queue: int) -> None:
        seq = self.next_seq()
        ready = self.model.ready(queue)
        expected = [e.Reply(session, seq, len(ready))]
        assert self.apply(c.Purge(session, seq, 0, queue)) == expected
        for m in ready:
            self.model.messages.remove(m)
        self.model.settled += len(ready)

    @rule(session=st.sampled_from(SESSIONS))
    def session_down(self, session: int) -> None:
        for m in self.model.held_by(session):
            m.holder = None
        for key in [key for key in self.model.windows if key[0] == session]:
            del self.model.windows[key]
        # The session is over: from here on its operations would not be known as repeats.
        effects = self.apply(c.SessionDown(session))
        self.past = [p for p in self.past if getattr(p, "session", None) != session]
        self.follow(effects)

    @rule(session=st.sampled_from(SESSIONS), data=st.data())
    def attach(self, session: int, data: st.DataObject) -> None:
        mine = [(m.queue, m.id) for m in self.model.held_by(session)]
        held = data.draw(st.lists(st.sampled_from(mine), max_size=5)) if mine else []
        seq = self.next_seq()
        *sent, last = self.apply(c.Attach(session, seq, 0, tuple(held)))
        assert last == e.Confirm(session, seq)
        assert sent == [
            e.Deliver(session, m.holder[1], m.queue, m.id, m.count)
            for m in sorted(self.model.held_by(session), key=lambda m: (m.queue, m.id))
            if m.holder is not None and m.holder[1] != -1 and (m.queue, m.id) not in held
        ]

    @precondition(lambda self: self.past)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        """Whatever was done before: one answer, and nothing is done."""
        command = data.draw(st.sampled_from(self.past))
        before = [(m.id, m.count, m.holder) for m in self.model.messages]
        effects = self.apply(command)
        if not isinstance(command, c.QueueCreate):
            assert len(effects) == 1 and not isinstance(effects[0], e.Deliver)
        assert before == [(m.id, m.count, m.holder) for m in self.model.messages]

    @rule(low=st.integers(0, 60), length=st.integers(0, 60))
    def look_for_the_living(self, low: int, length: int) -> None:
        first, last = command_id(low, 0), command_id(low + length, 0)
        for this in self.machines:
            inside = [m.id for m in self.model.messages if first <= m.id <= last]
            assert list(this.ids_between(first, last)) == sorted(set(inside))
            assert this.count_between(first, last) == len(inside)

    @rule()
    def restart(self) -> None:
        """The second replica forgets all and starts from a snapshot."""
        snapshot = self.machines[0].snapshot()
        self.machines[1] = machine()
        self.machines[1].restore(snapshot)

    # --- invariants -----------------------------------------------------------------------

    @invariant()
    def agrees_with_model(self) -> None:
        if not hasattr(self, "model"):
            return
        this, model = self.machines[0], self.model
        this.check()
        total = 0
        for queue in QUEUES:
            ready, out, consumers = this.counts(queue)
            assert ready == len(model.ready(queue))
            assert out == sum(m.queue == queue and m.holder is not None for m in model.messages)
            assert consumers == sum(of == queue for of, _ in model.windows.values())
            ids = sorted(m.id for m in model.messages if m.queue == queue)
            assert sorted(this.messages(queue)) == ids
            assert all(this.holds(queue, id) for id in ids)
            total += ready + out
        assert model.enqueued == total + model.settled
        for session in SESSIONS:
            held = sorted((m.queue, m.holder[1], m.id) for m in model.held_by(session) if m.holder)
            assert sorted(this.checkouts(session)) == held

    @invariant()
    def replicas_agree(self) -> None:
        if hasattr(self, "machines"):
            assert self.machines[0].state_hash() == self.machines[1].state_hash()


TestMachineAgainstModel = MachineAgainstModel.TestCase
TestMachineAgainstModel.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
