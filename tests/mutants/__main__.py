"""Show each mutant to its judge: `python -m tests.mutants [NAME or PART ...] [--jobs 2]`.

Prints a row for each, who caught it, after how many seeds; the exit code is 1 when one survived.
With `--write FILE` the table also replaces the one between the marks in that page.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from dataclasses import replace
from pathlib import Path

from tests.mutants.catalogue import MUTANTS
from tests.mutants.judges import GROUP, RAFT
from tests.mutants.mutant import Mutant, Sentence, hunt

BEGIN, END = "<!-- mutants: begin -->", "<!-- mutants: end -->"
HEAD = "| mutant | judge | caught by | seeds | seconds |\n|---|---|---|---|---|"


def main() -> int:
    """Hunt them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("names", nargs="*", help="mutants or parts; all when there are none")
    parser.add_argument("--jobs", type=int, default=1, help="how many at the same time")
    parser.add_argument("--seeds", type=int, default=0, help="in place of each one's own limit")
    parser.add_argument(
        "--raft", action="store_true", help="show those of one group to the simulation of Raft"
    )
    parser.add_argument("--write", type=Path, help="a page with marks for the table")
    arguments = parser.parse_args()
    if arguments.raft:
        for mutant in list(MUTANTS.values()):
            if mutant.judge is GROUP:
                MUTANTS[mutant.name] = replace(mutant, judge=RAFT, seeds=RAFT.seeds)
    names = [mutant.name for mutant in MUTANTS.values() if _wanted(mutant, arguments.names)]
    if not names:
        parser.error(f"no mutant is called {arguments.names}")
    start, sentences = time.perf_counter(), []
    print(HEAD, flush=True)
    work = [(name, arguments.seeds) for name in names]
    with multiprocessing.get_context("fork").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for sentence in pool.imap(_hunt, work, chunksize=1):
            sentences.append(sentence)
            print(_row(sentence), flush=True)
    survivors = [sentence.name for sentence in sentences if not sentence.checker]
    print(
        f"\n{len(sentences)} mutants, {len(sentences) - len(survivors)} caught, in "
        f"{time.perf_counter() - start:.0f} s. Survivors: {', '.join(survivors) or 'none'}"
    )
    if arguments.write:
        _write(arguments.write, sentences)
    return 1 if survivors else 0


def _wanted(mutant: Mutant, names: list[str]) -> bool:
    return not names or mutant.name in names or mutant.part in names


def _hunt(work: tuple[str, int]) -> Sentence:
    name, seeds = work
    return hunt(MUTANTS[name], seeds=seeds)


def _row(sentence: Sentence) -> str:
    mutant = MUTANTS[sentence.name]
    caught = sentence.checker or f"SURVIVED {sentence.text[:300]}"
    cells = (mutant.name, mutant.judge.name, caught, sentence.tried, f"{sentence.seconds:.1f}")
    return f"| {' | '.join(map(str, cells))} |"


def _write(page: Path, sentences: list[Sentence]) -> None:
    text = page.read_text()
    head, rest = text.split(BEGIN)
    _, tail = rest.split(END)
    rows = "\n".join(_row(sentence) for sentence in sentences)
    page.write_text(f"{head}{BEGIN}\n{HEAD}\n{rows}\n{END}{tail}")


if __name__ == "__main__":
    sys.exit(main())
