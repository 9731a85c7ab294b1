"""Which routing keys a topic binding matches.

A key is words between dots; the empty key has no words. In a pattern `*` stands for exactly
one word and `#` for any number of words, none included.
"""

from __future__ import annotations

from typing import TypeAlias

Words: TypeAlias = tuple[str, ...]


def words_of(key: str) -> Words:
    """Split a key or pattern, once, for `matches`."""
    return tuple(key.split(".")) if key else ()


def matches(pattern: Words, key: Words) -> bool:
    """Does the pattern match the whole key? At most len(pattern) * len(key) steps.

    Only the last `#` passed is ever tried with one word more: had an earlier one to give
    way, this one could take the difference. So patterns of many `#` stay cheap.
    """
    at = word = 0
    retry_at = retry_word = -1
    while word < len(key):
        if at < len(pattern) and pattern[at] == "#":
            retry_at, retry_word = at, word
            at += 1
        elif at < len(pattern) and pattern[at] in ("*", key[word]):
            at += 1
            word += 1
        elif retry_at >= 0:
            retry_word += 1
            at, word = retry_at + 1, retry_word
        else:
            return False
    return all(part == "#" for part in pattern[at:])
