"""Single steps that no well-behaved group takes, each with the accident it prevents."""

from __future__ import annotations

import pytest

from raftlog.config import Config
from raftlog.errors import Compacted, ConfigError, SnapshotOutOfDate, Unavailable
from raftlog.membership import Change, Step, StepKind, encode_change, is_voter
from raftlog.messages import (
    AppendReject,
    AppendReply,
    AppendRequest,
    Entry,
    HardState,
    HeartbeatReply,
    HeartbeatRequest,
    Membership,
    Message,
    MessageInvalid,
    PreVoteReply,
    PreVoteRequest,
    ReadIndexReply,
    ReadIndexRequest,
    Snapshot,
    SnapshotRequest,
    StaleTerm,
    TimeoutNow,
    VoteReply,
    VoteRequest,
    decode_message,
    encode_message,
)
from raftlog.node import DropReason, ProposalDropped, RawNode, Role
from raftlog.progress import Inflights, Progress, ProgressState
from raftlog.storage import MemoryStorage

TRIO = Membership(voters=(1, 2, 3))


def follower(*terms: int, term: int = 1, commit: int = 0) -> tuple[RawNode, MemoryStorage]:
    storage = MemoryStorage(TRIO)
    storage.append([Entry(index, number, 0, b"x") for index, number in enumerate(terms, 1)])
    storage.set_hard_state(HardState(term, 0, commit))
    return RawNode(Config(id=3), storage), storage


def carry_out(node: RawNode, storage: MemoryStorage) -> list[Message]:
    """Carry out one Ready; the messages it sends."""
    ready = node.ready()
    if ready.snapshot is not None:
        storage.apply_snapshot(ready.snapshot)
    storage.append(ready.entries)
    if ready.hard_state is not None:
        storage.set_hard_state(ready.hard_state)
    node.advance(ready)
    return [*ready.messages, *ready.messages_after]


def test_nothing_is_committed_beyond_what_the_message_showed_to_be_equal() -> None:
    """The follower's entry 3 may differ from the one that the leader committed."""
    node, _ = follower(1, 1, 1)
    node.step(AppendRequest(1, 3, 2, 1, 1, 3, (Entry(2, 1, 0, b"x"),)))
    assert (node.commit, node.last_index) == (2, 3)


def test_an_old_message_does_not_shorten_the_log() -> None:
    """What lies behind it may have been acknowledged."""
    node, storage = follower(1, 1, 1)
    node.step(AppendRequest(1, 3, 1, 0, 0, 0, (Entry(1, 1, 0, b"x"),)))
    assert node.last_index == 3
    assert carry_out(node, storage) == [AppendReply(3, 1, 1, 1)]


def test_a_snapshot_whose_entry_is_here_keeps_what_follows() -> None:
    """The entries behind it may have been acknowledged."""
    node, storage = follower(1, 1, 1)
    node.step(SnapshotRequest(1, 3, 1, Snapshot(2, 1, TRIO)))
    assert (node.commit, node.last_index) == (2, 3)
    assert carry_out(node, storage) == [AppendReply(3, 1, 1, 2)]
    assert storage.last_index() == 3


def test_a_snapshot_that_contradicts_the_log_replaces_it() -> None:
    node, storage = follower(1, 1, 1)
    larger = Membership(voters=(1, 2, 3, 4))
    node.step(SnapshotRequest(1, 3, 2, Snapshot(2, 2, larger)))
    node.campaign()
    assert node.role is Role.FOLLOWER  # not before the snapshot is durable
    assert carry_out(node, storage) == [AppendReply(3, 1, 2, 2)]
    assert (node.commit, node.applied, node.last_index) == (2, 2, 2)
    assert node.membership == larger
    assert is_voter(node.membership, 4)


def test_entries_replaced_during_their_write_are_not_durable() -> None:
    """What was written is not what stands there now: it must be written again."""
    node, storage = follower(1)
    node.step(AppendRequest(1, 3, 1, 1, 1, 0, (Entry(2, 1, 0, b"old"), Entry(3, 1, 0, b"old"))))
    ready = node.ready()
    node.step(AppendRequest(2, 3, 2, 1, 1, 0, (Entry(2, 2, 0, b"new"), Entry(3, 2, 0, b"new"))))
    storage.append(ready.entries)
    assert ready.hard_state is None
    assert not node.has_ready()  # one at a time
    node.advance(ready)
    again = node.ready()
    assert [entry.data for entry in again.entries] == [b"new", b"new"]
    assert again.messages_after == [AppendReply(3, 2, 2, 3)]


def test_a_change_handed_out_before_a_snapshot_builds_on_the_old_membership() -> None:
    node, storage = follower(term=1)
    change = Change((Step(StepKind.ADD_LEARNER, 4),))
    node.step(AppendRequest(1, 3, 1, 0, 0, 1, (Entry(1, 1, 1, encode_change(change)),)))
    ready = node.ready()
    later = Membership(voters=(1, 2, 3, 5), learners=(4,))
    node.step(SnapshotRequest(1, 3, 1, Snapshot(9, 1, later)))
    storage.append(ready.entries)
    assert node.apply_conf_change(change) == Membership(voters=(1, 2, 3), learners=(4,))
    node.advance(ready)
    carry_out(node, storage)
    assert (node.membership, node.applied) == (later, 9)


def test_a_removed_node_votes_for_no_shorter_log_but_says_that_it_is_removed() -> None:
    """1 and 2 need its vote as long as they do not know that it is removed.

    Its acknowledgements count just as long with a leader that does not know it either, so its
    entries from after its removal may be committed.
    """
    storage = MemoryStorage(Membership(voters=(1, 2)))
    storage.append([Entry(index, 1, 0, b"x") for index in range(1, 6)])
    storage.set_hard_state(HardState(1, 0, 3))
    node = RawNode(Config(id=3, applied=3), storage)
    node.step(PreVoteRequest(1, 3, 2, 4, 1))
    node.step(VoteRequest(1, 3, 3, 4, 1))
    assert [m for m in carry_out(node, storage) if isinstance(m, (PreVoteReply, VoteReply))] == [
        PreVoteReply(3, 1, 1, False, 3, 1),
        VoteReply(3, 1, 3, False, 3, 1),
    ]


def test_a_commit_that_a_refusal_tells_of_counts_only_when_its_entry_is_here() -> None:
    node, storage = follower(1, 2, 2, term=4)
    node.campaign()
    carry_out(node, storage)
    node.step(PreVoteReply(1, 3, 4, False, 3, 3))  # another entry
    node.step(PreVoteReply(1, 3, 4, False, 9, 3))  # a longer log
    assert (node.role, node.commit) == (Role.PRE_CANDIDATE, 0)
    node.step(PreVoteReply(1, 3, 4, False, 2, 2))
    assert (node.role, node.commit) == (Role.PRE_CANDIDATE, 2)


def test_who_hears_in_a_refusal_of_a_committed_change_does_not_stand_before_it_is_applied() -> None:
    node, storage = follower(term=1)
    change = encode_change(Change((Step(StepKind.REMOVE, 1),)))
    node.step(AppendRequest(1, 3, 1, 0, 0, 0, (Entry(1, 1, 1, change), Entry(2, 1, 0, b"x"))))
    carry_out(node, storage)
    node.campaign()
    carry_out(node, storage)
    node.step(PreVoteReply(1, 3, 1, False, 1, 1))
    assert (node.role, node.commit, node.leader) == (Role.FOLLOWER, 1, 0)
    node.campaign()
    assert node.role is Role.FOLLOWER


def test_an_answer_to_an_older_pre_vote_counts_for_nothing() -> None:
    node, storage = follower(1, term=4)
    node.campaign()
    carry_out(node, storage)
    node.step(PreVoteReply(1, 3, 4, True))  # asked when this node was in term 3
    assert node.role is Role.PRE_CANDIDATE
    node.step(PreVoteReply(2, 3, 5, True))
    assert (node.role, node.term) == (Role.CANDIDATE, 5)


def test_a_pre_vote_refused_by_a_node_behind_is_counted() -> None:
    """It is in a lower term, but has the longer log."""
    node, storage = follower(1, term=4)
    node.campaign()
    carry_out(node, storage)
    node.step(PreVoteReply(1, 3, 2, False))
    node.step(PreVoteReply(2, 3, 2, False))
    assert (node.role, node.term) == (Role.FOLLOWER, 4)


def test_old_refusals_are_not_obeyed() -> None:
    progress = Progress(Inflights(8, 1 << 20), next=11, match=9, state=ProgressState.REPLICATE)
    assert not progress.rejected(9, 3)
    assert (progress.state, progress.next) == (ProgressState.REPLICATE, 11)
    progress.become_probe()
    assert not progress.rejected(12, 3)
    assert progress.next == 10


def test_promises_of_a_term_that_is_over_are_not_sent() -> None:
    """The log may be cut before they would leave: they would not be true any more."""
    node, storage = follower(1)
    node.step(AppendRequest(1, 3, 1, 1, 1, 0, (Entry(2, 1, 0, b"old"),)))
    node.step(AppendRequest(2, 3, 2, 1, 1, 0, (Entry(2, 2, 0, b"new"),)))
    assert carry_out(node, storage) == [AppendReply(3, 2, 2, 2)]


def test_a_heartbeat_is_answered_at_once_only_in_a_durable_term() -> None:
    node, _ = follower(1)
    node.step(HeartbeatRequest(1, 3, 2, 0, 7))
    ready = node.ready()
    assert ready.messages == []
    assert ready.messages_after == [HeartbeatReply(3, 1, 2, 7)]
    node.advance(ready)
    node.step(HeartbeatRequest(1, 3, 2, 0, 8))
    assert node.ready().messages == [HeartbeatReply(3, 1, 2, 8)]


def test_replies_to_another_life_answer_no_read() -> None:
    """Two lives number their reads from different places."""
    lives = []
    for seed in (1, 2):
        node = RawNode(Config(id=3, seed=seed), MemoryStorage(TRIO))
        node.step(HeartbeatRequest(1, 3, 1, 0, 0))
        node.read_index(b"r")
        requests = [m for m in node.ready().messages if isinstance(m, ReadIndexRequest)]
        lives.append((node, requests[0].context))
    (_, old), (node, new) = lives
    node.advance(node._outstanding)  # type: ignore[arg-type]
    node.step(ReadIndexReply(1, 3, 1, old, 5))
    assert node.ready().read_states == []
    node.advance(node._outstanding)  # type: ignore[arg-type]
    node.step(ReadIndexReply(1, 3, 1, new, 6))
    assert [read.index for read in node.ready().read_states] == [6]


def test_a_lost_disk_stops_the_node() -> None:
    """A leader that says "committed, as you have acknowledged" to a log without it."""
    node, _ = follower(1)
    with pytest.raises(AssertionError, match="entries lost"):
        node.step(HeartbeatRequest(1, 3, 1, 9, 0))


def test_two_leaders_in_one_term_stop_the_node() -> None:
    node, _ = follower(1)
    node.step(HeartbeatRequest(1, 3, 1, 0, 0))
    with pytest.raises(AssertionError, match="1"):
        node.step(HeartbeatRequest(2, 3, 1, 0, 0))


def test_a_message_for_another_node_is_ignored() -> None:
    node, _ = follower(1)
    node.step(HeartbeatRequest(1, 2, 9, 0, 0))
    assert (node.term, node.has_ready()) == (1, False)


def test_the_machine_may_be_ahead_of_the_durable_commit_index() -> None:
    storage = MemoryStorage(TRIO)
    storage.append([Entry(index, 1, 0, b"x") for index in range(1, 6)])
    storage.set_hard_state(HardState(1, 2, 1))
    node = RawNode(Config(id=3, applied=4), storage)
    assert (node.commit, node.applied) == (4, 4)
    assert not node.has_ready()


def test_an_unsent_proposal_says_why() -> None:
    node, _ = follower(1)
    with pytest.raises(ProposalDropped) as caught:
        node.propose(b"x")
    assert caught.value.reason is DropReason.NOT_LEADER


MESSAGES: list[Message] = [
    AppendRequest(1, 2, 3, 4, 5, 6, (Entry(5, 3, 0, b"\x00\xff"), Entry(6, 3, 1, b""))),
    AppendReply(1, 2, 3, 4),
    AppendReject(1, 2, 3, 4, 5, 6),
    HeartbeatRequest(1, 2, 3, 4, 5),
    HeartbeatReply(1, 2, 3, 4),
    PreVoteRequest(1, 2, 3, 4, 5),
    PreVoteReply(1, 2, 3, True),
    VoteRequest(1, 2, 3, 4, 5, True),
    VoteReply(1, 2, 3, False),
    SnapshotRequest(1, 2, 3, Snapshot(4, 5, Membership((1,), (2,), (3,), (2,), True), b"s")),
    TimeoutNow(1, 2, 3),
    StaleTerm(1, 2, 3),
    ReadIndexRequest(1, 2, 3, 1 << 61),
    ReadIndexReply(1, 2, 3, 1 << 61, 5),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_survive_the_wire(message: Message) -> None:
    data = encode_message(message)
    assert decode_message(data) == message
    assert decode_message(memoryview(data)) == message
    for end in range(len(data)):
        with pytest.raises(MessageInvalid):
            decode_message(data[:end])


@pytest.mark.parametrize("data", [b"", b"\x90", b"\x91\x63", b"\x94\x0b\xa1x\x02\x03", b"\xc1"])
def test_other_bytes_are_no_message(data: bytes) -> None:
    with pytest.raises(MessageInvalid):
        decode_message(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 0},
        {"heartbeat_tick": 10},
        {"heartbeat_tick": 0},
        {"async_storage_writes": True},
        {"max_inflight_messages": 0},
        {"applied": -1},
    ],
)
def test_a_wrong_setting_is_named(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Config(**{"id": 1, **wrong})  # type: ignore[arg-type]


def test_what_memory_storage_does_not_have() -> None:
    storage = MemoryStorage([1, 2, 3])
    storage.append([Entry(index, 1, 0, b"12345") for index in range(1, 6)])
    storage.create_snapshot(3, TRIO, b"sum")
    storage.compact(2)
    assert (storage.first_index(), storage.last_index(), storage.term(2)) == (3, 5, 1)
    assert [entry.index for entry in storage.entries(3, 6, 11)] == [3, 4]
    assert [entry.index for entry in storage.entries(3, 6, 0)] == [3]
    for index, error in ((1, Compacted), (6, Unavailable)):
        with pytest.raises(error):
            storage.term(index)
    with pytest.raises(Compacted):
        storage.entries(2, 4, 100)
    with pytest.raises(Unavailable):
        storage.entries(3, 7, 100)
    with pytest.raises(SnapshotOutOfDate):
        storage.create_snapshot(3, TRIO, b"")
    with pytest.raises(SnapshotOutOfDate):
        storage.apply_snapshot(Snapshot(3, 1, TRIO))
    storage.append([Entry(4, 2, 0, b"new")])
    assert (storage.last_index(), storage.term(4)) == (4, 2)


def test_votes_that_come_before_the_turn_is_over_wait_for_its_end() -> None:
    """The request left after the write; the driver still applies when the answers are there."""
    node, storage = follower(1)
    node.campaign()
    carry_out(node, storage)
    node.step(PreVoteReply(1, 3, 2, True))
    ready = node.ready()
    assert ready.hard_state is not None
    storage.set_hard_state(ready.hard_state)
    for voter in (1, 2):
        node.step(VoteReply(voter, 3, 2, True))
    assert node.role is Role.CANDIDATE
    node.advance(ready)
    assert node.role is Role.LEADER


def test_ticks_passed_at_once_are_as_many_one_by_one() -> None:
    one, _ = follower(1)
    other, _ = follower(1)
    idle = one.idle_ticks()
    one.pass_ticks(idle)
    for _ in range(idle):
        other.tick()
    assert not one.has_ready() and not other.has_ready()
    assert one.idle_ticks() == other.idle_ticks() == 0
    one.tick()
    assert one.role is Role.PRE_CANDIDATE
    with pytest.raises(AssertionError):
        one.pass_ticks(one.idle_ticks() + 1)


def test_whoever_knows_its_place_in_the_succession_stands_then_and_not_before() -> None:
    """Else the followers of a dead leader stand together, and split the votes."""
    node, storage = follower(1)
    node.step(HeartbeatRequest(1, 3, 1, 0, 0))
    carry_out(node, storage)
    node.peer_lost(1, 3)
    for _ in range(2):
        node.tick()
        assert node.role is Role.FOLLOWER
    node.tick()
    assert node.role is Role.PRE_CANDIDATE


class _Last:
    """Chance at its worst: always the last of the numbers there are."""

    def randrange(self, stop: int, /) -> int:
        return stop - 1


def test_who_stands_again_waits_up_to_twice_as_long_until_there_is_a_leader() -> None:
    """Candidates that split the votes once would else split them again."""
    storage = MemoryStorage(TRIO)
    node = RawNode(Config(id=3, pre_vote=False, rng=_Last()), storage)

    def ticks_until_it_stands() -> int:
        term, ticks = node.term, 0
        while node.term == term:
            node.tick()
            ticks += 1
        carry_out(node, storage)
        return ticks

    assert [ticks_until_it_stands() for _ in range(4)] == [19, 19, 29, 29]
    node.step(HeartbeatRequest(1, 3, node.term, 0, 0))
    carry_out(node, storage)
    assert [ticks_until_it_stands() for _ in range(3)] == [29, 19, 29]


def test_a_node_that_has_said_that_nothing_is_new_says_so_until_something_happens() -> None:
    """A host asks all its groups in every turn: each must notice whatever there is."""
    node, storage = follower(1)
    assert not node.has_ready()
    ticks = 0
    while not node.has_ready():  # a timeout is news
        node.tick()
        ticks += 1
    assert ticks >= 10
    carry_out(node, storage)
    assert not node.has_ready()
    node.step(HeartbeatRequest(1, 3, 2, 0, 0))
    assert node.has_ready()
    carry_out(node, storage)
    assert not node.has_ready()
    node.step(AppendRequest(1, 3, 2, 1, 1, 0, (Entry(2, 2, 0, b"x"),)))
    assert [type(message) for message in carry_out(node, storage)] == [AppendReply]


def test_leaders_of_many_groups_can_beat_in_the_same_tick() -> None:
    nodes = []
    for late in range(3):
        storage = MemoryStorage(Membership(voters=(3,)))
        node = RawNode(Config(id=3, heartbeat_tick=4), storage)
        node.campaign()
        while node.has_ready():
            carry_out(node, storage)
        node.align_heartbeats(late)
        nodes.append(node)
    for node, ticks in zip(nodes, (4, 3, 2), strict=True):
        assert node.idle_ticks() == ticks - 1
