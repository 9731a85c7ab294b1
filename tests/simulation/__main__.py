"""The simulation's command line.

    python -m tests.simulation run 1-500 [--hours 2]   seed after seed; ends with what was simulated
    python -m tests.simulation replay 42               one seed again, with all of its trace
    python -m tests.simulation replay bug.json         the same of a scenario in a file
    python -m tests.simulation shrink 42 -o bug.json   fewer faults that still show the bug

`--level cluster` is the whole cluster with its clients, `--level raft` one Raft group.
"""

from __future__ import annotations

import argparse
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.simulation.levels import LEVELS, Level
from tests.simulation.schedule import Fault, Script, load
from tests.simulation.shrink import shrink
from tests.simulation.tally import Tally
from tests.simulation.violation import Violation


def main() -> int:
    """Do what is asked; the exit code is 1 when a bug was seen."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    for name, act, what in (
        ("run", _run, "seeds, as in 1-500,777"),
        ("replay", _replay, "a seed, or the file of a scenario"),
        ("shrink", _shrink, "a seed, or the file of a scenario"),
    ):
        command = commands.add_parser(name)
        command.set_defaults(act=act)
        command.add_argument("what", help=what)
        command.add_argument("--level", choices=sorted(LEVELS), default="cluster")
        command.add_argument("--chaos-s", type=float, help="simulated seconds of faults a seed")
        if name == "run":
            command.add_argument("--hours", type=float, help="stop after so many simulated hours")
        if name == "shrink":
            command.add_argument("-o", "--out", type=Path, help="where the scenario is written")
    arguments = parser.parse_args()
    _calm_garbage_collector()
    code: int = arguments.act(arguments)
    return code


def _calm_garbage_collector() -> None:
    """As in a node: a history is kept whole and grows, so looking through all of it costs much."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def _run(arguments: argparse.Namespace) -> int:
    level = LEVELS[arguments.level]
    chaos_ms = arguments.chaos_s * 1000 if arguments.chaos_s else level.chaos_ms
    limit_ms = arguments.hours * 3_600_000 if arguments.hours else float("inf")
    tally = Tally(arguments.level)
    try:
        for seed in _seeds(arguments.what):
            if tally.simulated_ms >= limit_ms:
                break
            _run_one(level, seed, chaos_ms, tally)
    except KeyboardInterrupt:
        pass  # enough; what was seen until now is told
    print("\n".join(tally.lines()))
    return 1 if tally.failed else 0


def _run_one(level: Level, seed: int, chaos_ms: float, tally: Tally) -> None:
    before = time.process_time()
    try:
        outcome = level.run(seed, chaos_ms)
    except Violation as violation:
        tally.failed += 1
        print(f"seed {seed}: {violation}", flush=True)
        options = f"--level {tally.level} --chaos-s {chaos_ms / 1000:g}"
        print(f"  replay: python -m tests.simulation replay {seed} {options}", flush=True)
    else:
        tally.add(outcome, time.process_time() - before)
    tally.seeds += 1


def _seeds(text: str) -> Iterator[int]:
    for part in text.split(","):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _script(arguments: argparse.Namespace) -> Script:
    """What is to be replayed, with its faults written out."""
    path = Path(arguments.what)
    if not arguments.what.isdecimal():
        return load(path)
    level = LEVELS[arguments.level]
    chaos_ms = arguments.chaos_s * 1000 if arguments.chaos_s else level.chaos_ms
    seed = int(arguments.what)
    return Script(arguments.level, seed, chaos_ms, level.draw(seed, chaos_ms))


def _replay(arguments: argparse.Namespace) -> int:
    script = _script(arguments)
    try:
        outcome = LEVELS[script.level].run(script.seed, script.chaos_ms, script.faults, print)
    except Violation as violation:
        print(violation)
        return 1
    print(outcome)
    return 0


def _shrink(arguments: argparse.Namespace) -> int:
    script = _script(arguments)
    level = LEVELS[script.level]

    def fails(faults: list[Fault]) -> bool:
        try:
            level.run(script.seed, script.chaos_ms, faults)
        except Violation as violation:
            print(f"{len(faults):4} faults: {violation}", file=sys.stderr, flush=True)
            return True
        return False

    if not fails(script.faults):
        print(f"seed {script.seed} of level {script.level} shows no bug")
        return 0
    smallest = script._replace(faults=shrink(script.faults, fails))
    path = arguments.out or Path(f"{script.level}-{script.seed}.json")
    smallest.save(path)
    print(path.read_text(), end="")
    print(f"replay: python -m tests.simulation replay {path}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
