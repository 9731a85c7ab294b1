"""All mutants: importing the parts fills the register."""

from __future__ import annotations

from tests.mutants import (
    changes,
    elections,
    machines,
    reads,
    replication,
    service,
    snapshots,
    storage,
)
from tests.mutants.mutant import MUTANTS

__all__ = ["MUTANTS"]

PARTS = (elections, replication, reads, snapshots, changes, storage, machines, service)
