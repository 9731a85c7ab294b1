"""`make bench`: three real nodes and the workloads, several rounds, and a table of medians.

    python -m tests.bench                       everything, a minute or two
    python -m tests.bench --only publish1,both  some of it (see --help for the names)
    python -m tests.bench --profile             and where the nodes' time goes

Kombu's in-memory transport is measured in every round: when its rate differs between two
runs, the machine does, and so will everything else. Nothing here fails for being slow.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tests.bench import profile, report
from tests.bench.failover import failover, histogram, rolling, summary
from tests.bench.fairness import fairness
from tests.bench.meter import Meter, Sample, resident_mb
from tests.bench.workloads import IN_MEMORY, WORKLOADS, Target
from tests.cluster import Cluster

IDLE_S = 10.0
SETTLE_S = 1.0
NAMES = (*WORKLOADS, "failover", "rolling", "idle", "fairness")


def main() -> None:
    """Run what the command line asks for."""
    given = _arguments()
    names = given.only.split(",") if given.only else list(NAMES)
    samples: list[Sample] = []
    notes: list[str] = []
    try:
        _measure(given, names, samples, notes)
    finally:
        # What was measured before something failed is still worth its minutes.
        print()
        if samples:
            print(report.table(samples))
        print("\n".join(notes))
        print(f"every measurement: {given.json}")


def _measure(
    given: argparse.Namespace, names: list[str], samples: list[Sample], notes: list[str]
) -> None:
    with tempfile.TemporaryDirectory(prefix="raftmq-bench-") as folder:
        with _cluster(Path(folder), given, notes) as cluster:
            pids = [node.process.pid for node in cluster.nodes if node.process is not None]
            target = Target(cluster.url, pids, given.seconds, given.messages)
            if "idle" in names:
                notes.append(_idle(pids))
            for number in range(given.rounds):
                print(f"round {number + 1} of {given.rounds}", flush=True)
                for measured in _round(target, names):
                    samples.append(measured)
                    report.append_json(given.json, measured)
                    sent = f", {measured.sent:,} published" if measured.sent else ""
                    print(f"  {measured.workload}: {measured.rate:,.0f}/s{sent}", flush=True)
            memory_mb = sum(resident_mb(pid) for pid in pids)
            notes.append(f"memory of the three nodes at the end: {memory_mb:,.0f} MiB")
            if "fairness" in names:
                notes.append(_fairness(cluster, given.seconds))
            if "rolling" in names:
                notes.append(_rolling(cluster))
            if "failover" in names:
                notes.append(_failover(cluster, given.kills))
        if given.profile and not profile.can_sample():
            notes.append(profile.describe_profiles(Path(folder)))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--only", help=f"some of: {','.join(NAMES)}")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.5, help="for each workload")
    parser.add_argument("--messages", type=int, default=5000, help="scale of each workload")
    parser.add_argument("--kills", type=int, default=5, help="rounds of failover")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--json", type=Path, default=Path("build/bench.jsonl"))
    parser.add_argument("--profile", action="store_true", help="show where the nodes' time goes")
    given = parser.parse_args()
    unknown = set((given.only or NAMES[0]).split(",")) - set(NAMES)
    if unknown:
        parser.error(f"--only: no such workload: {', '.join(sorted(unknown))}")
    return given


@contextmanager
def _cluster(folder: Path, given: argparse.Namespace, notes: list[str]) -> Iterator[Cluster]:
    sampled = given.profile and profile.can_sample()
    kind = profile.ProfiledCluster if given.profile and not sampled else Cluster
    cluster = kind(folder, nodes=3, shards=given.shards)
    cluster.start()
    try:
        cluster.wait_ready()
        time.sleep(SETTLE_S)
        sampler = profile.Sampler(cluster) if sampled else None
        yield cluster
        if sampler is not None:
            notes.append(sampler.stop())
    finally:
        for node in cluster.running:
            cluster.terminate(node)


def _round(target: Target, names: list[str]) -> Iterator[Sample]:
    memory = Target("memory://", [], target.seconds, target.messages)
    for name in names:
        if name not in WORKLOADS:
            continue
        yield WORKLOADS[name](target)
        if name in IN_MEMORY:
            measured = WORKLOADS[name](memory)
            yield replace(measured, workload=f"  in memory: {measured.workload}")


def _idle(pids: list[int]) -> str:
    with Meter(pids) as meter:
        time.sleep(IDLE_S)
    percent = 100 * meter.server_cpu_s / meter.seconds
    memory_mb = sum(resident_mb(pid) for pid in pids)
    return f"idle: the three nodes use {percent:.1f} % of one core, {memory_mb:,.0f} MiB"


def _fairness(cluster: Cluster, seconds: float) -> str:
    calm = fairness(cluster, seconds)
    return (
        f"confirms of a calm client: alone p50 {calm.alone.percentile_ms(50):.1f} ms, "
        f"p99 {calm.alone.percentile_ms(99):.1f} ms; beside one that floods its queue "
        f"({calm.flooded:,} messages) p50 {calm.beside.percentile_ms(50):.0f} ms, "
        f"p99 {calm.beside.percentile_ms(99):.0f} ms of {len(calm.beside.seconds)}"
    )


def _failover(cluster: Cluster, kills: int) -> str:
    pauses = failover(cluster, kills)
    shards = [seconds for pause in pauses for seconds in pause.led.values()]
    slowest = [pause.slowest for pause in pauses]
    others = [seconds for pause in pauses for seconds in pause.others.values()]
    return (
        f"kill -9 of a leader to the next confirmed publish, {kills} kills, "
        f"{cluster.shards - 1} loaded shards:\n"
        f"  each shard that lost its leader: {summary(shards)} of {len(shards)}\n"
        f"  the slowest of them, by kill: {summary(slowest)}\n"
        f"  shards of other leaders: {summary(others)}\n{histogram(slowest)}"
    )


def _rolling(cluster: Cluster) -> str:
    pauses = rolling(cluster)
    led = [seconds for pause in pauses for seconds in pause.led.values()]
    others = [seconds for pause in pauses for seconds in pause.others.values()]
    return (
        f"a rolling restart: longest time without a confirm {1000 * max(led):.0f} ms on shards "
        f"that were handed over, {1000 * max(others):.0f} ms on others"
    )


if __name__ == "__main__":
    main()
