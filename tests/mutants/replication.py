"""Bugs of replication: what is committed, acknowledged, truncated, sent again and held back."""

from __future__ import annotations

import pytest

from raftlog import quorum
from raftlog.leader import Leader, Uncommitted
from raftlog.log import Log
from raftlog.progress import Inflights, Progress
from raftlog.raft import Raft
from tests.mutants.edit import edit
from tests.mutants.judges import GROUP, STEPS
from tests.mutants.mutant import mutant


@mutant(GROUP)
def commit_by_counting_alone(patch: pytest.MonkeyPatch) -> None:
    """Entries of older terms are committed when a majority has them (thesis, figure 3.8)."""
    edit(
        patch,
        Leader,
        "commit",
        "index <= log.committed or log.term(index) != raft.term",
        "index <= log.committed",
    )


@mutant(GROUP)
def no_entry_at_the_start_of_a_term(patch: pytest.MonkeyPatch) -> None:
    """A new leader appends no no-op: what it inherits waits for somebody's proposal, and so do
    its reads (etcd#7331, tikv#6340, redpanda#10921)."""
    edit(patch, Raft, "_become_leader", "self.leading.append(EntryKind.NORMAL, b'')", "pass")


@mutant(GROUP)
def append_reply_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """A follower acknowledges entries before they are on its disk."""
    edit(patch, Raft, "_acknowledge", "self.messages_after.append", "self.messages.append")


@mutant(GROUP)
def own_acknowledgement_before_fsync(patch: pytest.MonkeyPatch) -> None:
    """A leader counts its own log as durable at once: its crash loses what it committed."""
    edit(
        patch,
        Leader,
        "append",
        "self.flush_wanted = True",
        "self.flush_wanted = True; self.durable(index)",
    )


@mutant(GROUP)
def majority_counted_one_too_small(patch: pytest.MonkeyPatch) -> None:
    """The majority is counted one too small: half of an even group decides, and two of five."""
    edit(patch, quorum, "majority_index", "count - 1 >> 1", "count >> 1")


@mutant(GROUP)
def old_append_truncates(patch: pytest.MonkeyPatch) -> None:
    """An append that comes late cuts off the entries behind it that were acknowledged since."""
    edit(patch, Log, "_news", "return ()", "return entries")


@mutant(GROUP)
def append_without_log_check(patch: pytest.MonkeyPatch) -> None:
    """A follower takes entries although its log differs before them."""
    edit(patch, Log, "follow", "not self.has(prev_index, prev_term)", "prev_index > self.last")


@mutant(STEPS)
def follower_commits_without_log_check(patch: pytest.MonkeyPatch) -> None:
    """A follower commits up to the leader's index in entries that the leader has not checked.

    Our leaders find the exact place where logs part, and so never give it an occasion.
    """
    edit(patch, Raft, "_follow", "min(request.commit, last)", "min(request.commit, log.last)")


@mutant(GROUP)
def heartbeat_commits_beyond_match(patch: pytest.MonkeyPatch) -> None:
    """A heartbeat carries the leader's commit index to a follower with another log."""
    edit(patch, Leader, "_send_heartbeats", "min(progress.match, committed)", "committed")
    edit(
        patch, Log, "commit_to", "self.committed = index", "self.committed = min(index, self.last)"
    )
    edit(
        patch,
        Log,
        "commit_to",
        "assert index <= self.last, f'commit {index} of a log up to {self.last}: entries lost'",
        "pass",
    )


@mutant(GROUP)
def window_leaks(patch: pytest.MonkeyPatch) -> None:
    """The last message of a window is never freed by its own acknowledgement."""
    edit(patch, Inflights, "free_to", "sent[0][0] <= index", "sent[0][0] < index")


@mutant(GROUP)
def nothing_leaves_when_the_window_is_full(patch: pytest.MonkeyPatch) -> None:
    """With all appends of a full window lost, nothing finds that out (etcd#14633)."""
    edit(patch, Leader, "_send_append", "replicating or not paused", "not paused")


@mutant(GROUP)
def uncommitted_bytes_leak(patch: pytest.MonkeyPatch) -> None:
    """What is committed stays on the account that holds publishers back (cockroach#31618)."""
    patch.setattr(Uncommitted, "release", lambda self, index: None)


@mutant(GROUP)
def refusals_are_not_heeded_while_replicating(patch: pytest.MonkeyPatch) -> None:
    """A lost append is refused again and again, and never sent again."""
    edit(
        patch,
        Progress,
        "rejected",
        "self.state is ProgressState.SNAPSHOT or index <= self.match",
        "self.state is not ProgressState.PROBE or index <= self.match",
    )


@mutant(GROUP)
def transfer_takes_proposals(patch: pytest.MonkeyPatch) -> None:
    """Proposals are taken while leadership is handed over, and get lost (hashicorp#581)."""
    edit(patch, Leader, "propose", "raise ProposalDropped(DropReason.TRANSFERRING)", "pass")


@mutant(GROUP)
def transfer_never_given_up(patch: pytest.MonkeyPatch) -> None:
    """The target has died, and the leader refuses proposals for ever."""
    edit(patch, Leader, "tick", "self.transferee = NOBODY", "pass")
