"""The table at the end of a run, and a line of JSON for each measurement."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from tests.bench.meter import Sample

NOISY_CORES = 0.15
"""When others used more than that, figures are not to be compared with another run's."""

COLUMNS = ("", "per s", "low", "high", "p50 ms", "p99 ms", "client us", "nodes us", "others")


def append_json(path: Path, sample: Sample) -> None:
    """Add one measurement to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps({**asdict(sample), "rate": round(sample.rate, 1)}) + "\n")


def table(samples: Iterable[Sample]) -> str:
    """Medians over the rounds of each workload, in the order in which they first came."""
    by_workload: dict[str, list[Sample]] = {}
    for one in samples:
        by_workload.setdefault(one.workload, []).append(one)
    rows = [COLUMNS, *(_row(workload, runs) for workload, runs in by_workload.items())]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _row(workload: str, runs: list[Sample]) -> tuple[str, ...]:
    rates = [run.rate for run in runs]
    others = statistics.median(run.other_cores for run in runs)
    return (
        workload,
        f"{statistics.median(rates):,.0f}",
        f"{min(rates):,.0f}",
        f"{max(rates):,.0f}",
        _figure(run.p50_ms for run in runs),
        _figure(run.p99_ms for run in runs),
        _figure(run.client_us for run in runs),
        _figure(run.server_us for run in runs),
        f"{others:.2f}{' noisy' if others > NOISY_CORES else ''}",
    )


def _figure(values: Iterable[float]) -> str:
    middle = statistics.median(values)
    if middle == 0:
        return "-"
    return f"{middle:.2f}" if middle < 10 else f"{middle:,.0f}"
