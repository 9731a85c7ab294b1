"""All sessions of the cluster: where each client is at home, and the secret to resume it.

    open ------> epoch 1 --- resume, anywhere ---> epoch 2 --- ... --- close ---> (gone)

The epoch tells an expiry that was proposed before a resume from one proposed after it.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from broker.errors import Code
from broker.machines.commands import SessionOpen, SessionResume
from broker.machines.effects import SessionMoved, SessionRefused
from broker.machines.limits import Limits


class SessionRecord(msgspec.Struct, frozen=True, array_like=True):
    id: int
    token: bytes
    vhost: str
    user: str
    node: str
    boot: int
    link: int
    epoch: int
    grace_ms: int
    client: dict[str, str]
    opened_ms: int  #: entry time
    resumed: bool = False  #: the client has been welcomed, and has come back since


class Registry:
    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._records: dict[int, SessionRecord] = {}
        self._by_token: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[SessionRecord]:
        """All records, oldest session first."""
        return iter(self._records.values())

    def __contains__(self, session: int) -> bool:
        return session in self._records

    def get(self, session: int) -> SessionRecord | None:
        return self._records.get(session)

    def open(self, command: SessionOpen, id: int, now_ms: int) -> SessionMoved | SessionRefused:
        """A new session, or the one that this client has opened before.

        A client whose node went away before it was welcomed says the same again elsewhere, and
        its own token names the session. Once it has resumed, an opening is one that comes late.
        """
        record = self._records.get(self._by_token.get(command.token, 0))
        if record is not None:
            home = (record.node, record.boot, record.link)
            if home == (command.node, command.boot, command.link):
                return _moved(record)
            if record.resumed:
                return _refused(command, 0, Code.SESSION_EXPIRED, "the session has moved on")
            return _moved(self._at(record, command))
        if len(self._records) >= self.limits.sessions_max:
            text = f"there are {self.limits.sessions_max} sessions, which is the limit"
            return _refused(command, 0, Code.RESOURCE_EXHAUSTED, text)
        record = SessionRecord(
            id=id,
            token=command.token,
            vhost=command.vhost,
            user=command.user,
            node=command.node,
            boot=command.boot,
            link=command.link,
            epoch=1,
            grace_ms=command.grace_ms,
            client=command.client,
            opened_ms=now_ms,
        )
        self._keep(record)
        return _moved(record)

    def resume(self, command: SessionResume) -> SessionMoved | SessionRefused:
        """Move the session to where its client is now."""
        record = self._records.get(command.session)
        if record is None or record.token != command.token:
            text = "there is no such session (any more), or its token is another"
            return _refused(command, command.session, Code.SESSION_EXPIRED, text)
        # A resume said twice moves the epoch twice: an expiry proposed in between is void.
        return _moved(self._at(record, command))

    def _at(self, record: SessionRecord, command: SessionOpen | SessionResume) -> SessionRecord:
        """The session in its new home."""
        record = msgspec.structs.replace(
            record,
            node=command.node,
            boot=command.boot,
            link=command.link,
            epoch=record.epoch + 1,
            resumed=isinstance(command, SessionResume),
        )
        self._keep(record)
        return record

    def close(self, session: int, epoch: int) -> bool:
        """Was it there, and at this epoch (0: whatever the epoch)? Then it is gone."""
        record = self._records.get(session)
        if record is None or epoch not in (0, record.epoch):
            return False
        del self._records[session], self._by_token[record.token]
        return True

    def state(self) -> list[SessionRecord]:
        return list(self._records.values())

    def load(self, records: list[SessionRecord]) -> None:
        """Be as it was then, whatever is here now."""
        self._records.clear()
        self._by_token.clear()
        for record in records:
            self._keep(record)

    def _keep(self, record: SessionRecord) -> None:
        self._records[record.id] = record
        self._by_token[record.token] = record.id


def _moved(record: SessionRecord) -> SessionMoved:
    return SessionMoved(
        record.id, record.node, record.boot, record.link, record.epoch, record.token
    )


def _refused(
    command: SessionOpen | SessionResume, session: int, code: Code, text: str
) -> SessionRefused:
    return SessionRefused(session, command.node, command.boot, command.link, code, text)
