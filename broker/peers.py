"""The other nodes, as this one knows them, and what waits to be sent to each.

Records for a peer are gathered through a phase of a turn and leave in one frame. What cannot
leave is dropped, never kept: its number is used up, so the receiver notices the gap.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from broker.peer_protocol import (
    AnyRecord,
    Bodies,
    Done,
    Forward,
    PeerFrame,
    Relay,
    State,
    encode_peer_frame,
)


@dataclass(frozen=True, slots=True)
class Head:
    """What stands in every frame of this node."""

    cluster: bytes
    node: str
    boot: int
    address: str  #: host:port where clients are served
    disk: bytes
    endpoint: str  #: host:port where the other nodes reach this one

    def frame(
        self,
        number: int,
        topology: int,
        records: list[AnyRecord],
        target_disk: bytes = b"",
        target: str = "",
    ) -> PeerFrame:
        """A frame of this node. number 0: one that is not counted."""
        return PeerFrame(
            self.cluster,
            self.node,
            self.boot,
            number,
            topology,
            self.address,
            records,
            self.disk,
            self.endpoint,
            target_disk,
            target,
        )


@dataclass(slots=True)
class Peer:
    """One other node."""

    node: str
    raft_id: int
    boot: int = 0  #: of its last frame; 0: never heard
    number_in: int = 0
    number_out: int = 0
    heard_ms: int = -1_000_000_000
    leaving: bool = False  #: it has gone or is about to, and is to lead nothing
    address: str = ""  #: where it serves clients
    host: str = ""
    port: int = 0  #: for peers
    disk: bytes = b""  #: of its first frame
    known_disk: bytes = b""  #: as shard 0 has it
    endpoint: str = ""  #: host:port, as it says itself
    guest: bool = False  #: not in the list of nodes
    trusted: bool = True  #: what it promises counts: its disk is the one that is known
    told_ms: int = -1_000_000_000  #: when it was last told that it is dismissed
    records: list[AnyRecord] = field(default_factory=list)
    parts: list[Bodies | State] = field(default_factory=list)  #: of snapshots
    forwards: dict[int, list[tuple[int, bytes]]] = field(default_factory=dict)
    relays: dict[tuple[int, int], list[bytes]] = field(default_factory=dict)
    done: dict[tuple[int, int], dict[int, list[int]]] = field(default_factory=dict)

    def confirm(self, shard: int, index: int, session: int, seq: int) -> None:
        """An operation of a session at home there is done."""
        sessions = self.done.get((shard, index))
        if sessions is None:
            sessions = self.done[shard, index] = {}
        seqs = sessions.get(session)
        if seqs is None:
            sessions[session] = [seq]
        else:
            seqs.append(seq)

    def relay(self, session: int, epoch: int, answer: bytes) -> None:
        """An encoded answer for a session at home there since `epoch`, or before."""
        answers = self.relays.get((session, epoch))
        if answers is None:
            self.relays[session, epoch] = [answer]
        else:
            answers.append(answer)

    def forward(self, shard: int, session: int, command: bytes) -> None:
        """A session's command for a shard that is led, or kept, there."""
        commands = self.forwards.get(shard)
        if commands is None:
            self.forwards[shard] = [(session, command)]
        else:
            commands.append((session, command))

    def frame(self, head: Head, topology: int) -> bytes:
        """Everything that waits, in the order in which it makes sense; b"" for nothing.

        Deliveries come before confirms: a cancel is confirmed after the last delivery.
        """
        records = self.records
        if self.relays:
            records += [
                Relay(session, answers, epoch) for (session, epoch), answers in self.relays.items()
            ]
            self.relays = {}
        if self.forwards:
            records += [Forward(shard, commands) for shard, commands in self.forwards.items()]
            self.forwards = {}
        if self.done:
            for (shard, index), sessions in self.done.items():
                records.append(Done(shard, index, list(sessions.items())))
            self.done = {}
        if not records:
            return b""
        self.records = []
        self.number_out += 1
        return self._encoded(head, self.number_out, topology, records)

    def part_frames(self, head: Head, topology: int) -> list[bytes]:
        """The parts of snapshots that wait, each in a frame of its own that is not counted."""
        parts, self.parts = self.parts, []
        return [self._encoded(head, 0, topology, [part]) for part in parts]

    def _encoded(self, head: Head, number: int, topology: int, records: list[AnyRecord]) -> bytes:
        return encode_peer_frame(
            head.frame(number, topology, records, self.known_disk, target=self.node)
        )
