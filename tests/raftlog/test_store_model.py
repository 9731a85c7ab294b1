"""The store on disk and its twin in memory are told the same, and answer the same."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
)
from msgspec import structs

from raftlog.group_state import Identity
from raftlog.lmdb_garbage import has_garbage
from raftlog.lmdb_store import LmdbStore
from raftlog.memory_store import MemoryStore
from raftlog.messages import Entry, Membership
from raftlog.record import PART_BYTES
from raftlog.write import GroupWrite, Mark
from tests.raftlog.store_view import ALL, view

GROUPS = (0, 1, 300)
SIZES = st.sampled_from([0, 1, 50, PART_BYTES - 19, PART_BYTES - 18, PART_BYTES - 5, 9000])
MEMBERS = st.sampled_from([Membership(voters=(1, 2, 3)), Membership(voters=(1,), learners=(4,))])
MEMORY = Path("/dev/shm")
"""What is tested here does not depend on what a sync does, only how long it takes."""


class TwinMachine(RuleBasedStateMachine):
    """Writes of every kind, groups that come and go, and reopening; then both are asked."""

    @initialize(cache_bytes=st.sampled_from([0, 3000, 1 << 20]))
    def begin(self, cache_bytes: int) -> None:
        self.directory = tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None)
        self.cache_bytes = cache_bytes
        self.twin = MemoryStore(dict.fromkeys(GROUPS, (1, 2, 3)))
        self.highest = 0
        self.store: LmdbStore | None = None
        self.open()

    def open(self) -> None:
        self.store = LmdbStore.open(
            self.directory.name,
            Identity("cluster", "node"),
            dict.fromkeys(GROUPS, (1, 2, 3)),
            map_bytes=64 << 20,
            cache_bytes=self.cache_bytes,
        )

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        assert self.store is not None
        there = sorted(self.twin.storages)
        if not there:
            return
        groups = data.draw(st.lists(st.sampled_from(there), unique=True, min_size=1, max_size=3))
        batch = [self._draw_write(data, group) for group in groups]
        self.store.write(batch)
        self.twin.write(batch)

    def _draw_write(self, data: st.DataObject, group: int) -> GroupWrite:
        draw, storage = data.draw, self.twin.storages[group]
        hard_state, _ = storage.initial_state()
        before, last, mark = storage.first_index() - 1, storage.last_index(), storage.checkpoint
        checkpoint, commit = (mark.index if mark is not None else 0), hard_state.commit
        install = None
        chunks: list[tuple[int, int, bytes]] = []
        term = hard_state.term + draw(st.integers(0, 1))
        if draw(st.integers(0, 9)) == 0:
            index = max(commit, checkpoint) + draw(st.integers(0, 5))
            if index or not last:
                count = draw(st.integers(0, 2)) if index else 0
                chunks = [(index, number, b"i" * draw(SIZES)) for number in range(count)]
                install = Mark(index, term, draw(MEMBERS), count)
                before = last = checkpoint = commit = index
        first = draw(st.integers(max(commit, checkpoint) + 1, last + 1))
        if install is not None:
            first = last + 1
        entries = [
            Entry(index, term, draw(st.integers(0, 1)), bytes([group % 256, index % 256]) * size)
            for index, size in enumerate(draw(st.lists(SIZES, max_size=4)), first)
        ]
        if entries:
            last = entries[-1].index
        commit = draw(st.integers(commit, last))
        whole = None
        if install is None and last and draw(st.booleans()):
            index = draw(st.integers(max(before, checkpoint, 1), last))
            count = draw(st.integers(0, 3))
            there = storage.chunks_of(index)
            numbers = range(there, count) if draw(st.booleans()) else range(count)
            chunks += [(index, number, b"c" * draw(SIZES)) for number in numbers]
            if draw(st.booleans()):
                terms = {entry.index: entry.term for entry in entries}
                at = terms[index] if index in terms else storage.term(index)
                whole = Mark(index, at, draw(MEMBERS), count)
                checkpoint = index
        compact_to = None
        if draw(st.booleans()) and checkpoint > before:
            compact_to = before = draw(st.integers(before, checkpoint))
        kept = [] if install else [*storage.kept_entries(0, ALL)]
        kept += range(storage.first_index() if not install else before + 1, before + 1)
        drops = draw(st.lists(st.sampled_from(kept), unique=True)) if kept else []
        ids = draw(st.lists(st.integers(0, 11), unique=True, max_size=4))
        cut = draw(st.integers(0, len(ids)))
        self.highest = max(self.highest, last)
        return GroupWrite(
            group,
            structs.replace(hard_state, term=term, vote=draw(st.integers(0, 3)), commit=commit),
            entries,
            compact_to=compact_to,
            drop_entries=drops,
            bodies=[(id, b"b" * draw(SIZES)) for id in ids[:cut]],
            drop_bodies=ids[cut:],
            chunks=chunks,
            mark=whole,
            install=install,
        )

    @rule(data=st.data(), seldom=st.integers(0, 7))
    def drop_group(self, data: st.DataObject, seldom: int) -> None:
        assert self.store is not None
        if seldom or not self.twin.storages:
            return
        group = data.draw(st.sampled_from(sorted(self.twin.storages)))
        self.store.drop_group(group)
        self.twin.drop_group(group)

    @rule(data=st.data(), members=MEMBERS)
    def add_group(self, data: st.DataObject, members: Membership) -> None:
        assert self.store is not None
        absent = [group for group in GROUPS if group not in self.twin.storages]
        if not absent:
            return
        group = data.draw(st.sampled_from(absent))
        self.store.add_group(group, members)
        self.twin.add_group(group, members)

    @rule()
    def reopen(self) -> None:
        assert self.store is not None
        disk_id = self.store.disk_id
        self.store.close()
        self.open()
        assert self.store.disk_id == disk_id

    @invariant()
    def answers_agree(self) -> None:
        if self.store is None:
            return
        assert self.store.groups == sorted(self.twin.storages)
        for group, twin in self.twin.storages.items():
            assert view(self.store.group(group), self.highest) == view(twin, self.highest)
            self.store.verify(group)

    def teardown(self) -> None:
        if self.store is None:
            return
        for turn in range(100):
            self.store.write_meta("turn", b"%d" % turn)
            for group in self.store.groups:
                self.store.write([GroupWrite(group)])
        with self.store.begin() as txn:
            for group in self.store.groups:
                state = self.store.group(group).state
                assert not has_garbage(txn, self.store.records, group, state)
        self.store.close()
        self.directory.cleanup()


TestTwins = TwinMachine.TestCase
TestTwins.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)


def test_long_records_are_listed_a_few_at_a_time() -> None:
    """They are listed in order to be deleted, and a transaction must not delete without bounds."""
    data = bytes(1 << 20)
    twin = MemoryStore({0: (1,)})
    with (
        tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as directory,
        LmdbStore.open(
            directory, Identity("c", "n"), {0: (1,)}, map_bytes=256 << 20, cache_bytes=1 << 20
        ) as store,
    ):
        for each in (store, twin):
            entries = [Entry(index, 1, 0, data) for index in range(1, 21)]
            mark = Mark(20, 1, Membership(voters=(1,)), 0)
            bodies = [(id, data) for id in range(20)]
            each.write([GroupWrite(0, None, entries, mark=mark, compact_to=20, bodies=bodies)])
            storage = each.storages[0]
            assert storage.kept_entries(0, 1000) == list(range(1, 17))
            assert storage.kept_entries(17, 1000) == [17, 18, 19, 20]
            assert storage.kept_entries(0, 3) == [1, 2, 3]
            assert storage.body_ids(0, 1000) == list(range(16))
            assert storage.body_ids(19, 1000) == [19]
            assert storage.body_ids(20, 1000) == []
