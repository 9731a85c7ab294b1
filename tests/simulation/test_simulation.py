"""A slice of seeds of the whole-cluster simulation, and proof that its checkers bite.

Longer runs: `make sim SEEDS=1-5000`. One seed with its trace:
`python -m tests.simulation replay 42`.
"""

from __future__ import annotations

import pytest

from broker.checkpointer import Checkpointer
from broker.departure import Departure
from broker.machines import machine
from broker.machines.commands import Attach, Settle
from broker.machines.effects import Confirm, Effect
from broker.machines.lane import Lane
from broker.machines.machine import Machine
from broker.machines.queue import Queue
from broker.machines.sessions import Session, SessionState
from broker.sweeper import Sweeper
from raftlog import leader
from raftlog.leader import Leader
from tests.mutants.machines import nothing_remembered
from tests.mutants.service import effects_of_earlier_leaders, promises_before_the_write
from tests.simulation.scenario import Scenario, run
from tests.simulation.violation import Violation

SLICE = [seed for seed in range(1000, 1050) if seed != 1013]
FOUND = [37, 47, 1013, 2012, 2026, 2060, 3061, 4035]
"""Seeds that once showed a bug: deliveries out of an old connection between nodes that came after
they were settled, and so did one to a node that its session had left and come back to; a removed
node whose peers began to number their frames anew, and which passed
over what they told it; a node that left shard 0 before the others, and went on leading them;
three times one that led shards and had lost the leader of shard 0, and so all news of sessions."""


@pytest.mark.parametrize("seed", [*FOUND, *SLICE])
def test_a_seed_of_faults_loses_and_doubles_nothing(seed: int) -> None:
    outcome = run(seed, 12_000)
    assert outcome.confirmed > 0


def test_a_seed_repeats_itself_exactly() -> None:
    first, second = Scenario(7, 5_000), Scenario(7, 5_000)
    assert first.run() == second.run()
    assert first.world.trace == second.world.trace


def _must_be_caught(seeds: range) -> Violation:
    for seed in seeds:
        try:
            run(seed, 12_000)
        except Violation as violation:
            return violation
    return pytest.fail(f"no seed of {seeds} noticed the bug")


def test_a_majority_goes_on_alone_in_many_ways() -> None:
    """Not that many seeds have the phase and do nothing in it."""
    ways: set[str] = set()
    for seed in range(100, 130):
        scene = Scenario(seed, 1_000)
        if scene.majority.wanted:
            scene.run()
            ways.update(way.split(",")[0].split(" ")[0] for way in scene.majority.broken.values())
    assert len(ways) >= 4


def _majority_must_catch(seeds: range) -> None:
    for seed in seeds:
        scene = Scenario(seed, 3_000)
        if not scene.majority.wanted:
            continue
        try:
            scene.run()
        except Violation as violation:
            if violation.checker == "liveness of a majority":
                return
            raise
    pytest.fail(f"no majority of {seeds} noticed the bug")


def test_a_leader_that_hears_no_majority_and_stays_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is deaf, and all others hear it for ever."""
    monkeypatch.setattr(Leader, "_check_quorum", lambda self: True)
    _majority_must_catch(range(60))


def test_a_leader_without_news_of_sessions_that_stays_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A bridge is between it and the leader of shard 0."""
    monkeypatch.setattr(Departure, "tick", lambda self: None)
    _majority_must_catch(range(100))


def test_without_deduplication_a_repeat_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_remembered(monkeypatch)
    _must_be_caught(range(20))


def test_a_promise_before_the_write_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes and acknowledgements leave before they are on disk, and the node crashes."""
    promises_before_the_write(monkeypatch)
    _must_be_caught(range(60))


def test_effects_of_what_earlier_leaders_applied_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    effects_of_earlier_leaders(monkeypatch)
    _must_be_caught(range(40))


def test_a_commit_by_one_node_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leader, "joint_index", lambda voters, outgoing, acked: max(acked.values()))
    _must_be_caught(range(20))


def test_deliveries_that_are_not_sent_again_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def attach(self: Machine, command: Attach, session: Session, effects: list[Effect]) -> None:
        effects.append(Confirm(command.session, command.seq))

    monkeypatch.setattr(Machine, "_attach", attach)
    _must_be_caught(range(20))


def test_a_queue_that_serves_the_newest_first_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: Lane) -> int:
        if self.returned:
            return self.returned.pop()
        return self.ids.pop()

    monkeypatch.setattr(Lane, "take", take)
    assert _must_be_caught(range(20)).checker == "first come, first served"


def test_a_checkpoint_without_what_sessions_have_done_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def forgetful(state: SessionState) -> Session:
        session = session_from(state)
        session.done.clear()
        session.order.clear()
        return session

    session_from = machine.session_from
    monkeypatch.setattr(machine, "session_from", forgetful)
    assert _must_be_caught(range(40)).checker == "equal machines at equal indexes"


def test_machines_that_differ_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that is not in the log decides in `apply`."""
    settle = Machine._settle

    def moody(self: Machine, command: Settle, effects: list[Effect]) -> None:
        if id(self) // 64 % 3:
            settle(self, command, effects)

    monkeypatch.setattr(Machine, "_settle", moody)
    _must_be_caught(range(10))


def test_a_checkpoint_that_names_the_wrong_entry_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The state is taken after an entry that the checkpoint does not claim to have."""
    begin = Checkpointer.begin

    def early(self: Checkpointer) -> None:
        begin(self)
        assert self._writing is not None
        if self._writing.index > 1:
            self._writing.index -= 1
            self._writing.term = self._shard.storage.term(self._writing.index)

    monkeypatch.setattr(Checkpointer, "begin", early)
    _must_be_caught(range(20))


def test_a_sweep_that_drops_what_somebody_holds_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is checked out is overlooked when the living are counted."""
    monkeypatch.setattr(Queue, "_been_out", lambda self, low, high: [])
    # Either the checker sees it first, or the node that is to deliver the message.
    seen = _must_be_caught(range(40)).checker
    assert seen in ("every living message has its body", "assertion in broker/shard.py:message")


def test_a_sweep_that_overlooks_copied_bodies_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(self: Sweeper, low: int, swept: object) -> None:
        self._body = None

    monkeypatch.setattr(Sweeper, "_look_at_survivors", nothing)
    assert _must_be_caught(range(20)).checker == "liveness"
