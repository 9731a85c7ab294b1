"""Frames between clients and nodes, and between nodes: nothing a socket brings breaks a decoder."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.peer_protocol import (
    Done,
    PeerFrame,
    PeerProtocolError,
    decode_peer_frame,
    encode_peer_frame,
)
from broker.protocol import (
    Beat,
    Confirmed,
    Content,
    ProtocolError,
    Publish,
    decode_answers,
    decode_content,
    decode_operations,
    encode_answer,
    encode_content,
    encode_operations,
    join_answers,
)

PUBLISH = Publish(7, "ex", "key", False, 0, None, b"body")


def test_operations_come_back_as_they_were() -> None:
    frame = decode_operations(encode_operations(3, [PUBLISH]))
    assert (frame.floor, frame.operations) == (3, [PUBLISH])


@pytest.mark.parametrize("count", [0, 1, 20, 70_000])
def test_joined_answers_come_back_in_order(count: int) -> None:
    answers = [Confirmed((n,)) for n in range(count)]
    assert decode_answers(join_answers(map(encode_answer, answers))) == answers


@given(st.binary(max_size=200))
def test_random_bytes_are_a_protocol_error_or_a_frame(data: bytes) -> None:
    for frame in (data, b"\x01" + data):
        for decode in (decode_operations, decode_answers, decode_content):
            try:
                decode(frame)
            except ProtocolError:
                pass
        try:
            decode_peer_frame(frame)
        except PeerProtocolError:
            pass


@given(st.integers(0, 60), st.binary(max_size=4))
def test_a_damaged_frame_is_a_protocol_error_or_a_frame(at: int, junk: bytes) -> None:
    frame = encode_operations(1, [PUBLISH, PUBLISH])
    try:
        decode_operations(frame[:at] + junk + frame[at + len(junk) :])
    except ProtocolError:
        pass


def test_deep_nesting_is_a_protocol_error() -> None:
    bomb = b"\x01" + b"\x91" * 100_000
    for decode in (decode_operations, decode_answers):
        with pytest.raises(ProtocolError):
            decode(bomb)
    nested = msgspec.msgpack.encode([1, [[3, 1, "", "", False, 0]]])[:-1]
    with pytest.raises(ProtocolError):
        decode_operations(b"\x01" + nested + b"\x81\xa1a" * 50_000)


def test_another_version_is_named() -> None:
    with pytest.raises(ProtocolError, match="version 2"):
        decode_operations(b"\x02" + encode_operations(1, [])[1:])
    with pytest.raises(PeerProtocolError, match="version none"):
        decode_peer_frame(b"")


def test_newer_fields_at_the_end_are_passed_over() -> None:
    newer = [10, True, "a field of a later version"]
    frame = b"\x01" + msgspec.msgpack.encode([newer])
    assert decode_answers(frame) == [Beat(True)]


def test_content_keeps_exact_types() -> None:
    content = Content({"priority": 3, "x": None}, {"a": b"\x00", "n": [1, 2.5, "t"]}, b"\xff")
    assert decode_content(encode_content(content)) == content


def test_peer_frames_come_back_as_they_were() -> None:
    frame = PeerFrame(b"c", "n1", 1, 2, 3, "h:1", [Done(1, 2, [(3, [4, 5])])])
    assert decode_peer_frame(encode_peer_frame(frame)) == frame
