"""A process that writes to a store without end, and says what is durable. Killed by its test.

`python store_writer.py DIRECTORY MODE`: with mode `kill` the index of the last entry follows
each write; with `limit` the size of any file is limited first, and the failure is told. With
`cycle` the writes are of every kind, one after another (`cycle_write`), and their number is told.
"""

from __future__ import annotations

import resource
import sys
from itertools import count
from pathlib import Path

from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.messages import Entry, HardState, Membership
from raftlog.store_errors import StoreFailed
from raftlog.write import GroupWrite, Mark

GROUPS = 4
IDENTITY = Identity("cluster", "node")
MAP_BYTES = 64 << 20


def body(group: int, index: int) -> bytes:
    """What the entry must hold; of very different lengths, to use overflow pages too."""
    return f"{group}/{index}/".encode() * (1 + index * 37 % 900)


def open_store(path: Path) -> LmdbStore:
    return LmdbStore.open(
        path,
        IDENTITY,
        {group: [1, 2, 3] for group in range(GROUPS)},
        map_bytes=MAP_BYTES,
        cache_bytes=1 << 20,
    )


def turn(store: LmdbStore, index: int) -> None:
    store.write(
        [
            GroupWrite(group, HardState(1, 1, index - 1), [Entry(index, 1, 0, body(group, index))])
            for group in range(GROUPS)
        ]
    )


def cycle_write(number: int, group: int) -> GroupWrite:
    """The write of this number, from 1: what is on disk after it depends on the number alone.

    Of each ten: 1 entries, 2 and 3 chunks, 4 the mark and compaction, 5 some kept entries copied
    and dropped, 6 the rest of them dropped, 7 a few bodies dropped, 8 to 10 a snapshot.
    """
    round_, step = divmod(number - 1, 10)
    base = round_ * 50  # the log is empty and begins here
    index = base + 8
    mark = Mark(index, 1, Membership(voters=(1, 2, round_ + 3)), 2)
    snapshot = Mark(base + 50, 1, Membership(voters=(1, round_ + 3)), 2)
    match step:
        case 0:
            entries = [Entry(at, 1, 0, body(group, at)) for at in range(base + 1, base + 13)]
            return GroupWrite(group, HardState(1, 1, base), entries)
        case 1 | 2:
            return GroupWrite(group, chunks=[(index, step - 1, body(group, index))])
        case 3:
            return GroupWrite(group, HardState(1, 1, base + 8), mark=mark, compact_to=base + 6)
        case 4:
            copied = [(at, body(group, at)) for at in range(base + 1, base + 4)]
            return GroupWrite(group, bodies=copied, drop_entries=[at for at, _ in copied])
        case 5:
            return GroupWrite(group, drop_entries=range(base + 4, base + 6))
        case 6:
            return GroupWrite(group, drop_bodies=[base + 1, base + 2])
        case 7 | 8:
            number = step - 7
            return GroupWrite(
                group,
                bodies=[(base + 40 + number, body(group, 40))],
                chunks=[(base + 50, number, body(group, base + 50 + number))],
            )
        case _:
            return GroupWrite(group, HardState(1, 1, base + 50), install=snapshot)


def cycle(store: LmdbStore) -> None:
    """Begins in a new directory."""
    for number in count(1):
        store.write([cycle_write(number, group) for group in range(GROUPS)])
        print(number, flush=True)


def main(path: Path, mode: str) -> None:
    store = open_store(path)
    if mode == "cycle":
        cycle(store)
    if mode == "limit":
        turn(store, 1)
        size = (path / "data.mdb").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 65536, size + 65536))
    index = store.group(0).last_index()
    while True:
        index += 1
        try:
            turn(store, index)
        except StoreFailed as error:
            print("failed", error, flush=True)
            return
        print(index, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
