"""What nodes say to each other: one frame per peer and phase of a turn.

    node -> node   0x01, msgpack [cluster, sender, boot, number, topology, address, [record, ...]]

Frames from one node to another are numbered without gaps. A receiver that misses a number
knows that records were lost, asks its own clients to repeat what may have been answered by
the lost frame, and says `Lost` so that the sender's clients repeat what was asked in it.
Nothing is ever queued for a peer that cannot be reached.

Parts of snapshots (`Bodies`, `State`) travel in frames of their own, of number 0, over links of
their own: nothing else waits behind them, and a lost one is asked for again.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

from raftlog.messages import Membership

VERSION = 1
_VERSION_BYTE = bytes([VERSION])

_UNDECODABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class PeerProtocolError(ValueError):
    """These bytes are not a peer frame of this version."""


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Common ancestor of what stands in a peer frame."""


class RaftRecord(Record, frozen=True, tag=1):
    """A message of a Raft group, encoded by `raftlog.messages`."""

    group: int
    incarnation: int
    message: bytes


class Forward(Record, frozen=True, tag=2):
    """Commands of clients at the sender, for a shard that the receiver leads or keeps."""

    shard: int
    commands: list[tuple[int, bytes]]  #: (session, command); session 0: the sender itself


class Done(Record, frozen=True, tag=3):
    """Operations without another answer that are done; `index` is the entry's."""

    shard: int
    index: int
    sessions: list[tuple[int, list[int]]]  #: (session, seqs)


class Value(Record, frozen=True, tag=4):
    """The answer to one operation."""

    shard: int
    index: int
    session: int
    seq: int
    value: Any


class No(Record, frozen=True, tag=5):
    """One operation is refused."""

    shard: int
    index: int
    session: int
    seq: int
    code: int
    text: str


class Again(Record, frozen=True, tag=6):
    """The shard does not know the operation's queue: route it again."""

    shard: int
    session: int
    seq: int


class Relay(Record, frozen=True, tag=7):
    """Encoded answers for a client whose home the receiver is.

    `epoch` is the session's as the sender knows it. What was sent before the session came back to
    the receiver is late: it may have been settled from another home meanwhile.
    """

    session: int
    answers: list[bytes]
    epoch: int = 0


class Leads(Record, frozen=True, tag=8):
    """The shards that the sender leads and serves, with its terms."""

    shards: list[tuple[int, int]]  #: (shard, term)
    leaving: bool = False  #: it is about to stop: give it nothing to lead


class Lost(Record, frozen=True, tag=9):
    """Frames of the receiver did not arrive at the sender."""


class Ask(Record, frozen=True, tag=10):
    """A question about the sender's view that changes nothing."""

    number: int
    what: str


class Told(Record, frozen=True, tag=11):
    """The answer to `Ask`: plain data."""

    number: int
    value: Any


class PullBodies(Record, frozen=True, tag=12):
    """Send the bodies of messages with ids above `after` that came up to the entry at `index`."""

    group: int
    incarnation: int
    index: int
    after: int


class Bodies(Record, frozen=True, tag=13):
    """The answer: of those with ids up to `to`, all that are alive. `index`, `after` as asked."""

    group: int
    incarnation: int
    index: int
    after: int
    to: int
    bodies: list[tuple[int, bytes]]  #: (message id, its encoded `Enqueue`), ids ascending


class PullState(Record, frozen=True, tag=14):
    """Send a chunk of your checkpoint at `index`."""

    group: int
    incarnation: int
    index: int
    number: int


class State(Record, frozen=True, tag=15):
    """The answer: chunk `number` of the checkpoint at `index`.

    When `index` is not the one that was asked for, the sender has this one now; without any
    it is 0. `data` is empty then, and where `number` lies behind the last chunk.
    """

    group: int
    incarnation: int
    index: int
    term: int
    membership: Membership
    chunks: int
    number: int
    data: bytes


class StateHash(Record, frozen=True, tag=20):
    """What the state of a group's machine comes to after an entry, at the sender."""

    group: int
    incarnation: int
    index: int
    format: int  #: of the hash: those of different formats are not compared
    hash: bytes


class EntryPull(Record, frozen=True, tag=21):
    """Asks for copies of log entries and bodies: the sender repairs its directory."""

    number: int
    group: int
    incarnation: int
    entries: list[int]  #: indexes
    bodies: list[int]  #: message ids


class EntryPart(Record, frozen=True, tag=22):
    """The answer to `EntryPull`: what the sender has of it, in part when it is much."""

    number: int
    group: int
    entries: list[tuple[int, int, int, bytes]]  #: (index, term, kind, data)
    bodies: list[tuple[int, bytes]]  #: (message id, body)


class Groups(Record, frozen=True, tag=16):
    """Who keeps the groups that the sender leads: (shard, term, version, voters, learners).

    version: of the list of nodes that the group has reached; 0 while it is on its way.
    """

    groups: list[tuple[int, int, int, list[int], list[int]]]


class Change(Record, frozen=True, tag=17):
    """An operator, at the sender, wants the list of nodes changed. Repeated until answered."""

    number: int
    kind: str  #: add, promote or remove
    node: str
    host: str = ""
    port: int = 0


class Changed(Record, frozen=True, tag=18):
    """The answer: code 0 when it is so, otherwise why not."""

    number: int
    code: int
    text: str


class Dismissed(Record, frozen=True, tag=19):
    """The receiver does not belong to the cluster: it is to stop with this exit code.

    Unless its disk is another one: then somebody else spoke under its name.
    """

    code: int
    text: str
    disk: bytes = b""


AnyRecord: TypeAlias = (
    RaftRecord
    | Forward
    | Done
    | Value
    | No
    | Again
    | Relay
    | Leads
    | Lost
    | Ask
    | Told
    | PullBodies
    | Bodies
    | PullState
    | State
    | StateHash
    | EntryPull
    | EntryPart
    | Groups
    | Change
    | Changed
    | Dismissed
)


class PeerFrame(msgspec.Struct, frozen=True, array_like=True):
    cluster: bytes
    sender: str
    boot: int
    number: int  #: 0: a part of a snapshot, which is not counted
    topology: int  #: the sender's applied index of shard 0
    address: str  #: host:port where the sender serves clients
    records: list[AnyRecord]
    disk: bytes = b""  #: the sender's disk, see `GroupStore.disk_id`
    endpoint: str = ""  #: host:port where the other nodes reach the sender
    target_disk: bytes = b""  #: the disk that shard 0 knows of the receiver
    target: str = ""  #: the receiver's name; another node may be at its address by now


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(PeerFrame)


def encode_peer_frame(frame: PeerFrame) -> bytes:
    """The bytes of one frame."""
    return _VERSION_BYTE + _encoder.encode(frame)


def decode_peer_frame(data: bytes) -> PeerFrame:
    """Raise `PeerProtocolError` for anything that is not such a frame."""
    if not data or data[0] != VERSION:
        version = data[0] if data else "none"
        raise PeerProtocolError(f"a peer frame of version {version}, and this one is {VERSION}")
    try:
        return _decoder.decode(memoryview(data)[1:])
    except _UNDECODABLE as error:
        raise PeerProtocolError(str(error)) from error
