"""All mutants: importing the parts fills the register."""

from __future__ import annotations

from tests.mutants import changes, elections, reads, replication, snapshots
from tests.mutants.mutant import MUTANTS

__all__ = ["MUTANTS"]

PARTS = (elections, replication, reads, snapshots, changes)
