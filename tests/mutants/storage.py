"""Bugs of what is on disk: checkpoints, kept entries, survivors, damage."""

from __future__ import annotations

import pytest

from broker import checkpointer
from broker.checkpointer import Checkpointer
from broker.sweeper import Sweeper
from raftlog import lmdb_opening, lmdb_records, record
from raftlog.lmdb_store import LmdbStore
from tests.mutants.edit import edit, edit_everywhere
from tests.mutants.judges import CLUSTER, STORE
from tests.mutants.mutant import mutant


@mutant(STORE)
def damaged_suffix_dropped(patch: pytest.MonkeyPatch) -> None:
    """Entries behind a flipped bit are taken for ones that were never written (NATS#7549 lost
    287,249 acknowledged messages so)."""
    whole = lmdb_opening._verified_tail

    def tolerant(*arguments: object) -> list[object]:
        try:
            return whole(*arguments)  # type: ignore[arg-type, return-value]
        except Exception:  # noqa: BLE001
            return []

    patch.setattr(lmdb_opening, "_verified_tail", tolerant)


@mutant(STORE)
def checksum_not_compared(patch: pytest.MonkeyPatch) -> None:
    """A record's sum is written and never asked for."""
    edit_everywhere(patch, "decode_record", "actual != chain", "False", record, lmdb_records)


@mutant(STORE)
def writes_after_a_failed_sync(patch: pytest.MonkeyPatch) -> None:
    """What a failed sync has left unknown is written over, as if nothing were (cockroach#37102)."""
    patch.setattr(LmdbStore, "_refuse_after_failure", lambda self: None)


@mutant(CLUSTER)
def sweep_drops_living_bodies(patch: pytest.MonkeyPatch) -> None:
    """Entries of which little is alive are dropped, and what is alive is not copied out."""
    edit(
        patch,
        Sweeper,
        "_copy_out",
        "swept.bodies.extend(((id, bytes(batch.command(offset_of(id)))) for id in ids))",
        "pass",
    )


@mutant(CLUSTER)
def sweep_drops_living_survivors(patch: pytest.MonkeyPatch) -> None:
    """What was copied out once is dropped when it is looked at next."""
    edit(patch, Sweeper, "_look_at_survivors", "at == len(living) or living[at] != id", "True")


@mutant(CLUSTER)
def checkpoint_of_a_later_state(patch: pytest.MonkeyPatch) -> None:
    """A checkpoint's state is taken when it is written, not at the index that it names."""
    patch.setattr(checkpointer, "CHUNK_BYTES_MAX", 100)
    edit(
        patch,
        Checkpointer,
        "step",
        "data = writing.state[at:at + CHUNK_BYTES_MAX]",
        "data = self._shard.machine.snapshot()[at:at + CHUNK_BYTES_MAX]",
    )


@mutant(CLUSTER)
def compaction_beyond_the_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """The log is compacted although no checkpoint stands for what it loses."""
    edit(patch, Checkpointer, "begin", "index = shard.applied", "index = shard.raft.commit")
