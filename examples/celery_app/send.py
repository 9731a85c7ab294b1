"""Sends some tasks; returns when a majority of the nodes has them on disk."""

from __future__ import annotations

import sys

from examples.celery_app.tasks import add, fragile


def main(count: int) -> None:
    for number in range(count):
        add.delay(number, number)
    fragile.delay(2)
    print(f"{count + 1} tasks are on disk at a majority of the nodes")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
