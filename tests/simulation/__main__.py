"""Many seeds one after the other: `python -m tests.simulation 1-500 [--chaos-s 20]`.

Prints each seed that fails with the command that replays it, and at the end what was simulated
and how fast. The exit code is 1 when a seed failed.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation.scenario import Scenario


def main() -> int:
    """Run the seeds; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("seeds", help="a seed, or a range as in 1-500")
    parser.add_argument("--chaos-s", type=float, default=20.0, help="simulated seconds of faults")
    arguments = parser.parse_args()
    first, _, last = arguments.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    failed, simulated_ms, faults, confirmed = [], 0.0, 0, 0
    start = time.perf_counter()
    for seed in seeds:
        scenario = Scenario(seed)
        try:
            outcome = scenario.run(arguments.chaos_s * 1000)
        except Exception as error:  # noqa: BLE001  every kind of failure is a finding
            failed.append(seed)
            print(f"seed {seed}: {type(error).__name__}: {error}", flush=True)
            print(f"  replay: python -m tests.simulation.scenario {seed}", flush=True)
        else:
            confirmed += outcome.confirmed
        simulated_ms += scenario.world.now
        faults += scenario.faults
    seconds = time.perf_counter() - start
    print(
        f"{len(seeds)} seeds, {simulated_ms / 3_600_000:.2f} simulated hours, {faults} faults, "
        f"{confirmed} confirmed messages, {len(failed)} failed; "
        f"{simulated_ms / 1000 / seconds:.0f} simulated seconds per second"
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
