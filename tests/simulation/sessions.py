"""Which sessions there are, by a second reading of shard 0's log.

An expiry names the epoch in which its proposer knew the session. One that a stalled node or a
deposed leader proposes after the session has been resumed elsewhere must end nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from broker.batch import command_id
from broker.machines.commands import AnyCommand, SessionClose, SessionOpen, SessionResume
from tests.simulation.violation import Violation


@dataclass
class _Session:
    home: tuple[str, int, int]  #: where its client opened it
    epoch: int = 1
    resumed: bool = False


@dataclass
class SessionBook:
    """Told of each entry of shard 0, in order."""

    living: dict[int, _Session] = field(default_factory=dict)
    tokens: dict[bytes, int] = field(default_factory=dict)

    def take(self, index: int, commands: Sequence[AnyCommand], found: Collection[int]) -> None:
        """An entry, and the sessions that a machine has after it."""
        for offset, command in enumerate(commands):
            match command:
                case SessionOpen():
                    self._open(command, command_id(index, offset))
                case SessionResume(session=id, token=token) if self.tokens.get(token) == id:
                    self.living[id].epoch += 1
                    self.living[id].resumed = True
                case SessionClose(session=id, epoch=epoch):
                    self._close(id, epoch)
                case _:
                    pass
        if found != self.living.keys():
            text = f"after entry {index} there are {sorted(found)}, not {sorted(self.living)}"
            raise Violation("nobody ends a session that was resumed", text)

    def _open(self, command: SessionOpen, id: int) -> None:
        home = (command.node, command.boot, command.link)
        known = self.tokens.setdefault(command.token, id)
        if known == id:
            self.living[id] = _Session(home)
        elif not self.living[known].resumed and self.living[known].home != home:
            self.living[known].epoch += 1
            self.living[known].home = home

    def _close(self, id: int, epoch: int) -> None:
        session = self.living.get(id)
        if session is not None and epoch in (0, session.epoch):
            del self.living[id]
            self.tokens = {token: of for token, of in self.tokens.items() if of != id}
