"""Reads the records of an open store slowly, over and over, so that damage is found early.

    pass    group 0: log, messages, checkpoint, state · group 1: ... · the node's own records
            |--portion--|--portion--|...                          each as large as time allows

What is damaged is told once, and nothing else happens: the record is not needed now, or reading
it would have told. Links between entries are followed within a portion.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Protocol

from raftlog.group_state import GroupState
from raftlog.lmdb_records import DISK_KEY, FORMAT_KEY, IDENTITY_KEY, Records, Txn
from raftlog.lmdb_verify import Damage
from raftlog.record import HEAD_BYTES, group_key
from raftlog.store_errors import CorruptRecord, Place

PAGE = 64
"""How many keys are looked up at a time."""
PORTION_BYTES_MAX = 1 << 20
"""Of one portion, when time has passed without any; and then one record, however large."""
TOLD_MAX = 1000
"""Damaged records that are remembered, so as not to be told again in each pass."""

_SECTIONS = ("log", "messages", "checkpoint", "state")


class ScrubbedGroup(Protocol):
    """A group of the store, as far as it matters here."""

    @property
    def state(self) -> GroupState:
        """What is durable now."""


class Scrubbed(Protocol):
    """The store, as far as it matters here."""

    @property
    def records(self) -> Records:
        """The databases."""

    @property
    def storages(self) -> Mapping[int, ScrubbedGroup]:
        """Every group there is."""

    def begin(self) -> AbstractContextManager[Txn]:
        """A transaction that reads."""


class Scrubber:
    """Where a pass has come to, and what may be read next."""

    def __init__(self, store: Scrubbed, *, bytes_per_s: int, pass_ms: int) -> None:
        """`pass_ms`: a pass does not begin earlier than so long after the one before."""
        self.passes = 0  #: that have come to their end
        self.bytes = 0  #: of data, read and proved or not
        self._store = store
        self._bytes_per_s, self._pass_ms = bytes_per_s, pass_ms
        self._now_ms: int | None = None
        self._begins_ms = 0
        self._allowance = 0.0  # may be below 0 after a large record
        self._left: list[tuple[int | None, str]] = []  # sections of this pass, the next one last
        self._low = (0, 0)  # where the section goes on: its numbers, see `_section`
        self._told: set[Place] = set()

    def run(self, now_ms: int) -> list[Damage]:
        """Read what the time since the last call allows; the damage that was not told before."""
        if self._now_ms is None:
            self._now_ms = self._begins_ms = now_ms
        allowed = self._bytes_per_s * (now_ms - self._now_ms) / 1000
        self._allowance = min(self._allowance + allowed, PORTION_BYTES_MAX)
        self._now_ms = now_ms
        if not self._left:
            if now_ms < self._begins_ms:
                return []
            self._begin(now_ms)
        if self._allowance <= 0:
            return []
        damages: list[Damage] = []
        with self._store.begin() as txn:
            while self._left and self._allowance > 0:
                damages += self._portion(txn)
        if not self._left:
            self.passes += 1
        return damages

    def _begin(self, now_ms: int) -> None:
        self._begins_ms = now_ms + self._pass_ms
        groups = sorted(self._store.storages)
        sections: list[tuple[int | None, str]] = [(g, name) for g in groups for name in _SECTIONS]
        self._left = [*sections, (None, "meta")][::-1]
        self._low = (0, 0)

    def _portion(self, txn: Txn) -> list[Damage]:
        """Some of the present section, or to its end."""
        group, name = self._left[-1]
        found: list[Damage] = []
        for size, error in self._section(txn, group, name):
            self.bytes += size
            self._allowance -= size
            if error is not None and error.place not in self._told:
                if len(self._told) < TOLD_MAX:
                    self._told.add(error.place)
                found.append(Damage(error.place, error.wrong))
            if self._allowance <= 0:
                return found
        self._left.pop()
        self._low = (0, 0)
        return found

    def _section(
        self, txn: Txn, group: int | None, name: str
    ) -> Iterator[tuple[int, CorruptRecord | None]]:
        """(bytes, what is wrong) of each record; `_low` is behind it when it is given."""
        records = self._store.records
        if group is None:
            for key in (FORMAT_KEY, DISK_KEY, IDENTITY_KEY):
                yield _read(partial(records.meta_value, txn, key))
            return
        storage = self._store.storages.get(group)
        if storage is None:
            return  # dropped meanwhile
        match name:
            case "log":
                yield from self._log(txn, group, storage.state)
            case "messages":
                yield from self._bodies(txn, group, storage.state)
            case "checkpoint":
                yield from self._chunks(txn, group, storage.state)
            case _:
                key = group_key(group)
                yield _read(partial(_state, records, txn, key))

    def _log(
        self, txn: Txn, group: int, state: GroupState
    ) -> Iterator[tuple[int, CorruptRecord | None]]:
        records, edition, chain = self._store.records, state.edition, None
        while indices := records.entry_indices(
            txn, group, edition, self._low[0], state.last_index, PAGE
        ):
            for index in indices:
                expected = max(self._low[0], state.before_index + 1)
                self._low = (index + 1, 0)
                if index > expected:
                    yield 0, _missing(records, group, expected)
                    chain = None
                try:
                    record = records.entry_of_log(txn, group, edition, index)
                except CorruptRecord as error:
                    chain = None
                    yield HEAD_BYTES, error
                    continue
                follows = chain is None or index <= state.before_index + 1
                wrong = None
                if not follows and record.previous != chain:
                    place = Place("log", group, index)
                    text = f"it does not follow entry {index - 1}"
                    wrong = CorruptRecord(records.path, place, text)
                chain = record.chain
                yield HEAD_BYTES + len(record.entry.data), wrong
        expected = max(self._low[0], state.before_index + 1)
        if expected <= state.last_index:
            yield 0, _missing(records, group, expected)

    def _bodies(
        self, txn: Txn, group: int, state: GroupState
    ) -> Iterator[tuple[int, CorruptRecord | None]]:
        records, incarnation = self._store.records, state.incarnation
        while ids := records.body_ids(txn, group, incarnation, self._low[0], PAGE):
            for id in ids:
                self._low = (id + 1, 0)
                yield _read(partial(records.body, txn, group, incarnation, id))

    def _chunks(
        self, txn: Txn, group: int, state: GroupState
    ) -> Iterator[tuple[int, CorruptRecord | None]]:
        """Of the whole checkpoint; a newer one is begun again should it be damaged."""
        records, index = self._store.records, state.checkpoint_index
        low = self._low[1] if self._low[0] == index else 0
        for number in range(low, state.checkpoint_chunks):
            self._low = (index, number + 1)
            yield _read(partial(records.chunk, txn, group, index, number))


def _missing(records: Records, group: int, index: int) -> CorruptRecord:
    return CorruptRecord(records.path, Place("log", group, index), "it is missing")


def _state(records: Records, txn: Txn, key: bytes) -> bytes:
    records.group_state(txn, key)
    return b""


def _read(read: Callable[[], bytes | None]) -> tuple[int, CorruptRecord | None]:
    try:
        return HEAD_BYTES + len(read() or b""), None
    except CorruptRecord as error:
        return HEAD_BYTES, error
