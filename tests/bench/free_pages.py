"""What a large backlog costs LMDB once it is deleted: are its pages used again, and how fast?

`python -m tests.bench.free_pages DIRECTORY [--entry-kib 64] [--mib 1024] [--portion 64]` fills
a store with entries, deletes them in portions, and goes on writing entries and chunks.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import time
from pathlib import Path

import lmdb


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--entry-kib", type=int, default=64)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--portion", type=int, default=64)
    parser.add_argument("--keep-every", type=int, default=0, help="leave every n-th entry")
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--part-bytes", type=int, default=1 << 30, help="split what is longer")
    options = parser.parse_args()
    part_bytes = options.part_bytes
    shutil.rmtree(options.directory, ignore_errors=True)
    options.directory.mkdir(parents=True)
    value = b"v" * (options.entry_kib << 10)
    count = (options.mib << 10) // options.entry_kib
    env = lmdb.open(str(options.directory), map_size=16 << 30, max_dbs=4, sync=False)
    log = env.open_db(b"log")
    per_turn = max(1, 1024 // options.entry_kib)

    def size() -> str:
        info, pages = env.info(), env.stat()["psize"]
        return f"{(info['last_pgno'] + 1) * pages >> 20} MiB in use at most"

    def report(what: str, times: list[float]) -> None:
        times.sort()
        print(
            f"{what:34s} {len(times):6d} transactions, median {statistics.median(times) * 1e3:7.2f}"
            f" ms, 99% {times[int(len(times) * 0.99)] * 1e3:7.2f} ms, worst {times[-1] * 1e3:7.2f}"
            f" ms, {size()}",
            flush=True,
        )

    def timed(indices: range, act: str, data: bytes = value) -> float:
        start = time.perf_counter()
        with env.begin(write=True, db=log) as txn:
            for index in indices:
                key = index.to_bytes(8, "big")
                if act == "put":
                    for part in range(0, len(data), part_bytes):
                        place = key + part.to_bytes(4, "big")
                        txn.put(place, data[part : part + part_bytes])
                elif not options.keep_every or index % options.keep_every:
                    for part in range(0, len(data), part_bytes):
                        txn.delete(key + part.to_bytes(4, "big"))
        return time.perf_counter() - start

    last = 0
    times = []
    while last < count:
        times.append(timed(range(last, last + per_turn), "put"))
        last += per_turn
    report(f"filling, {per_turn} entries", times)
    times = [
        timed(range(first, min(first + options.portion, last)), "delete")
        for first in range(0, last, options.portion)
    ]
    report(f"deleting {options.portion}", times)
    for what, kib, many in (
        ("1 entry of 2 KiB", 2, 1),
        ("1 entry of 64 KiB", 64, 1),
        ("8 entries of 64 KiB", 64, 8),
        ("1 chunk of 1 MiB", 1023, 1),
        ("1 entry of 2 KiB again", 2, 1),
        ("8 entries of 64 KiB again", 64, 8),
    ):
        data = b"w" * (kib << 10)
        times = []
        for _ in range(options.turns):
            times.append(timed(range(last, last + many), "put", data))
            last += many
        report(what, times)
    env.close()


if __name__ == "__main__":
    main()
