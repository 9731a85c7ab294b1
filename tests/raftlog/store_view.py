"""Everything that a group of a store can be asked, to compare what two stores answer."""

from __future__ import annotations

from collections.abc import Callable

from raftlog.errors import StorageError
from raftlog.storage import GroupStorage

ALL = 1 << 20


def answer(ask: Callable[[], object]) -> object:
    """What is answered, or the kind of refusal."""
    try:
        return ask()
    except StorageError as error:
        return type(error)


def view(storage: GroupStorage, highest: int) -> list[object]:
    """Everything that a group can be asked."""
    first, last = storage.first_index(), storage.last_index()
    mark = storage.checkpoint
    checkpoint = mark.index if mark is not None else 0
    return [
        storage.initial_state(),
        first,
        last,
        mark,
        answer(storage.snapshot),
        storage.log_bytes,
        storage.kept_entries(0, ALL),
        storage.kept_entries(first // 2, 2),
        storage.body_ids(0, ALL),
        storage.body_ids(7, 2),
        [storage.body(id) for id in range(12)],
        [answer(lambda index=index: storage.entry(index)) for index in range(1, highest + 2)],  # type: ignore[misc]
        [
            answer(lambda index=index, most=most: storage.entry_bytes(index, most))  # type: ignore[misc]
            for index in range(1, highest + 2)
            for most in (0, 10, 4062, 4063, 9000, ALL)
        ],
        [answer(lambda index=index: storage.term(index)) for index in range(highest + 2)],  # type: ignore[misc]
        answer(lambda: storage.entries(first, last + 1, 6000)),
        answer(lambda: storage.entries(max(1, first - 1), last + 1, ALL)),
        [storage.chunks_of(index) for index in range(highest + 2)],
        [answer(lambda number=number: storage.chunk(number)) for number in range(4)],  # type: ignore[misc]
        [answer(lambda: storage.chunk(0, checkpoint - 1)), answer(lambda: storage.chunk(0, last))],
    ]
