"""What a piece of work cost: wall clock, CPU of this process, of the nodes, of everybody else."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_cpu_s(pid: int) -> float:
    """CPU seconds a process has used, user and system; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    # The name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / TICKS_PER_S


def resident_mb(pid: int) -> float:
    """Memory of a process that is in RAM, in MiB; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def machine_cpu_s() -> float:
    """CPU seconds that all processes together have used since the machine's start."""
    user, nice, system, _idle, _wait, irq, soft, steal = (
        int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + soft + steal) / TICKS_PER_S


@dataclass(slots=True)
class Meter:
    """Measures a `with` block. `more_client_cpu_s` is what child processes report of themselves."""

    pids: list[int]
    seconds: float = 0.0
    client_cpu_s: float = 0.0
    server_cpu_s: float = 0.0
    other_cpu_s: float = 0.0
    more_client_cpu_s: float = 0.0
    _at: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    def _now(self) -> tuple[float, float, float, float]:
        servers = sum(process_cpu_s(pid) for pid in self.pids)
        return time.monotonic(), time.process_time(), servers, machine_cpu_s()

    def __enter__(self) -> Meter:
        self._at = self._now()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        now = self._now()
        self.seconds, client, self.server_cpu_s, machine = (
            after - before for before, after in zip(self._at, now, strict=True)
        )
        self.client_cpu_s = client + self.more_client_cpu_s
        self.other_cpu_s = machine - self.client_cpu_s - self.server_cpu_s


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement of one workload."""

    workload: str
    messages: int
    seconds: float
    client_us: float = 0.0  #: CPU of the clients per message
    server_us: float = 0.0  #: CPU of all nodes per message
    other_cores: float = 0.0  #: CPU that others used meanwhile, in cores
    p50_ms: float = 0.0  #: of a call, or of a message's way; 0: not measured
    p99_ms: float = 0.0
    server_mb: float = 0.0
    sent: int = 0  #: where producers and consumers run at once: what the producers published

    @property
    def rate(self) -> float:
        """Messages per second."""
        return self.messages / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class Latencies:
    """Durations in seconds, and their percentiles in ms."""

    seconds: list[float] = field(default_factory=list)

    def percentile_ms(self, percent: int) -> float:
        if len(self.seconds) < 2:
            return sum(self.seconds) * 1e3
        return statistics.quantiles(self.seconds, n=100, method="inclusive")[percent - 1] * 1e3


def sample(workload: str, messages: int, meter: Meter, latencies: Latencies) -> Sample:
    """What a meter and the latencies of calls say of `messages` messages."""
    each = 1e6 / max(messages, 1)
    return Sample(
        workload=workload,
        messages=messages,
        seconds=meter.seconds,
        client_us=meter.client_cpu_s * each,
        server_us=meter.server_cpu_s * each,
        other_cores=max(0.0, meter.other_cpu_s / meter.seconds) if meter.seconds else 0.0,
        p50_ms=latencies.percentile_ms(50),
        p99_ms=latencies.percentile_ms(99),
        server_mb=sum(resident_mb(pid) for pid in meter.pids),
    )
