"""Messages on their way through Kombu's shape and back."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from amqp.exceptions import PreconditionFailed
from hypothesis import given
from hypothesis import strategies as st
from kombu import Exchange
from kombu import Queue as KombuQueue
from kombu.compression import compress

from broker.client import Delivery
from broker.client.consumer import Consumer, QueueHand
from broker.client.window import ChannelWindow
from broker.protocol import Delivery as DeliveryAnswer
from broker.protocol import decode_content
from kombu_transport.message import Message, encode_message, to_content


def delivered(payload: bytes, channel: Any = None, info: dict[str, Any] | None = None) -> Message:
    """The message that a consumer would get."""
    answer = DeliveryAnswer(0, 1, 1, 1, 1, 1, "", "q", 0, payload)
    consumer = Consumer(1, "q", None, "tag", ChannelWindow())
    return Message(channel, Delivery(consumer, QueueHand(0, 1), answer), 1, info or {})


def through(body: Any, headers: dict[str, Any] | None = None, **properties: Any) -> Message:
    """Published and delivered."""
    content = to_content(body, 0, None, None, headers, properties)
    return delivered(encode_message(content)[2])


def test_text_is_text_again_and_bytes_are_bytes() -> None:
    assert through("tüt", content_encoding="utf-8").body == "tüt"
    assert through(b"\xff\x00", content_encoding="binary").body == b"\xff\x00"
    assert through("a bare string").body == "a bare string"


def test_text_in_an_encoding_of_the_senders_choice() -> None:
    message = through("tüt", content_encoding="latin-1", content_type="text/plain")
    assert message.body == "tüt".encode("latin-1")
    assert message.decode() == "tüt"


def test_text_that_is_none_stays_bytes() -> None:
    assert through(b"\xff", content_encoding="utf-8").body == b"\xff"


def test_compressed_text_is_text_again() -> None:
    body, method = compress('{"a": 1}', "zlib")
    message = through(
        body,
        {"compression": method},
        content_type="application/json",
        content_encoding="utf-8",
    )
    assert (message.body, message.decode()) == ('{"a": 1}', {"a": 1})


def test_what_cannot_be_decompressed_is_an_error_of_the_message() -> None:
    message = through(b"rubbish", {"compression": "application/x-gzip"}, content_encoding="utf-8")
    assert len(message.errors) == 1
    with pytest.raises(Exception, match=r"zlib|decompress|incorrect"):
        message._reraise_error()
    assert not through("fine").errors


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
    | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(), PLAIN), st.dictionaries(st.text(max_size=5), PLAIN))
def test_headers_and_properties_keep_their_types(
    headers: dict[str, Any], properties: dict[str, Any]
) -> None:
    for ours in ("priority", "expiration", "content_encoding", "content_type", "compression"):
        headers.pop(ours, None)
        properties.pop(ours, None)
    message = through(b"body", headers, **properties)
    assert message.headers == headers
    assert message.properties == {**properties, "priority": 0}
    # Celery's prefork pool sends them to its children.
    assert pickle.loads(pickle.dumps(message.headers)) == headers


def test_the_properties_of_the_caller_are_not_touched() -> None:
    mine = {"correlation_id": "1"}
    content = to_content("x", 3, "text/plain", "utf-8", None, mine)
    assert mine == {"correlation_id": "1"}
    assert content.properties == {
        "correlation_id": "1",
        "content_type": "text/plain",
        "content_encoding": "utf-8",
        "priority": 3,
    }
    assert content.headers == {}


@pytest.mark.parametrize(("given", "sent"), [(None, 0), (0, 0), (9, 9), (10, 9), (255, 9), (-1, 0)])
def test_priority_in_the_envelope(given: int | None, sent: int) -> None:
    assert encode_message(to_content("x", given, None, None, None, None))[0] == sent


def test_expiration_is_a_time_to_live() -> None:
    content = to_content("x", 0, None, None, None, {"expiration": "1500"})
    _, options, payload = encode_message(content)
    assert options == {"ttl_ms": 1500}
    assert decode_content(payload).properties["expiration"] == "1500"
    assert encode_message("x")[1] is None


@pytest.mark.parametrize("wrong", ["soon", "-1", "", [1]])
def test_an_expiration_that_is_none(wrong: Any) -> None:
    content = to_content("x", 0, None, None, None, {"expiration": wrong})
    with pytest.raises(PreconditionFailed, match="expiration"):
        encode_message(content)


def test_reply_to_may_be_a_queue_that_gets_its_name_late() -> None:
    queue = KombuQueue("", Exchange(""))
    content = to_content("x", 0, None, None, None, {"reply_to": queue})
    queue.name = "amq.gen-1"
    assert delivered(encode_message(content)[2]).properties["reply_to"] == "amq.gen-1"


def test_a_property_that_amqp_does_not_know_is_left_out_when_it_cannot_be_sent() -> None:
    message = through("x", signal=object(), mine="lost too", correlation_id="c")
    assert message.properties == {
        "content_encoding": "utf-8",
        "priority": 0,
        "correlation_id": "c",
    }
    assert through("x", mine="kept").properties["mine"] == "kept"


def test_what_is_no_plain_data_is_the_callers_mistake() -> None:
    with pytest.raises(TypeError):
        through("x", {"header": object()})
    with pytest.raises(TypeError):
        through("x", correlation_id=object())


def test_a_payload_that_nobody_published_through_kombu() -> None:
    message = delivered(b"\xc1 raw")
    assert (message.body, message.headers) == (b"\xc1 raw", {})
    assert message.content_type == "application/octet-stream"
    assert message.decode() == b"\xc1 raw"


class Ledger:
    """A channel that writes down what it is told to settle."""

    no_ack_consumers = frozenset({"silent"})

    def __init__(self) -> None:
        self.said: list[tuple[Any, ...]] = []

    def basic_ack(self, tag: int, multiple: bool = False) -> None:
        self.said.append(("ack", tag))

    def basic_reject(self, tag: int, requeue: bool = False) -> None:
        self.said.append(("requeue" if requeue else "reject", tag))


def test_a_message_is_settled_once() -> None:
    channel = Ledger()
    message = delivered(b"x", channel, {"consumer_tag": "c"})
    message.ack()
    for again in (message.ack, message.reject, message.requeue):
        with pytest.raises(message.MessageStateError):
            again()
    assert channel.said == [("ack", 1)]


def test_a_message_that_needs_no_ack_is_not_acked() -> None:
    channel = Ledger()
    delivered(b"x", channel, {"consumer_tag": "silent"}).ack()
    assert channel.said == []
