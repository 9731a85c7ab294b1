"""Limits are part of the log: replicas that were set up differently decide the same."""

from __future__ import annotations

import msgspec
import pytest

from broker.machines import commands as c
from broker.machines import effects as e
from broker.machines.limits import Limits, limits_fault, values_of
from broker.machines.machine import Machine, MachineState

LAW = Limits(queues_max=2, sessions_max=1)


def machine(limits: Limits, shard: int = 0) -> Machine:
    return Machine(shard=shard, shards=2, limits=limits, place=lambda vhost, name: 1)


def opening(number: int) -> c.SessionOpen:
    return c.SessionOpen("n1", 1, number, b"token of client%d" % number, "/", "", 5000, {})


def declare(session: int, seq: int) -> c.QueueDeclare:
    return c.QueueDeclare(session, seq, 0, f"q{seq}", 0, False, None)


def run(on: Machine, entries: list[list[c.AnyCommand]]) -> list[e.Effect]:
    return [effect for i, each in enumerate(entries, 1) for effect in on.apply(i, i, each)]


def test_machines_of_other_settings_decide_the_same_by_their_log() -> None:
    session = 2 << 20
    entries: list[list[c.AnyCommand]] = [
        [c.SetLimits(values_of(LAW), founding=True)],
        [opening(1), opening(2)],
        [declare(session, seq) for seq in range(1, 5)],
        [c.SetLimits({"queues_max": 3})],
        [declare(session, seq) for seq in range(5, 8)],
    ]
    strict, lenient = machine(Limits(queues_max=1)), machine(Limits(queues_max=1000))
    effects = run(strict, entries)
    assert effects == run(lenient, entries)
    assert strict.state_hash() == lenient.state_hash()
    refused = [effect.seq for effect in effects if isinstance(effect, e.Refuse)]
    assert refused == [3, 4, 6, 7]
    assert len([effect for effect in effects if isinstance(effect, e.SessionRefused)]) == 1


def test_a_checkpoint_has_the_limits_and_an_older_one_leaves_the_settings() -> None:
    one, other = machine(Limits()), machine(Limits(queues_max=7))
    old = msgspec.msgpack.decode(other.snapshot())[: MachineState.__struct_fields__.index("limits")]
    one.apply(1, 1, [c.SetLimits(values_of(LAW), founding=True)])
    other.restore(one.snapshot())
    assert (other.limits, other.limits_index) == (LAW, 1)
    assert other.topology.limits is other.registry.limits is other.limits
    other.restore(msgspec.msgpack.encode(old))
    assert (other.limits, other.limits_index) == (Limits(queues_max=7), 0)


def test_limits_are_founded_once_and_changed_by_name() -> None:
    on = machine(Limits())
    on.apply(1, 1, [c.SetLimits(values_of(LAW), founding=True)])
    on.apply(2, 2, [c.SetLimits({"queues_max": 9}), c.SetLimits({"exchanges_max": 8})])
    on.apply(3, 3, [c.SetLimits(values_of(Limits()), founding=True)])
    assert on.limits == Limits(queues_max=9, sessions_max=1, exchanges_max=8)
    assert on.limits_index == 2


def test_another_shard_follows_shard_zero_and_never_back() -> None:
    on = machine(Limits(queues_max=5), shard=1)
    on.apply(1, 1, [c.SetLimits(values_of(LAW), topology=40)])
    on.apply(2, 2, [c.SetLimits(values_of(Limits()), topology=39)])
    assert (on.limits, on.limits_index) == (LAW, 40)
    on.apply(3, 3, [c.SetLimits({"queues_max": 0, "no_such": 3, "sessions_max": 4}, topology=41)])
    assert on.limits == Limits(queues_max=2, sessions_max=4)


@pytest.mark.parametrize("changes", [{"queues_max": 0}, {"queues_max": 1 << 60}, {"shards": 3}])
def test_what_is_wrong_with_a_limit_is_said_by_its_name(changes: dict[str, int]) -> None:
    assert next(iter(changes)) in limits_fault(changes)
    assert not limits_fault({"queues_max": 1})
