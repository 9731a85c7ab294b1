"""Bugs of compaction and snapshots."""

from __future__ import annotations

import pytest

from raftlog.leader import Leader
from raftlog.log import Log
from raftlog.raft import Raft
from tests.mutants.edit import edit
from tests.mutants.judges import GROUP
from tests.mutants.mutant import mutant


@mutant(GROUP)
def compaction_past_what_a_member_needs(patch: pytest.MonkeyPatch) -> None:
    """The log is compacted up to what is applied, whoever follows more slowly."""
    edit(patch, Leader, "compactable_to", "return index", "return self._raft.log.applied")


@mutant(GROUP)
def compaction_past_a_snapshot_on_its_way(patch: pytest.MonkeyPatch) -> None:
    """Compaction does not wait for members that get a snapshot: the next one is due at once."""
    edit(
        patch,
        Leader,
        "compactable_to",
        "member != self._raft.id and answers",
        "member != self._raft.id and answers and not progress.pending_snapshot",
    )


@mutant(GROUP)
def snapshot_without_membership(patch: pytest.MonkeyPatch) -> None:
    """Who is restored from a snapshot keeps the membership it had before."""
    edit(
        patch,
        Raft,
        "snapshot_applied",
        "self.membership = snapshot.membership",
        "self.membership = self.membership if self.membership.voters else snapshot.membership",
    )


@mutant(GROUP)
def snapshot_over_a_longer_log(patch: pytest.MonkeyPatch) -> None:
    """A snapshot that came late replaces a log that is committed beyond it."""
    edit(
        patch,
        Raft,
        "lacks",
        "snapshot.index > log.committed and not log.has(snapshot.index, snapshot.term)",
        "True",
    )
    edit(patch, Log, "restore", "assert snapshot.index >= self.committed", "pass")


@mutant(GROUP)
def snapshot_cuts_off_what_agrees_with_it(patch: pytest.MonkeyPatch) -> None:
    """A snapshot within a log that agrees with it discards the acknowledged entries behind."""
    edit(patch, Raft, "lacks", "not log.has(snapshot.index, snapshot.term)", "True")


@mutant(GROUP)
def snapshot_acknowledged_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """A restored follower says so before the snapshot is on its disk."""
    edit(
        patch,
        Raft,
        "_restore",
        "self._acknowledge(request.sender, log.committed)",
        "self.messages.append(AppendReply(self.id, request.sender, self.term, log.committed))",
    )


@mutant(GROUP)
def stuck_in_snapshot(patch: pytest.MonkeyPatch) -> None:
    """A member whose snapshot was lost, of which nobody reports, gets nothing more (raft#124)."""
    patch.setattr(Leader, "_time_snapshots", lambda self: None)


@mutant(GROUP)
def snapshot_state_left_by_the_report_alone(patch: pytest.MonkeyPatch) -> None:
    """Only its driver ends a member's wait for a snapshot, not its own acknowledgement."""
    edit(
        patch,
        Leader,
        "on_append_reply",
        "progress.match + 1 >= self._raft.log.first_index()",
        "False",
    )
    patch.setattr(Leader, "_time_snapshots", lambda self: None)
