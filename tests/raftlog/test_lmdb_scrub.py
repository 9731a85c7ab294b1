"""The slow reading of all records: what is whole stays silent, what is damaged is told once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from raftlog.lmdb_scrub import PORTION_BYTES_MAX, Scrubber
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.messages import Entry, HardState, Membership
from raftlog.store_errors import Place
from raftlog.write import GroupWrite, Mark

MEMBERS = Membership(voters=(1, 2, 3))
ENTRIES = 200


def body(group: int, index: int) -> bytes:
    return f"entry {index} of {group};".encode() * 40


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LmdbStore]:
    """Two groups: entries, of which some are only kept, bodies and a checkpoint."""
    groups = {0: MEMBERS.voters, 7: MEMBERS.voters}
    with LmdbStore.open(tmp_path, Identity("c", "n"), groups, 64 << 20, 1) as store:
        for group in groups:
            entries = [Entry(i, 1, 0, body(group, i)) for i in range(1, ENTRIES + 1)]
            store.write([GroupWrite(group, HardState(1, 1, ENTRIES), entries)])
            chunks = [(100, number, b"chunk %d;" % number * 500) for number in range(3)]
            store.write(
                [
                    GroupWrite(
                        group,
                        chunks=chunks,
                        mark=Mark(100, 1, MEMBERS, 3),
                        compact_to=90,
                        drop_entries=[*range(1, 40, 2)],
                        bodies=[(index << 20, b"body %d;" % index * 30) for index in range(1, 40)],
                    )
                ]
            )
        yield store


def flip(store: LmdbStore, needle: bytes) -> None:
    """One bit, under the open store."""
    with (store.path / "data.mdb").open("r+b") as file:
        data = file.read()
        place = data.find(needle)
        assert place >= 0
        while place >= 0:
            file.seek(place + 2)
            file.write(bytes([data[place + 2] ^ 4]))
            place = data.find(needle, place + 1)


def a_pass(scrubber: Scrubber, now_ms: int = 0, tick_ms: int = 50) -> tuple[list[Place], int]:
    """Until a pass has come to its end: (what was told, the time then)."""
    passes, told = scrubber.passes, []
    for _ in range(100_000):
        told += [damage.place for damage in scrubber.run(now_ms)]
        if scrubber.passes > passes:
            return told, now_ms
        now_ms += tick_ms
    raise AssertionError("a pass without an end")


def test_a_whole_store_is_read_to_its_end_in_silence_as_fast_as_it_may(store: LmdbStore) -> None:
    scrubber = Scrubber(store, bytes_per_s=100_000, pass_ms=1000)
    told, took_ms = a_pass(scrubber)
    assert not told
    data = sum(len(body(group, index)) for group in (0, 7) for index in range(40, ENTRIES + 1))
    assert scrubber.bytes > data
    assert took_ms == pytest.approx(scrubber.bytes * 1000 / 100_000, rel=0.05)


def test_a_pass_waits_for_its_time(store: LmdbStore) -> None:
    scrubber = Scrubber(store, bytes_per_s=10 << 20, pass_ms=60_000)
    _, now_ms = a_pass(scrubber)
    read = scrubber.bytes
    scrubber.run(now_ms + 1000)
    assert scrubber.bytes == read
    _, again_ms = a_pass(scrubber, now_ms + 1000)
    assert again_ms >= 60_000 and scrubber.bytes == 2 * read


def test_after_a_long_silence_a_portion_is_still_small(store: LmdbStore) -> None:
    scrubber = Scrubber(store, bytes_per_s=1 << 30, pass_ms=0)
    with_much = [Entry(ENTRIES + n, 1, 0, bytes(50_000)) for n in range(1, 101)]
    store.write([GroupWrite(7, entries=with_much)])
    scrubber.run(0)
    scrubber.run(3_600_000)
    assert scrubber.bytes <= PORTION_BYTES_MAX + 100_000


@pytest.mark.parametrize(
    ("needle", "place"),
    [
        (body(7, 150)[:16], Place("log", 7, 150)),  # behind the beginning
        (body(0, 60)[:15], Place("log", 0, 60)),  # kept
        (b"body 17;", Place("messages", 0, 17 << 20)),
        (b"chunk 2;", Place("checkpoint", 0, 2, 100)),
    ],
)
def test_a_flipped_bit_is_told_once(store: LmdbStore, needle: bytes, place: Place) -> None:
    flip(store, needle)
    scrubber = Scrubber(store, bytes_per_s=1 << 20, pass_ms=0)
    told, now_ms = a_pass(scrubber)
    assert place in told
    assert {found.number for found in told} == {place.number}
    told, _ = a_pass(scrubber, now_ms + 50)
    assert not told


def test_what_changes_meanwhile_is_no_damage(store: LmdbStore) -> None:
    """Entries come, a suffix is replaced, records are dropped, a group goes."""
    scrubber = Scrubber(store, bytes_per_s=100_000, pass_ms=0)
    told, now_ms, last, low = [], 0, ENTRIES, 41
    while scrubber.passes < 3:
        told += scrubber.run(now_ms)
        now_ms += 50
        first = max(last - 3, ENTRIES + 1)
        last = first + 5
        entries = [Entry(index, now_ms, 0, b"x" * 900) for index in range(first, last + 1)]
        drop = [low] if low <= 90 else []
        low += 1
        store.write([GroupWrite(7, HardState(now_ms, 1, ENTRIES), entries, drop_entries=drop)])
        if scrubber.passes == 1 and 0 in store.storages:
            store.drop_group(0)
    assert not told
