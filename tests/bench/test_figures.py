"""The arithmetic of the bench: a wrong figure would look just like a right one."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.bench.failover import longest_pause
from tests.bench.meter import Latencies, Meter, Sample, sample
from tests.bench.profile import describe_stacks
from tests.bench.report import append_json, table


def test_percentiles_are_those_of_the_calls_in_ms() -> None:
    latencies = Latencies([0.001 * n for n in range(1, 102)])
    assert latencies.percentile_ms(50) == pytest.approx(51)
    assert latencies.percentile_ms(99) == pytest.approx(100)
    assert Latencies().percentile_ms(50) == 0
    assert Latencies([0.004]).percentile_ms(99) == pytest.approx(4)


def test_cpu_is_counted_per_message() -> None:
    meter = Meter([], seconds=2.0, client_cpu_s=1.0, server_cpu_s=0.5, other_cpu_s=0.4)
    seen = sample("any", 1000, meter, Latencies())
    assert (seen.rate, seen.client_us, seen.server_us) == (500, 1000, 500)
    assert seen.other_cores == pytest.approx(0.2)


def test_a_meter_sees_the_cpu_of_a_process_from_outside_as_from_inside() -> None:
    with Meter([os.getpid()]) as meter:
        ends = time.process_time() + 0.2
        while time.process_time() < ends:
            pass
    assert meter.client_cpu_s >= 0.2
    # From outside it is counted in whole ticks, mostly of 10 ms.
    assert meter.server_cpu_s == pytest.approx(meter.client_cpu_s, abs=0.05)


def test_the_table_has_medians_and_extremes_in_the_order_measured() -> None:
    runs = [Sample("slow", n, 1.0) for n in (10, 1000, 30)] + [Sample("fast", 7000, 1.0)]
    _, slow, fast = table(runs).splitlines()
    assert slow.split()[:4] == ["slow", "30", "10", "1,000"]
    assert fast.split()[:2] == ["fast", "7,000"]


def test_each_measurement_is_a_line_of_json(tmp_path: Path) -> None:
    path = tmp_path / "new" / "bench.jsonl"
    append_json(path, Sample("one", 10, 2.0))
    append_json(path, Sample("two", 10, 4.0))
    assert [json.loads(line)["rate"] for line in path.read_text().splitlines()] == [5.0, 2.5]


def test_a_confirm_that_was_on_its_way_does_not_end_the_pause() -> None:
    confirmed = [0.8, 0.9, 1.01, 2.5, 2.6]
    assert longest_pause(confirmed, began=1.0) == pytest.approx(1.49)
    assert longest_pause([0.9, 2.5], began=1.0) == pytest.approx(1.5)


def test_stacks_count_once_for_each_function_on_them() -> None:
    text = describe_stacks(["main;turn;encode 3\nmain;turn;turn 1\n"])
    itself, with_calls = text.split("share  with what it calls")
    assert "75.0  encode" in itself and "25.0  turn" in itself
    assert "100.0  turn" in with_calls
