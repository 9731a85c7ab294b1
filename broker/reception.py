"""Clients come, stay, move on and leave: what becomes of a `Hello` and of a session at home here.

Hello --> asked of shard 0, again and again --> moved here: Welcome
                                            --> refused, or no answer: the link is dropped
at home here --> moved to another link or node, or gone
"""

from __future__ import annotations

from broker.cluster import Cluster
from broker.errors import Code
from broker.homes import Home, Homes, Link
from broker.keeper import Keeper
from broker.machines import effects as fx
from broker.machines.commands import SessionOpen, SessionResume, encode
from broker.machines.registry import SessionRecord
from broker.protocol import VERSION, Denied, Hello, Welcome, encode_answer, join_answers
from broker.queues import Queues
from broker.router import TOPOLOGY, Caller
from broker.volatile import VolatileShard

TOKEN_BYTES = range(16, 65)
"""A shorter secret may be another client's too, and every node keeps it for the session's life."""


class Reception:
    """Links and homes, in step with the registry on shard 0."""

    def __init__(
        self,
        cluster: Cluster,
        homes: Homes,
        volatile: VolatileShard,
        keeper: Keeper,
        queues: Queues,
    ) -> None:
        self.denied: list[tuple[bytes, bytes]] = []
        """(identity, frame) for those who have no session here."""
        self._cluster, self._homes = cluster, homes
        self._volatile, self._keeper, self._queues = volatile, keeper, queues

    def hello(self, identity: bytes, hello: Hello) -> Link | None:
        """A client asks for a session; None: it cannot have one."""
        refusal = self._refusal(hello)
        if refusal is not None:
            self.deny(identity, *refusal)
            return None
        link = self._homes.open_link(identity, self._cluster.now_ms)
        link.hello = self._question(link, hello)
        self._cluster.submit(TOPOLOGY, encode(link.hello))
        return link

    def deny(self, identity: bytes, code: int, text: str) -> None:
        """Tell a client that it has no session here."""
        if code != Code.SESSION_EXPIRED:  # which also answers a Goodbye
            self._cluster.counters.refused += 1
        self.denied.append((identity, join_answers([encode_answer(Denied(code, text))])))

    def ask_again(self) -> None:
        """What asked shard 0 and got no answer: its leader may have changed meanwhile."""
        now_ms, wait_ms = self._cluster.now_ms, self._cluster.config.hello_ms_max
        for link in list(self._homes.by_number.values()):
            if link.hello is None:
                continue
            if now_ms - link.asked_ms > wait_ms:
                self._homes.drop_link(link, now_ms)
            else:
                self._cluster.submit(TOPOLOGY, encode(link.hello))

    def refused(self, refused: fx.SessionRefused) -> None:
        """Shard 0 does not give a link its session."""
        link = self._homes.by_number.get(refused.link)
        node, boot = self._cluster.node, self._cluster.boot
        if refused.node == node and refused.boot == boot and link is not None:
            self.deny(link.identity, refused.code, refused.text)
            self._homes.drop_link(link, self._cluster.now_ms)

    def moved(self, moved: fx.SessionMoved) -> None:
        """A session has its home on this node or on another from here on."""
        session = moved.session
        if moved.node != self._cluster.node or moved.boot != self._cluster.boot:
            if self._homes.drop_home(session) is not None:
                self._keeper.drop_session(session)
            return
        record = self._cluster.registry.get(session)
        if record is None:
            return  # it has ended within the same entry
        link = self._homes.by_number.get(moved.link)
        home = self._settle(record, moved, link)
        for queue in self._cluster.topology.owned_by(session):
            self._queues.create(queue)
        if link is not None:
            self._welcome(home, link, record, moved)

    def gone(self, session: int, reason: str) -> None:
        """A session has ended."""
        home = self._homes.drop_home(session)
        if home is not None:
            self._keeper.drop_session(session)
            if not home.closing:
                self._cluster.counters.sessions_expired += 1
            if home.link is not None:
                text = f"the session ended: {reason}"
                self.deny(home.link.identity, Code.SESSION_EXPIRED, text)
        elif session in self._volatile.machine.sessions:
            self._keeper.drop_session(session)

    def look_again(self) -> None:
        """The registry is another, and nobody has told what happened to the sessions here.

        Links that still wait for an answer ask again anyway, and get it again.
        """
        for session, home in list(self._homes.by_session.items()):
            record = self._cluster.registry.get(session)
            if record is None:
                self.gone(session, "it ended while this node was behind")
            elif (record.node, record.boot) != (self._cluster.node, self._cluster.boot):
                self._homes.drop_home(session)
                self._keeper.drop_session(session)
            else:
                home.epoch = record.epoch

    def _refusal(self, hello: Hello) -> tuple[int, str] | None:
        """(code, text) for what this node does not even ask of shard 0."""
        config = self._cluster.config
        if hello.version != VERSION:
            text = f"protocol version {hello.version} is not spoken here; this node speaks"
            return Code.NOT_ALLOWED, f"{text} {VERSION}"
        limit = config.name_bytes_max
        if len(hello.vhost.encode()) > limit or len(hello.user.encode()) > limit:
            text = f"vhost or user is longer than {limit} bytes (name_bytes_max)"
            return Code.INVALID_ARGUMENT, text
        if sum(len(k) + len(v) for k, v in hello.client.items()) > config.header_bytes_max:
            text = f"client properties exceed {config.header_bytes_max} bytes"
            return Code.INVALID_ARGUMENT, text
        if len(hello.token) not in TOKEN_BYTES:
            text = f"a token of {len(hello.token)} bytes; send 16 to 64 random ones"
            return Code.INVALID_ARGUMENT, text
        return None

    def _question(self, link: Link, hello: Hello) -> SessionOpen | SessionResume:
        cluster = self._cluster
        if hello.session:
            return SessionResume(
                hello.session, hello.token, cluster.node, cluster.boot, link.number
            )
        wished = max(hello.grace_ms, 0) or cluster.config.grace_ms
        return SessionOpen(
            cluster.node,
            cluster.boot,
            link.number,
            hello.token,
            hello.vhost,
            hello.user,
            min(wished, cluster.config.grace_ms_max),
            hello.client,
        )

    def _settle(self, record: SessionRecord, moved: fx.SessionMoved, link: Link | None) -> Home:
        """The session's home, new or with another link than before."""
        now_ms = self._cluster.now_ms
        home = self._homes.by_session.get(moved.session)
        if home is None:
            caller = Caller(moved.session, record.vhost, 0, self._cluster.node)
            home = Home(caller, moved.epoch, moved.epoch, record.grace_ms, None, now_ms)
            self._homes.by_session[moved.session] = home
        elif home.link is not link:
            home.since = moved.epoch
            if home.link is not None:
                self._homes.drop_link(home.link, now_ms)
        home.epoch = moved.epoch
        home.link = link
        home.lost_ms = now_ms
        return home

    def _welcome(
        self, home: Home, link: Link, record: SessionRecord, moved: fx.SessionMoved
    ) -> None:
        cluster = self._cluster
        if link.hello is None:
            pass  # a Hello that was asked again: it was counted the first time
        elif moved.epoch == 1:
            cluster.counters.sessions_opened += 1
        else:
            cluster.counters.sessions_resumed += 1
        link.session, link.hello = moved.session, None
        others = [p.address for p in cluster.peers.values() if p.address and not p.guest]
        home.say(
            Welcome(
                moved.session,
                moved.token,
                moved.epoch,
                cluster.node,
                cluster.boot,
                record.grace_ms,
                cluster.config.body_bytes_max,
                [cluster.address, *others],
            )
        )
