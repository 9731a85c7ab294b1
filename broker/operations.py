"""What clients at home here ask for: each operation from its plan to its answer.

operate --> route --> send to its places --> answered, by each --> the client's answer
              |               ^                  |
              |               +-- a saga's next --+
              +--> wait for the newest topology, then route again
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from broker.cluster import Cluster
from broker.errors import Code
from broker.homes import Home, Homes, Running
from broker.inspector import Inspector
from broker.machines.commands import AnyCommand, SessionClose, decode, encode
from broker.peer_protocol import Done, No, Value
from broker.protocol import (
    VOLATILE_SHARD,
    AnyAnswer,
    AnyOperation,
    Confirmed,
    Goodbye,
    Held,
    Hello,
    Inspect,
    Publish,
    RefusedAnswer,
    Replied,
    Resync,
)
from broker.router import TOPOLOGY, Place, Result, Routed, Router, Send, Stale
from broker.topology_reads import TopologyReads

FULL = "too much is waiting for a majority (session_bytes_max, unconfirmed_bytes_max); slow down"


class Operations:
    """Operations of the sessions at home on this node."""

    keep: Callable[[AnyCommand], None]
    """Takes commands for this node's memory-only queues. Their effects end here again, so
    whoever puts the parts together sets it when all of them are made."""

    def __init__(
        self, cluster: Cluster, homes: Homes, router: Router, inspector: Inspector
    ) -> None:
        self.reads = TopologyReads(cluster.shard_zero)
        self._cluster, self._homes = cluster, homes
        self._router, self._inspector = router, inspector
        self._misrouted: set[int] = set()

    def operate(self, home: Home, operation: AnyOperation) -> None:
        """Begin an operation; a repeat of one under way repeats what that waits for."""
        match operation:
            case Goodbye():
                home.closing = "closed by the client"
                close = SessionClose(home.caller.session, 0, home.closing)
                # In its session's name, to come after all that it has asked for.
                self._cluster.submit(TOPOLOGY, encode(close), home.caller.session)
            case Inspect():
                self._inspector.inspect(home, operation)
            case Held(shard=shard) if not home.may_hold(shard, self._cluster.now_ms):
                pass  # each may have all of a window sent again; the client repeats it
            case Hello():
                raise AssertionError("a Hello is handled before")
            case _:
                running = home.sagas.get(operation.seq)
                if running is not None:
                    self._send(home, operation.seq, [running.step])
                else:
                    self._route(home, operation, fresh=False)

    def misrouted(self, session: int) -> None:
        """A command of the session came where its queue is not: it is to be routed again."""
        self._misrouted.add(session)

    def ask_again(self) -> None:
        """What was routed by an old topology, or got no read of the newest."""
        term = self._cluster.leaders.term_of(TOPOLOGY)
        for session in list(self._misrouted):
            home = self._homes.by_session.get(session)
            if home is not None:
                home.say(Resync(TOPOLOGY, term))
        self._misrouted.clear()
        self.reads.again()
        if self.reads:
            self.read_topology()

    def read_topology(self) -> None:
        """Ask for a read of shard 0 on behalf of all that wait, and serve those who have one."""
        self.reads.begin()
        for session, operation in self.reads.served():
            home = self._homes.by_session.get(session)
            if home is not None and operation.seq >= home.caller.floor:
                self._route(home, operation, fresh=True)

    def answered(self, home: Home, place: Place, result: Result, seq: int) -> None:
        """One place's answer to an operation."""
        running = home.sagas.get(seq)
        if running is not None:
            self._go_on(home, running, place, result, seq)
            return
        missing = home.missing.get(seq)
        if missing is not None:
            if isinstance(result, No):
                # This place stays missing: what the others have taken is not the whole, and
                # their confirms must not become one of the publish.
                self._say(home, RefusedAnswer(seq, result.code, result.text))
                return
            missing.discard(place)
            if missing:
                return
            del home.missing[seq]
        match result:
            case Value(value=value):
                home.say(Replied(seq, value))
            case No(code=code, text=text):
                self._say(home, RefusedAnswer(seq, code, text))
            case _:
                home.confirms.append(seq)

    def _go_on(self, home: Home, running: Running, place: Place, result: Result, seq: int) -> None:
        if place != running.step.place:
            return  # the answer to an earlier step that was repeated
        try:
            running.step = running.saga.send(result)
        except StopIteration as stop:
            del home.sagas[seq]
            self._say(home, stop.value)
        else:
            self._send(home, seq, [running.step])

    def _route(self, home: Home, operation: Routed, *, fresh: bool) -> None:
        plan = self._router.plan(home.caller, operation, fresh=fresh)
        if isinstance(plan, list):
            if isinstance(operation, Publish) and self._is_full(home, plan):
                self._say(home, RefusedAnswer(operation.seq, Code.RESOURCE_EXHAUSTED, FULL))
                return
            self._send(home, operation.seq, plan)
        elif isinstance(plan, Stale):
            self.reads.wait(home.caller.session, operation)
            self.read_topology()
        elif isinstance(plan, Generator):
            home.sagas[operation.seq] = running = Running(plan, next(plan))
            self._send(home, operation.seq, [running.step])
        else:
            if isinstance(operation, Publish) and _took_no_queue(plan):
                self._cluster.counters.unroutable += 1
            self._say(home, plan)

    def _is_full(self, home: Home, sends: list[Send]) -> bool:
        is_full, session = self._cluster.is_full, home.caller.session
        return any(isinstance(send.place, int) and is_full(send.place, session) for send in sends)

    def _say(self, home: Home, answer: AnyAnswer) -> None:
        if isinstance(answer, RefusedAnswer):
            self._cluster.counters.refused += 1
        home.say(answer)

    def _send(self, home: Home, seq: int, sends: list[Send]) -> None:
        cluster = self._cluster
        if len(sends) > 1:
            home.missing[seq] = {send.place for send in sends}
        for place, command in sends:
            if isinstance(place, int):
                cluster.submit(place, command, home.caller.session)
            elif place == cluster.node:
                self.keep(decode(command))
            elif (peer := cluster.peers.get(place)) is not None and cluster.is_heard(peer):
                peer.forward(VOLATILE_SHARD, home.caller.session, command)
            else:
                # The node that kept this queue is down, and the queue's messages with it.
                self.answered(home, place, Done(VOLATILE_SHARD, 0, []), seq)


def _took_no_queue(plan: AnyAnswer) -> bool:
    """Whether a publish that was answered at once was one that no queue takes."""
    return isinstance(plan, Confirmed) or (
        isinstance(plan, RefusedAnswer) and plan.code == Code.NO_ROUTE
    )
