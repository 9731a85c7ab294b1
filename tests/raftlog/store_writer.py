"""A process that writes to a store without end, and says what is durable. Killed by its test.

`python store_writer.py DIRECTORY MODE`: with mode `kill` a line "GROUP INDEX" follows each
write; with `limit` the size of any file is limited first, and the failure is told.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.messages import Entry, HardState
from raftlog.store_errors import StoreFailed
from raftlog.write import GroupWrite

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


def main(path: Path, mode: str) -> None:
    store = open_store(path)
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
