"""Does the disk use of a store return to normal after a backlog? Through the real store.

`python -m tests.bench.backlog DIRECTORY [--mib 256]` writes entries, takes a checkpoint, drops
them all, does the same twice more, and then compacts the file of the closed store.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from raftlog.lmdb_compaction import compact_directory
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.messages import Entry, HardState, Membership
from raftlog.write import GroupWrite, Mark

ENTRY_BYTES = 64 << 10
PER_TURN = 16
MEMBERS = Membership(voters=(1,))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--mib", type=int, default=256)
    options = parser.parse_args()
    shutil.rmtree(options.directory, ignore_errors=True)
    count = (options.mib << 20) // ENTRY_BYTES
    with LmdbStore.open(
        options.directory, Identity("c", "n"), {0: (1,)}, map_bytes=16 << 30, cache_bytes=1 << 20
    ) as store:
        for _ in range(3):
            _backlog(store, count, options.directory)
    start = time.perf_counter()
    sizes = compact_directory(options.directory)
    print(f"compacted from {sizes.before >> 10} KiB to {sizes.after >> 10} KiB", end=" ")
    print(f"in {time.perf_counter() - start:.1f} s")


def _backlog(store: LmdbStore, count: int, directory: Path) -> None:
    begin = store.group(0).last_index()
    data = b"e" * ENTRY_BYTES
    start = time.perf_counter()
    for first in range(begin + 1, begin + count, PER_TURN):
        entries = [Entry(index, 1, 0, data) for index in range(first, first + PER_TURN)]
        store.write([GroupWrite(0, HardState(1, 1, first), entries)])
    filled = time.perf_counter()
    last = store.group(0).last_index()
    store.write([GroupWrite(0, chunks=[(last, 0, b"state")], mark=Mark(last, 1, MEMBERS, 1))])
    worst = 0.0
    for first in range(begin + 1, last + 1, PER_TURN):
        turn = time.perf_counter()
        to = first + PER_TURN - 1
        store.write([GroupWrite(0, compact_to=to, drop_entries=range(first, to + 1))])
        worst = max(worst, time.perf_counter() - turn)
    size = (directory / "data.mdb").stat().st_size
    print(
        f"{count} entries of 64 KiB written in {filled - start:.1f} s, dropped in "
        f"{time.perf_counter() - filled:.1f} s (slowest turn {worst * 1e3:.0f} ms): "
        f"the file has {size >> 20} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
