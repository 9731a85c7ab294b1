"""Bugs of the broker around the machines: what is told to clients, when, and by whom."""

from __future__ import annotations

import pytest

from broker.engine import Engine
from broker.operations import Operations
from broker.shard import Shard
from raftlog.messages import encode_message
from raftlog.ready import Role
from raftlog.write import GroupWrite
from tests.mutants.edit import edit
from tests.mutants.judges import CLUSTER
from tests.mutants.mutant import mutant


@mutant(CLUSTER)
def promises_before_the_write(patch: pytest.MonkeyPatch) -> None:
    """A node sends its votes and acknowledgements, then writes, and dies in between."""
    begin = Engine.begin

    def hasty(self: Engine, unix_ms: int) -> list[GroupWrite]:
        writes = begin(self, unix_ms)
        for shard, ready in self._readies:
            for message in ready.messages_after:
                self._post(shard.number, message.target, encode_message(message))
            ready.messages_after.clear()
        return writes

    patch.setattr(Engine, "begin", hasty)


@mutant(CLUSTER)
def confirm_before_commit(patch: pytest.MonkeyPatch) -> None:
    """A publish is confirmed when it is proposed (Basho, Mongo and many others)."""
    hasty = "cluster.submit(place, command, home.caller.session); home.confirms.append(seq)"
    edit(patch, Operations, "_send", "cluster.submit(place, command, home.caller.session)", hasty)


@mutant(CLUSTER)
def effects_of_followers(patch: pytest.MonkeyPatch) -> None:
    """Followers carry out effects too: everything is delivered as often as there are nodes."""
    edit(patch, Engine, "_apply", "applied.in_service", "applied.effects")


@mutant(CLUSTER)
def effects_of_earlier_leaders(patch: pytest.MonkeyPatch) -> None:
    """A new leader carries out the effects of entries that an earlier one has answered for."""
    leads = property(lambda self: self.raft.role is Role.LEADER)
    patch.setattr(Shard, "in_service", leads)
