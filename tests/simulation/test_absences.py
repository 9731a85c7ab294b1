"""Snapshots under faults: a slice of seeds, and proof that what guards them is needed.

More seeds: `python -m tests.simulation run 1-500 --level absences`.
"""

from __future__ import annotations

import msgspec
import pytest

from broker.peer_protocol import State
from broker.shard import Shard
from broker.snapshots import transfer
from broker.snapshots.sender import Sender
from broker.snapshots.transfer import Progress, Transfer
from raftlog.storage import GroupStorage
from raftlog.write import Mark
from tests.simulation import absences
from tests.simulation.violation import Violation

SLICE = range(1, 11)
CHAOS_MS = 25_000


def test_snapshots_lose_and_double_nothing_whoever_dies_on_the_way() -> None:
    outcomes = [absences.run(seed, CHAOS_MS) for seed in SLICE]
    assert sum(outcome.seen["snapshots installed"] for outcome in outcomes) > len(SLICE) // 2
    assert any(outcome.faults.get("crash_receiver") for outcome in outcomes)


def _must_be_caught(seeds: range) -> None:
    for seed in seeds:
        try:
            absences.run(seed, CHAOS_MS)
        except Violation:
            return
    pytest.fail(f"no seed of {seeds} noticed the bug")


def test_a_request_that_is_stepped_before_its_bodies_are_here_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Transfer, "needs_bodies", False)
    _must_be_caught(range(1, 30))


def test_a_cursor_that_is_ahead_of_the_disk_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the transfer goes on behind bodies that were never written."""
    real = transfer.saved_progress

    def ahead(storage: GroupStorage) -> Progress:
        progress = real(storage)
        return Progress(progress.to + (2 << 20)) if progress.to else progress

    monkeypatch.setattr(transfer, "saved_progress", ahead)
    _must_be_caught(range(10, 30))


def test_bodies_that_are_left_out_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Sender._bodies

    def some(
        self: Sender, shard: Shard, after: int, to: int
    ) -> tuple[int, list[tuple[int, bytes]]]:
        reached, bodies = real(self, shard, after, to)
        return reached, bodies[:-1]

    monkeypatch.setattr(Sender, "_bodies", some)
    _must_be_caught(range(1, 30))


def test_chunks_of_two_checkpoints_in_one_state_are_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever the giver has by now is taken for what was asked."""

    def careless(self: Transfer, part: State) -> bool:
        mark = Mark(self.index, part.term, part.membership, part.chunks)
        self.part, self.mark = msgspec.structs.replace(part, index=self.index), mark
        return True

    monkeypatch.setattr(Transfer, "_take_state", careless)
    _must_be_caught(range(1, 60))
