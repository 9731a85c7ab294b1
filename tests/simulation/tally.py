"""What many seeds were like together: hours, faults by kind, failures, speed."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field

from tests.simulation.levels import Outcome


@dataclass
class Tally:
    """Of one run of the command line. Seeds that fail count, their time does not."""

    level: str
    seeds: int = 0
    failed: int = 0
    simulated_ms: float = 0.0
    confirmed: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    seen: Counter[str] = field(default_factory=Counter)
    speeds: dict[str, list[float]] = field(default_factory=dict)
    """By what a seed is like: seeds, simulated seconds, seconds of CPU."""
    start_s: float = field(default_factory=time.perf_counter)
    start_cpu_s: float = field(default_factory=time.process_time)

    def add(self, outcome: Outcome, cpu_s: float) -> None:
        """A seed that ended well."""
        self.simulated_ms += outcome.simulated_ms
        self.confirmed += outcome.confirmed
        self.faults.update(outcome.faults)
        self.seen.update(getattr(outcome, "seen", {}))
        speed = self.speeds.setdefault(outcome.like, [0, 0.0, 0.0])
        speed[0] += 1
        speed[1] += outcome.simulated_ms / 1000
        speed[2] += cpu_s

    def lines(self) -> list[str]:
        """For people."""
        wall_s = time.perf_counter() - self.start_s
        cpu_s = time.process_time() - self.start_cpu_s
        simulated_s = self.simulated_ms / 1000
        head = (
            f"{self.level}: {self.seeds} seeds, {simulated_s / 3600:.2f} simulated hours, "
            f"{self.confirmed} confirmed, {self.faults.total()} faults, {self.failed} failed; "
            f"{simulated_s / wall_s:.0f} simulated seconds per second, "
            f"{simulated_s / cpu_s:.0f} per second of CPU"
        )
        return [
            head,
            *[f"  {kind:20} {count:7}" for kind, count in sorted(self.faults.items())],
            *[f"  {what}: {count}" for what, count in sorted(self.seen.items())],
            *[
                f"  {like}: {count:.0f} seeds, {simulated / cpu:.0f} simulated s per s of CPU"
                for like, (count, simulated, cpu) in sorted(self.speeds.items())
            ],
        ]
