"""A slice of seeds of one Raft group, and proof that its checkers bite.

Longer runs: `python -m tests.simulation run 1-5000 --level raft`. One seed with its trace:
`python -m tests.simulation replay 42 --level raft`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from raftlog import leader
from raftlog.leader import Leader
from raftlog.messages import Snapshot
from raftlog.node import RawNode
from raftlog.quorum import joint_index
from raftlog.raft import Raft
from raftlog.reads import PendingRead, ReadRounds
from raftlog.ready import Ready
from tests.simulation.raft.checks import Checker
from tests.simulation.raft.scenario import CHAOS_MS, draw, run
from tests.simulation.schedule import Fault, Script, load
from tests.simulation.shrink import shrink
from tests.simulation.violation import Violation

SLICE = range(1000, 1160)


@pytest.mark.parametrize("first", range(SLICE.start, SLICE.stop, 20))
def test_seeds_of_faults(first: int) -> None:
    """Twenty seeds each, for most of one is over in an instant."""
    outcomes = [run(seed) for seed in range(first, min(first + 20, SLICE.stop))]
    assert sum(outcome.confirmed for outcome in outcomes) > 20
    assert sum(outcome.reads for outcome in outcomes) > 20
    assert sum(outcome.terms for outcome in outcomes) > 20


def test_a_seed_repeats_itself_exactly() -> None:
    first: list[str] = []
    second: list[str] = []
    assert run(7, tell=first.append) == run(7) == run(7, tell=second.append)
    assert first == second


def _caught(seeds: range) -> Violation:
    """The violation of the first seed that notices."""
    for seed in seeds:
        try:
            run(seed)
        except Violation as violation:
            return violation
    return pytest.fail(f"no seed of {seeds} noticed the bug")


def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Votes and acknowledgements leave before they are on disk."""
    ready = RawNode.ready

    def hasty(self: RawNode) -> Ready:
        made = ready(self)
        made.messages.extend(made.messages_after)
        made.messages_after.clear()
        return made

    monkeypatch.setattr(RawNode, "ready", hasty)


def test_a_promise_before_the_write_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    _hasty(monkeypatch)
    assert _caught(range(5)).checker == "promises are durable"


def test_what_comes_of_it_is_caught_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody looks at the wire."""
    _hasty(monkeypatch)
    monkeypatch.setattr(Checker, "sends", lambda self, host, message: None)
    _caught(range(5))


def test_a_commit_by_counting_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(self: Leader) -> None:
        log, membership = self._raft.log, self._raft.membership
        acked = {member: progress.match for member, progress in self.progress.items()}
        index = joint_index(membership.voters, membership.outgoing, acked)
        if index > log.committed:
            log.commit_to(index)
            self.committed_in_term = self.flush_wanted = True

    monkeypatch.setattr(Leader, "commit", commit)
    assert _caught(range(10)).checker == "commits are by a quorum"


def test_a_joint_phase_with_one_majority_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_majority(voters: list[int], outgoing: list[int], acked: dict[int, int]) -> int:
        return joint_index(voters, (), acked)

    monkeypatch.setattr(leader, "joint_index", one_majority)
    assert _caught(range(10)).checker == "commits are by a quorum"


def test_a_read_without_a_round_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(self: ReadRounds, round: int) -> list[PendingRead]:
        return confirm(self, 1 << 60)

    confirm = ReadRounds.confirm
    monkeypatch.setattr(ReadRounds, "confirm", trusting)
    assert _caught(range(10)).checker == "reads are linearizable"


def test_a_leader_without_a_majority_that_stays_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_check_quorum", lambda self: True)
    assert _caught(range(60)).checker.startswith("liveness")


def test_a_snapshot_that_is_forgotten_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower waits for ever."""
    monkeypatch.setattr(Leader, "_time_snapshots", lambda self: None)
    assert _caught(range(200)).checker.startswith("liveness")


def test_a_failing_scenario_is_shortened_and_replayed_from_a_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A snapshot that loses its membership needs a snapshot, and not much else."""
    restore = Raft.snapshot_applied

    def forgetful(self: Raft, snapshot: Snapshot) -> None:
        before = self.membership
        restore(self, snapshot)
        self.membership = before

    monkeypatch.setattr(Raft, "snapshot_applied", forgetful)
    seed = next(seed for seed in range(20) if _fails(seed, draw(seed, CHAOS_MS)))
    whole = draw(seed, CHAOS_MS)
    part = shrink(whole, lambda faults: _fails(seed, faults), runs_max=60)
    assert len(part) < len(whole) / 4
    Script("raft", seed, CHAOS_MS, part).save(tmp_path / "bug.json")
    script = load(tmp_path / "bug.json")
    assert script.faults == part
    assert _fails(script.seed, script.faults)
    monkeypatch.undo()
    assert not _fails(script.seed, script.faults)


def _fails(seed: int, faults: list[Fault]) -> bool:
    try:
        run(seed, faults=faults)
    except Violation:
        return True
    return False
