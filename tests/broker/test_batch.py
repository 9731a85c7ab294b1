"""Entries: what goes in comes out, one command at a time, and rubbish is told from a batch."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.batch import (
    Batch,
    BatchError,
    command_id,
    encode_batch,
    index_of,
    offset_of,
)

COMMANDS = st.lists(st.binary(max_size=40), min_size=1, max_size=20)


@given(COMMANDS, st.integers(0, 2**63))
def test_every_command_is_found_by_its_offset(commands: list[bytes], now_ms: int) -> None:
    batch = Batch(encode_batch(now_ms, commands))
    assert (batch.now_ms, batch.count) == (now_ms, len(commands))
    assert [bytes(batch.command(i)) for i in range(batch.count)] == commands


@given(COMMANDS, st.data())
def test_a_cut_or_grown_batch_is_refused(commands: list[bytes], data: st.DataObject) -> None:
    encoded = encode_batch(1, commands)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(BatchError):
        Batch(encoded[:cut])
    with pytest.raises(BatchError):
        Batch(encoded + b"\0")


def test_another_format_is_refused() -> None:
    encoded = encode_batch(1, [b"a"])
    with pytest.raises(BatchError, match="format 1"):
        Batch(b"\x02" + encoded[1:])


@given(st.integers(1, 2**43), st.integers(0, 2**20 - 1), st.integers(1, 2**43))
def test_ids_grow_with_the_log(index: int, offset: int, other: int) -> None:
    id = command_id(index, offset)
    assert (index_of(id), offset_of(id)) == (index, offset)
    if other > index:
        assert command_id(other, 0) > id
