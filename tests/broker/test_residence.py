"""The store's pages in a process's resident set: let go, and still there to be read."""

from __future__ import annotations

import sys
from pathlib import Path

import lmdb
import pytest

from broker.residence import Residence

MIB = 1 << 20

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_pages_that_were_read_are_let_go_and_read_again(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path), map_size=256 * MIB)
    value = bytes(range(256)) * 4096
    with env.begin(write=True) as txn:
        for number in range(64):
            txn.put(b"%03d" % number, value)
    residence = Residence(tmp_path / "data.mdb", 1)

    def read() -> bool:
        with env.begin() as txn:
            return all(txn.get(b"%03d" % number) == value for number in range(64))

    assert read()
    full = residence.resident_bytes()
    assert residence.limit()
    assert residence.resident_bytes() < full - 48 * MIB
    assert read()
    assert residence.resident_bytes() > full - 16 * MIB
    with env.begin(write=True) as txn:  # a writer does not mind either
        txn.put(b"000", b"other")
        residence.limit()
    with env.begin() as txn:
        assert txn.get(b"000") == b"other"


def test_below_the_limit_nothing_is_let_go(tmp_path: Path) -> None:
    env = lmdb.open(str(tmp_path), map_size=MIB)
    residence = Residence(tmp_path / "data.mdb", 1 << 40)
    assert not residence.limit()
    env.close()
