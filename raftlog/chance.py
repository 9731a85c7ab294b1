"""Chance as an argument: what the core asks of it, and a small seeded source."""

from __future__ import annotations

from typing import Protocol

_MASK = (1 << 64) - 1


class Chance(Protocol):
    """The part of `random.Random` that the core needs."""

    def randrange(self, stop: int, /) -> int:
        """A whole number of 0 to `stop` - 1."""
        ...


class SeededChance:
    """SplitMix64: repeats itself exactly from its seed, and needs no module of chance."""

    __slots__ = ("_state",)

    def __init__(self, seed: int) -> None:
        self._state = seed & _MASK

    def randrange(self, stop: int, /) -> int:
        """A whole number of 0 to `stop` - 1; `stop` is far below 2**64."""
        self._state = (self._state + 0x9E3779B97F4A7C15) & _MASK
        z = self._state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return (z ^ (z >> 31)) % stop
