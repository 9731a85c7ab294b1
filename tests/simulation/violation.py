"""What a run ends with when something does not hold."""

from __future__ import annotations

import traceback


class Violation(AssertionError):
    """`checker` is the invariant's name; for a bug that the code noticed itself, its place."""

    def __init__(self, checker: str, text: str) -> None:
        super().__init__(f"{checker}: {text}")
        self.checker = checker
        self.text = text


def noticed(error: Exception) -> Violation:
    """The violation that an exception out of the product stands for."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = "/".join(frame.filename.split("/")[-2:])
    return Violation(f"assertion in {place}:{frame.name}", f"{type(error).__name__}: {error}")
