"""Fewer faults that still show the bug: delta debugging over a scenario's list of faults.

drop halves, then quarters, ... then single faults, as long as the run still fails
"""

from __future__ import annotations

from collections.abc import Callable

from tests.simulation.schedule import Fault

RUNS_MAX = 200


def shrink(
    faults: list[Fault], fails: Callable[[list[Fault]], bool], runs_max: int = RUNS_MAX
) -> list[Fault]:
    """A part of `faults` with which `fails` is still true, small if not the smallest.

    `fails(faults)` must be true. After `runs_max` runs what is found until then is returned.
    """
    runs, parts = 0, 2
    if faults and fails([]):
        return []
    while faults:
        size = max(1, len(faults) // parts)
        for start in range(0, len(faults), size):
            rest = faults[:start] + faults[start + size :]
            runs += 1
            if runs > runs_max:
                return faults
            if fails(rest):
                faults, parts = rest, max(parts - 1, 2)
                break
        else:
            if size == 1:
                return faults
            parts = min(parts * 2, len(faults))
    return faults
