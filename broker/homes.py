"""The clients of this node: their links, and the sessions that are at home here.

    link:     said Hello --> waiting for shard 0 --> in service (one session) --> lost
    session:  in service <--> link lost (grace runs) --> closed by an entry on shard 0
                    \\--> moved: the client resumed at another node

What a session is stands in the registry on shard 0. A home only adds what this node owes the
client: answers to be sent, and operations that need several answers.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from broker.machines.commands import SessionOpen, SessionResume
from broker.protocol import AnyAnswer, Confirmed, encode_answer, join_answers
from broker.router import Caller, Place, Saga, Send

HELD_PER_SECOND = 8
"""Of one session and shard. A client says one after each new leader, link or gap."""


@dataclass(slots=True)
class Running:
    """A saga and the step whose answer it waits for."""

    saga: Saga
    step: Send


@dataclass(slots=True)
class Link:
    """A client's ZeroMQ identity on this node."""

    number: int  #: of this boot; how entries on shard 0 name the link
    identity: bytes
    hello: SessionOpen | SessionResume | None  #: asked of shard 0, not answered yet
    asked_ms: int
    session: int = 0  #: 0: not in service yet
    unread: int = 0  #: bytes sent since the client last said anything


@dataclass(slots=True)
class Home:
    """A session at home on this node."""

    caller: Caller
    epoch: int
    since: int  #: the epoch with which its link began; what was sent before is late
    grace_ms: int
    link: Link | None  #: None: lost
    lost_ms: int = 0  #: when the link was lost
    closing: str = ""  #: why the session is to end, once that is decided
    confirms: list[int] = field(default_factory=list)
    answers: list[bytes] = field(default_factory=list)
    missing: dict[int, set[Place]] = field(default_factory=dict)
    """Publishes to several places: who has not confirmed yet."""
    sagas: dict[int, Running] = field(default_factory=dict)
    held_ms: dict[int, deque[int]] = field(default_factory=dict)
    """By shard: when its last `Held` operations came."""

    def may_hold(self, shard: int, now_ms: int) -> bool:
        """Whether another `Held` of this shard may pass: `HELD_PER_SECOND` of them."""
        times = self.held_ms.setdefault(shard & 0xFFFF, deque(maxlen=HELD_PER_SECOND))
        if len(times) == HELD_PER_SECOND and now_ms - times[0] < 1000:
            return False
        times.append(now_ms)
        return True

    def say(self, answer: AnyAnswer) -> None:
        """Send an answer with this turn's frame; confirms go after everything else."""
        if isinstance(answer, Confirmed):
            self.confirms.extend(answer.seqs)
        else:
            self.answers.append(encode_answer(answer))

    def frame(self) -> bytes | None:
        """All answers of this turn in one frame; without a link there is nobody to tell."""
        answers, confirms = self.answers, self.confirms
        if not answers and not confirms:
            return None
        if confirms:
            answers.append(encode_answer(Confirmed(tuple(confirms))))
        self.answers, self.confirms = [], []
        return join_answers(answers) if self.link is not None else None

    def retire(self, floor: int) -> None:
        """Forget what the client has an answer to."""
        for table in (self.missing, self.sagas):
            if table:
                for seq in [seq for seq in table if seq < floor]:
                    del table[seq]


@dataclass(slots=True)
class Homes:
    """All links and homes of this node."""

    by_identity: dict[bytes, Link] = field(default_factory=dict)
    by_number: dict[int, Link] = field(default_factory=dict)
    by_session: dict[int, Home] = field(default_factory=dict)
    _links: int = 0

    def open_link(self, identity: bytes, now_ms: int) -> Link:
        """A new link; an old one under the same identity is forgotten."""
        old = self.by_identity.get(identity)
        if old is not None:
            self.drop_link(old, now_ms)
        self._links += 1
        link = Link(self._links, identity, None, now_ms)
        self.by_identity[identity] = self.by_number[link.number] = link
        return link

    def drop_link(self, link: Link, now_ms: int) -> None:
        """The link is gone; its session's grace begins."""
        self.by_identity.pop(link.identity, None)
        self.by_number.pop(link.number, None)
        home = self.by_session.get(link.session)
        if home is not None and home.link is link:
            home.link = None
            home.lost_ms = now_ms
            home.answers.clear()
            home.confirms.clear()

    def drop_home(self, session: int) -> Home | None:
        """The session has ended, or is at home elsewhere."""
        home = self.by_session.pop(session, None)
        if home is not None and home.link is not None:
            self.by_identity.pop(home.link.identity, None)
            self.by_number.pop(home.link.number, None)
        return home
