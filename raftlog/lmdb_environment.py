"""A node's directory: its lock, its LMDB file, and how a transaction in it is committed.

data.mdb       LMDB's file
lock.mdb       LMDB's own table of readers, of no value when nobody runs
node.lock      held by the process that works in the directory
commit.failed  the turn of a commit that the disk refused: see lmdb_meta.py
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb

from raftlog.lmdb_meta import TURN_KEY, MetaDamaged, check_meta_pages, sealed_turn
from raftlog.store_errors import (
    KEEP,
    StoreCorrupt,
    StoreFailed,
    StoreLocked,
    StoreTooNew,
    StoreUnusable,
)

DATA_FILE = "data.mdb"
LOCK_FILE = "node.lock"
FAILED_FILE = "commit.failed"
DATABASES_MAX = 8

OFFLINE_SPARE_BYTES = 64 << 20
"""How much the file of a stopped node may grow while it is repaired or compacted."""


def take_lock(path: Path, *, create: bool = True) -> int:
    """LMDB itself lets many processes in; two nodes in one directory would be a disaster."""
    flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0)
    lock = os.open(path / LOCK_FILE, flags, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise StoreLocked(
            f"another process works in {path}: stop it first, or set another data_dir"
        ) from error
    except OSError:
        os.close(lock)
        raise
    return lock


def take_lock_of_stopped(path: Path) -> int:
    """The lock of a directory that a node has used before. Raise `StoreUnusable` for another."""
    try:
        if not (path / DATA_FILE).is_file():
            raise StoreUnusable(f"{path} is not a node's data directory: it has no {DATA_FILE}")
        return take_lock(path)
    except OSError as error:
        raise StoreUnusable(f"{path} cannot be used: {error}") from error


def check_meta_pages_of(file: Path) -> bool:
    """Before LMDB chooses between the two, and can no longer be asked about the other.

    Return whether a failed commit has left one of them to be overwritten.
    """
    try:
        with file.open("rb") as opened:
            failed = _failed_turn(file.with_name(FAILED_FILE))
            return check_meta_pages(
                lambda offset, count: os.pread(opened.fileno(), count, offset), failed
            )
    except FileNotFoundError:
        return False  # a new directory
    except OSError as error:
        raise StoreFailed(f"{file} cannot be read: {error}") from error
    except MetaDamaged as error:
        raise StoreCorrupt(f"the meta pages of {file} are damaged: {error}. {KEEP}") from error


def open_environment(path: Path, map_bytes: int) -> lmdb.Environment:
    """With LMDB's default durability: never nosync, nometasync, map_async or writemap."""
    return _opened(
        path,
        lambda: lmdb.open(
            str(path),
            map_size=map_bytes,
            max_dbs=DATABASES_MAX,
            max_spare_txns=1,
            sync=True,
            metasync=True,
            map_async=False,
            writemap=False,
        ),
    )


def open_readonly(path: Path) -> lmdb.Environment:
    """Of a stopped node whose lock we hold: nothing at all is written, not even LMDB's lock."""
    return _opened(
        path,
        lambda: lmdb.open(
            str(path),
            map_size=(path / DATA_FILE).stat().st_size + OFFLINE_SPARE_BYTES,
            max_dbs=DATABASES_MAX,
            readonly=True,
            lock=False,
            create=False,
        ),
    )


def _opened(path: Path, opening: Callable[[], lmdb.Environment]) -> lmdb.Environment:
    try:
        return opening()
    except lmdb.VersionMismatchError as error:
        raise StoreTooNew(f"{path} was written by another version of LMDB: {error}") from error
    except (lmdb.InvalidError, lmdb.CorruptedError) as error:
        raise StoreCorrupt(f"{path / DATA_FILE} is no LMDB file: {error}. {KEEP}") from error
    except (lmdb.Error, OSError) as error:
        raise StoreFailed(f"{path} cannot be opened: {error}") from error


def commit(env: lmdb.Environment, fill: Callable[[lmdb.Transaction[bytes]], None]) -> None:
    """One write transaction, which names its turn (lmdb_meta.py)."""
    with env.begin(write=True) as txn:
        fill(txn)
        txn.put(TURN_KEY, sealed_turn(txn.id()))


def note_failed_commit(env: lmdb.Environment, path: Path) -> None:
    """Write down which commit has failed, if the disk still takes that much.

    If it does not, the next start may have to refuse the directory: what LMDB does to a meta page
    that it could not write cannot be told from damage.
    """
    with suppress(OSError, lmdb.Error):
        turn = env.info()["last_txnid"] + 1
        with (path / FAILED_FILE).open("w") as file:
            file.write(str(turn))
            file.flush()
            os.fsync(file.fileno())
        sync_directory(path)


def forget_failed_commit(path: Path) -> None:
    """A commit has overwritten what the failed one left."""
    if (path / FAILED_FILE).exists():
        (path / FAILED_FILE).unlink()
        sync_directory(path)


def _failed_turn(file: Path) -> int:
    try:
        text = file.read_text()
    except FileNotFoundError:
        return 0
    return int(text) if text.isdecimal() else 0


@contextmanager
def reading(env: lmdb.Environment, path: Path) -> Iterator[lmdb.Transaction[bytes]]:
    """A transaction that reads; LMDB's own complaints become ours."""
    try:
        with env.begin() as txn:
            yield txn
    except (lmdb.CorruptedError, lmdb.PageNotFoundError) as error:
        raise StoreCorrupt(f"{path} is damaged: {error}. {KEEP}") from error
    except lmdb.Error as error:
        raise StoreFailed(f"reading from {path} failed: {error}") from error


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: LMDB syncs its file alone."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def free_bytes(path: Path) -> int:
    """Room left on the disk under `path`."""
    disk = os.statvfs(path)
    return disk.f_bavail * disk.f_frsize
