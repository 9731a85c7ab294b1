"""What Raft nodes store and say to each other: entries, states, snapshots and messages.

    tag  message           from -> to             says
     1   AppendRequest     leader -> any          entries behind (prev_index, prev_term)
     2   AppendReply       any -> leader          "my log is durable and yours up to index"
     3   AppendReject      any -> leader          "I do not have prev"; where to look instead
     4   HeartbeatRequest  leader -> any          "I lead"; commit index, number of a read round
     5   HeartbeatReply    any -> leader          "you do", with the same round
     6   PreVoteRequest    pre-candidate -> voter "would you vote for me in this term?"
     7   PreVoteReply      voter -> pre-candidate
     8   VoteRequest       candidate -> voter
     9   VoteReply         voter -> candidate
    10   SnapshotRequest   leader -> any          the log's beginning, as a snapshot
    11   TimeoutNow        leader -> voter        "stand for election now" (thesis §3.10)
    12   StaleTerm         any -> old leader      "the term is higher than you believe"
    13   ReadIndexRequest  follower -> leader     "from which index may I answer a read?"
    14   ReadIndexReply    leader -> follower

Each message is a type of its own, so that no field changes its meaning. Every one carries
its sender, its target and the sender's term, except that pre-votes carry the term that
would be. On the wire and in the log a struct is a msgpack array; the numbers are part of
the format: never reuse one, add fields only at the end and with a default.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TypeAlias

import msgspec

NOBODY = 0
"""The id that is no node's: no leader, no vote, no transfer."""


class EntryKind(IntEnum):
    """What an entry's data is."""

    NORMAL = 0  #: the machine's; empty data is the no-op at the start of a term
    CHANGE = 1  #: an encoded `Change` of the membership


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One record of the log. `kind` is an `EntryKind`."""

    index: int
    term: int
    kind: int
    data: bytes


class HardState(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What must be durable before a promise leaves. `commit` may lag: it is only a hint.

    (floor_term, floor_index) is where a log ended that this disk once had of the group, and
    has dropped. The replica votes only for logs that are at least as complete, and stands only
    with such a one: what it had acknowledged may be committed, and others may still count on it
    to be protected by this vote.
    """

    term: int = 0
    vote: int = NOBODY
    commit: int = 0
    floor_term: int = 0
    floor_index: int = 0

    def after_drop(self, last_term: int, last_index: int) -> HardState:
        """What must be remembered when the group's log, which ended there, is dropped.

        What the replica acknowledged in this term may still be on its way, and says nothing of
        the one that takes its place here: so that one takes part in later terms only.
        """
        floor = max((self.floor_term, self.floor_index), (last_term, last_index))
        return HardState(self.term + 1, NOBODY, 0, *floor)


class Membership(msgspec.Struct, frozen=True, array_like=True):
    """Who belongs to the group: sorted ids.

    `outgoing` is not empty while two majorities are needed (joint consensus, thesis §4.3).
    `learners_next` are voters of `outgoing` who become learners when the joint phase ends.
    With `auto_leave` the leader ends it by itself.
    """

    voters: tuple[int, ...] = ()
    outgoing: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class Snapshot(msgspec.Struct, frozen=True, array_like=True):
    """The state after the entry at `index`, which was of `term`, under `membership`.

    `data` is the machine's own, or whatever the driver needs to find it: a driver that
    sends snapshots in pieces keeps it small and steps the message when all pieces are there.
    """

    index: int
    term: int
    membership: Membership
    data: bytes = b""


# --- messages -----------------------------------------------------------------------------


class AppendRequest(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """Entries that follow (prev_index, prev_term), and the leader's commit index."""

    sender: int
    target: int
    term: int
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...]


class AppendReply(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """The sender's durable log equals the leader's up to and including `index`."""

    sender: int
    target: int
    term: int
    index: int


class AppendReject(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """The sender has no entry (rejected, prev_term).

    The highest place where the two logs may agree, as far as it can know, is `hint_index`,
    where its own entry has `hint_term`.
    """

    sender: int
    target: int
    term: int
    rejected: int
    hint_index: int
    hint_term: int


class HeartbeatRequest(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """The leader is alive. `commit` never passes what the target has acknowledged."""

    sender: int
    target: int
    term: int
    commit: int
    read_round: int  #: the leader's counter, in this term; the reply repeats it


class HeartbeatReply(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """The sender knew no higher term when the request of `read_round` came."""

    sender: int
    target: int
    term: int
    read_round: int


class PreVoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """`term` is the one the sender would stand in: one above its own."""

    sender: int
    target: int
    term: int
    last_index: int
    last_term: int


class PreVoteReply(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """`term` is the one asked for when granted, the sender's own when not.

    A refusal names an entry that the sender knows to be committed, as one of a vote does.
    """

    sender: int
    target: int
    term: int
    granted: bool
    commit_index: int = 0
    commit_term: int = 0


class VoteRequest(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """The sender stands in `term`. `transfer`: the old leader wishes it."""

    sender: int
    target: int
    term: int
    last_index: int
    last_term: int
    transfer: bool = False


class VoteReply(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """The sender's durable answer for `term`; see `PreVoteReply` for the commit."""

    sender: int
    target: int
    term: int
    granted: bool
    commit_index: int = 0
    commit_term: int = 0


class SnapshotRequest(msgspec.Struct, frozen=True, array_like=True, tag=10):
    """What the target needs lies before the leader's first entry: here is its sum."""

    sender: int
    target: int
    term: int
    snapshot: Snapshot


class TimeoutNow(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """The leader asks the target to stand for election at once."""

    sender: int
    target: int
    term: int


class StaleTerm(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """A leader of an older term spoke to the sender, who is already in `term`."""

    sender: int
    target: int
    term: int


class ReadIndexRequest(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """`context` is the sender's own number, never the caller's request id."""

    sender: int
    target: int
    term: int
    context: int


class ReadIndexReply(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """A read may be answered once the entry at `index` is applied."""

    sender: int
    target: int
    term: int
    context: int
    index: int


Message: TypeAlias = (
    AppendRequest
    | AppendReply
    | AppendReject
    | HeartbeatRequest
    | HeartbeatReply
    | PreVoteRequest
    | PreVoteReply
    | VoteRequest
    | VoteReply
    | SnapshotRequest
    | TimeoutNow
    | StaleTerm
    | ReadIndexRequest
    | ReadIndexReply
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


class MessageInvalid(ValueError):
    """These bytes are not a message."""


def encode_message(message: Message) -> bytes:
    """The bytes of a message, for the wire."""
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """The message in these bytes. Raise `MessageInvalid` when there is none."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise MessageInvalid(str(error)) from error
