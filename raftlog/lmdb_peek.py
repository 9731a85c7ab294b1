"""Whose directory it is, before it is opened: what a node must know to open it rightly."""

from __future__ import annotations

from pathlib import Path

import lmdb
import msgspec

from raftlog.errors import RaftError
from raftlog.group_state import Identity
from raftlog.lmdb_environment import DATA_FILE, open_readonly
from raftlog.lmdb_records import VALUE_PREFIX, Records


def peek(path: Path, name: str) -> tuple[Identity, bytes | None] | None:
    """The directory's owner, and the small value of this name that `write_meta` wrote.

    None for a new directory, and for one of which `LmdbStore.open` will say what is wrong.
    Nothing is written, and another process may work in it.
    """
    if not (path / DATA_FILE).is_file():
        return None
    try:
        env = open_readonly(path)
    except (RaftError, OSError):
        return None
    try:
        records = Records(path)
        records.open_existing(env)
        if records.meta is None:
            return None
        with env.begin() as txn:
            records.format(txn)  # a later one may mean anything
            return records.identity(txn), records.meta_value(txn, VALUE_PREFIX + name.encode())
    except (RaftError, lmdb.Error, msgspec.DecodeError):
        return None
    finally:
        env.close()
