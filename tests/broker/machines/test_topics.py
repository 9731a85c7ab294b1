from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.machines.topics import Words, matches, words_of


def by_definition(pattern: Words, key: Words) -> bool:
    """All ways of filling in the wildcards, one after the other."""
    if not pattern:
        return not key
    first, rest = pattern[0], pattern[1:]
    if first == "#":
        return any(by_definition(rest, key[skip:]) for skip in range(len(key) + 1))
    return bool(key) and first in ("*", key[0]) and by_definition(rest, key[1:])


@given(
    st.lists(st.sampled_from(["a", "b", "", "*", "#"]), max_size=6),
    st.lists(st.sampled_from(["a", "b", "", "*"]), max_size=7),
)
def test_matches_by_definition(pattern: list[str], key: list[str]) -> None:
    assert matches(tuple(pattern), tuple(key)) == by_definition(tuple(pattern), tuple(key))


@pytest.mark.parametrize(
    ("pattern", "key", "expected"),
    [
        ("#", "", True),
        ("#", "a.b", True),
        ("*", "", False),
        ("*", "a", True),
        ("", "", True),
        ("", "a", False),
        ("worker.#", "worker", True),
        ("worker.*", "worker.heartbeat", True),
        ("worker.*", "worker.heartbeat.x", False),
        ("*.b.#.c", "a.b.c", True),
        ("a.#.b.*", "a.b.b.c", True),
        ("a.b", "a..b", False),
        ("a.*.b", "a..b", True),
    ],
)
def test_examples(pattern: str, key: str, expected: bool) -> None:
    assert matches(words_of(pattern), words_of(key)) is expected


def test_many_wildcards_stay_cheap() -> None:
    pattern, key = words_of("#.a." * 60 + "#.z"), words_of(".".join("a" * 120))
    begin = time.process_time()
    assert not matches(pattern, key)
    assert time.process_time() - begin < 0.5
