"""Making a stopped node's file as small as what it holds.

LMDB uses the pages of deleted records again, but never gives them back: its file keeps the size
that it once needed.

    data.mdb --copy of the pages in use--> compacted/data.mdb --verified, synced--> renamed

Until the last step nothing is changed, and the last step is one rename: a crash leaves the old
file or the new one. What is left over of an attempt is removed by the next.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import lmdb

from raftlog.lmdb_environment import (
    DATA_FILE,
    OFFLINE_SPARE_BYTES,
    check_meta_pages_of,
    commit,
    free_bytes,
    open_environment,
    open_readonly,
    sync_directory,
    take_lock_of_stopped,
)
from raftlog.lmdb_verify import Report, verify_locked
from raftlog.store_errors import KEEP, StoreCorrupt, StoreFailed

COPY_DIRECTORY = "compacted"


class Sizes(NamedTuple):
    """Of the file, in bytes."""

    before: int
    after: int


def compact_directory(path: Path) -> Sizes:
    """Replace a stopped node's file by one without free pages.

    Raise `StoreLocked` or `StoreUnusable` when it cannot be done now, `StoreCorrupt` when a
    record is damaged, `StoreTooNew`, and `StoreFailed` when the disk has no room for the copy or
    refuses it. Nothing is changed then.
    """
    lock = take_lock_of_stopped(path)
    copy = path / COPY_DIRECTORY
    try:
        report = _whole(path)
        before = (path / DATA_FILE).stat().st_size
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir()
        _copy(path, copy)
        if _whole(copy) != report:
            raise StoreFailed(f"the copy of {path} does not hold what it should; it was not used")
        after = (copy / DATA_FILE).stat().st_size
        _sync_file(copy / DATA_FILE)
        os.replace(copy / DATA_FILE, path / DATA_FILE)
        sync_directory(path)
        return Sizes(before, after)
    except (lmdb.Error, OSError) as error:
        raise StoreFailed(f"{path} could not be compacted, and was not changed: {error}") from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)
        os.close(lock)


def _whole(path: Path) -> Report:
    """What is in a directory, all of it verified."""
    report = verify_locked(path)
    if report.damages:
        raise StoreCorrupt(
            f"{path} was not compacted, for it is damaged: {report.damages[0]}. {KEEP}"
        )
    return report


def _copy(path: Path, copy: Path) -> None:
    with open_readonly(path) as env:
        info, page_bytes = env.info(), env.stat()["psize"]
        needed = (info["last_pgno"] + 1) * page_bytes
        if free_bytes(path) < needed:
            raise StoreFailed(
                f"the copy of {path} may need {needed} bytes beside it, and the disk has "
                f"{free_bytes(path)}: make room first"
            )
        env.copy(str(copy), compact=True)
    size = (copy / DATA_FILE).stat().st_size
    with open_environment(copy, size + OFFLINE_SPARE_BYTES) as env:
        # The copy begins to count its transactions anew, and both of its meta pages must name a
        # page with their own number (lmdb_meta.py): each of these two transactions writes one.
        for _ in range(2):
            commit(env, lambda txn: None)
    check_meta_pages_of(copy / DATA_FILE)


def _sync_file(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)
