"""The whole cluster in a setting where snapshots happen all the time.

Logs keep little, nodes are away for long, snapshots take many parts, and whoever receives,
gives or installs one is killed in the middle of it; all other faults come as the seed has them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

from tests.simulation.faults import CLUSTER
from tests.simulation.scenario import WARM_UP_MS, Outcome, Scenario
from tests.simulation.schedule import Fault
from tests.simulation.setting import Setting, draw_setting

CHAOS_MS = 40_000.0
ALWAYS = ("long_absence", "crash_receiver", "crash_giver", "crash_at_install")


def run(
    seed: int,
    chaos_ms: float = CHAOS_MS,
    faults: list[Fault] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Outcome:
    """Run one seed. Raise `Violation`."""
    return scene(seed, chaos_ms, faults, tell).run()


def draw(seed: int, chaos_ms: float) -> list[Fault]:
    """The faults of a seed."""
    return scene(seed, chaos_ms).faults


def scene(
    seed: int,
    chaos_ms: float = CHAOS_MS,
    faults: list[Fault] | None = None,
    tell: Callable[[str], None] | None = None,
) -> Scenario:
    """A seed's cluster before it lives."""
    scenario = Scenario(seed, chaos_ms, faults, tell, _setting(seed))
    if faults is None:
        scenario.faults = CLUSTER.draw(
            seed, scenario.place, WARM_UP_MS, WARM_UP_MS + chaos_ms, always=ALWAYS
        )
    return scenario


def _setting(seed: int) -> Setting:
    setting, random = draw_setting(seed), Random(f"{seed}/absences")
    little = {
        "replay_commands_max": random.choice([30, 100]),
        "log_bytes_max": random.choice([2_000, 10_000]),
        "sweep_entries_max": random.choice([50, 512]),
        "snapshot_part_bytes": random.choice([100, 1000]),
        "snapshot_bytes_per_s": random.choice([1_000, 10_000]),
    }
    return replace(setting, config={**setting.config, **little})
