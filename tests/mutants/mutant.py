"""The register of mutants, and how one is shown to its judge.

    for seed in seeds: run the judge with the bug     it objects: caught, by what, after how many
    run the judge with that seed without the bug      it must not object

A run that does not end counts as one that makes no progress.
"""

from __future__ import annotations

import dataclasses
import inspect
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pytest

from tests.mutants.edit import Break
from tests.simulation.violation import Violation, noticed

RUN_S = 300
"""How long one run may take; the slowest take a few seconds, and some tests a minute."""


class Judge(NamedTuple):
    """A simulation: `run(seed)` raises `Violation` for what must not be."""

    name: str
    run: Callable[[int], object]
    seeds: int  #: after how many a mutant has survived, if it does not say otherwise


@dataclass(frozen=True)
class Mutant:
    """A known bug. `apply` puts it into the product, until the patch is undone."""

    name: str
    text: str  #: the accident, and whose it was
    part: str
    apply: Break
    judge: Judge
    first: int  #: the first seed
    seeds: int


class Sentence(NamedTuple):
    """What became of a mutant. `checker` is empty when it survived."""

    name: str
    checker: str
    text: str
    seed: int
    tried: int
    seconds: float


MUTANTS: dict[str, Mutant] = {}


def mutant(judge: Judge, *, seeds: int = 0, first: int = 1) -> Callable[[Break], Break]:
    """Decorates a function that breaks the product."""

    def register(apply: Break) -> Break:
        name = apply.__name__
        assert name not in MUTANTS, f"two mutants are called {name}"
        assert apply.__doc__, f"{name} must say which accident it is"
        module = inspect.getmodule(apply)
        assert module is not None
        part = module.__name__.rpartition(".")[2]
        text = " ".join(apply.__doc__.split())
        MUTANTS[name] = Mutant(name, text, part, apply, judge, first, seeds or judge.seeds)
        return apply

    return register


def hunt(mutant: Mutant, *, seeds: int = 0) -> Sentence:
    """Run seed after seed until the mutant is caught, or all are used."""
    start, seeds = time.perf_counter(), min(seeds or mutant.seeds, mutant.seeds)
    for tried in range(1, seeds + 1):
        seed = mutant.first + tried - 1
        found = _objection(mutant, seed)
        if found is None:
            continue
        seconds = time.perf_counter() - start
        innocent = _objection(dataclasses.replace(mutant, apply=lambda patch: None), seed)
        if innocent is not None:  # this seed has found a bug of the product itself
            print(f"{mutant.judge.name} {seed} objects to no mutant at all: {innocent}"[:500])
            continue
        return Sentence(mutant.name, found.checker, found.text, seed, tried, seconds)
    return Sentence(mutant.name, "", "", 0, seeds, time.perf_counter() - start)


def _objection(mutant: Mutant, seed: int) -> Violation | None:
    with pytest.MonkeyPatch.context() as patch:
        mutant.apply(patch)
        try:
            with _bounded():
                mutant.judge.run(seed)
        except Violation as violation:
            return violation
        except Exception as error:  # noqa: BLE001  whatever it breaks, it shows
            return noticed(error)
    return None


@contextmanager
def _bounded() -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        raise Violation("liveness", f"no end within {RUN_S} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, RUN_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
