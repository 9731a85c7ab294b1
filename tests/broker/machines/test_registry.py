from __future__ import annotations

from broker.batch import command_id
from broker.errors import Code
from broker.machines import commands as c
from broker.machines import effects as e
from broker.machines.limits import Limits
from broker.machines.machine import Machine
from broker.machines.topology import VOLATILE


class Shard0:
    """A machine of shard 0, and the index of its next entry."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.machine = Machine(
            shard=0, shards=4, limits=limits or Limits(), place=lambda vhost, name: 1
        )
        self.index = 0

    def apply(self, *commands: c.AnyCommand, now_ms: int = 0) -> list[e.Effect]:
        self.index += 1
        return self.machine.apply(self.index, now_ms, list(commands))

    def open(self, token: bytes = b"t") -> int:
        self.apply(opening(token))
        return command_id(self.index, 0)


def opening(token: bytes, node: str = "n1", link: int = 7) -> c.SessionOpen:
    return c.SessionOpen(node, 1, link, token, "/", "guest", 5000, {"pid": "1"})


def refused(effect: e.Effect) -> tuple[int, int]:
    assert isinstance(effect, e.SessionRefused)
    return effect.session, effect.code


def test_a_session_opens_once_however_often_it_is_asked() -> None:
    shard = Shard0()
    moved = e.SessionMoved(command_id(1, 0), "n1", 1, 7, 1, b"t")
    assert shard.apply(opening(b"t"), opening(b"t"), now_ms=50) == [moved, moved]
    assert shard.apply(opening(b"t"), now_ms=60) == [moved]
    record = shard.machine.registry.get(command_id(1, 0))
    assert record is not None and record.opened_ms == 50
    assert len(shard.machine.registry) == 1


def test_an_opening_said_again_elsewhere_moves_a_session_that_was_never_welcomed() -> None:
    shard = Shard0()
    session = shard.open()
    (effect,) = shard.apply(c.SessionOpen("n2", 1, 9, b"t", "/", "guest", 5000, {}))
    assert isinstance(effect, e.SessionMoved)
    assert (effect.session, effect.node, effect.link, effect.epoch) == (session, "n2", 9, 2)


def test_an_opening_that_comes_late_takes_nothing_from_the_session() -> None:
    shard = Shard0()
    session = shard.open()
    shard.apply(c.SessionResume(session, b"t", "n2", 1, 9))
    (effect,) = shard.apply(opening(b"t"))
    assert refused(effect) == (0, Code.SESSION_EXPIRED)


def test_too_many_sessions() -> None:
    shard = Shard0(Limits(sessions_max=1))
    first = shard.open(b"a")
    (effect,) = shard.apply(opening(b"b"))
    assert refused(effect) == (0, Code.RESOURCE_EXHAUSTED)
    shard.apply(c.SessionClose(first, 0, "bye"))
    (effect,) = shard.apply(opening(b"b"))
    assert isinstance(effect, e.SessionMoved)


def test_resume_needs_the_token_and_moves_the_epoch() -> None:
    shard = Shard0()
    session = shard.open()
    resume = c.SessionResume(session, b"t", "n2", 3, 9)
    assert shard.apply(resume) == [e.SessionMoved(session, "n2", 3, 9, 2, b"t")]
    for wrong in (
        c.SessionResume(session, b"x", "n2", 3, 9),
        c.SessionResume(session + 1, b"t", "n2", 3, 9),
    ):
        (effect,) = shard.apply(wrong)
        assert refused(effect) == (wrong.session, Code.SESSION_EXPIRED)


def test_an_expiry_from_before_a_resume_is_void() -> None:
    shard = Shard0()
    session = shard.open()
    shard.apply(c.SessionResume(session, b"t", "n2", 1, 9))
    assert shard.apply(c.SessionClose(session, 1, "lost")) == []
    assert session in shard.machine.registry
    assert shard.apply(c.SessionClose(session, 2, "lost")) == [e.SessionGone(session, "lost")]
    assert shard.apply(c.SessionClose(session, 0, "bye")) == []


def test_exclusive_queues_go_with_their_session() -> None:
    shard = Shard0()
    session, other = shard.open(b"a"), shard.open(b"b")
    shard.apply(
        c.QueueDeclare(session, 1, 1, "mine", c.QueueFlag.EXCLUSIVE, False, None),
        c.QueueDeclare(session, 2, 1, "shared", 0, False, None),
        c.Bind(session, 3, 1, "mine", "amq.fanout", "", None),
    )
    mine = shard.machine.topology.queue_named("/", "mine")
    assert mine is not None and (mine.shard, mine.owner) == (VOLATILE, session)
    assert shard.machine.topology.route("/", "amq.fanout", "") == ((VOLATILE, mine.id),)
    assert shard.apply(c.SessionClose(session, 0, "bye")) == [
        e.QueueGone(mine.id, VOLATILE),
        e.SessionGone(session, "bye"),
        e.TopologyChanged(),
    ]
    assert shard.machine.topology.queue_named("/", "mine") is None
    assert shard.machine.topology.queue_named("/", "shared") is not None
    assert shard.machine.topology.route("/", "amq.fanout", "") == ()
    assert shard.machine.topology.owned_by(session) == ()
    assert other in shard.machine.registry


def test_operations_of_a_session_that_is_over_are_refused() -> None:
    shard = Shard0()
    session = shard.open()
    declare = c.QueueDeclare(session, 1, 1, "q", 0, False, None)
    shard.apply(declare)
    shard.apply(c.SessionClose(session, 0, "bye"))
    (effect,) = shard.apply(declare)
    assert isinstance(effect, e.Refuse) and effect.code == Code.SESSION_EXPIRED
    assert list(shard.machine.sessions) == []


def test_time_never_goes_back() -> None:
    shard = Shard0()
    shard.apply(c.Tick(), now_ms=90)
    session = shard.apply(opening(b"t"), now_ms=40) and command_id(shard.index, 0)
    record = shard.machine.registry.get(session)
    assert record is not None and record.opened_ms == 90
