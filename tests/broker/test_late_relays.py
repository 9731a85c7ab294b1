"""What was sent to a session's home before the session came back there is late."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from broker import protocol as p
from broker.peer_protocol import Relay, decode_peer_frame, encode_peer_frame
from tests.broker.trio import Trio, hello


def with_relay(trio: Trio, relay: Relay) -> Callable[[str, str, bytes], bytes]:
    """Puts it into the next frame from n2 to n1, once."""
    waiting = [relay]

    def change(source: str, target: str, data: bytes) -> bytes:
        frame = decode_peer_frame(data)
        if (source, target) != ("n2", "n1") or not waiting or not frame.number:
            return data
        return encode_peer_frame(replace(frame, records=[*frame.records, waiting.pop()]))

    return change


def told_of(trio: Trio, session: int, consumer: int, epoch: int) -> bool:
    """Whether the client hears that a consumer is cancelled, relayed in an epoch."""
    trio.told = []
    answer = p.encode_answer(p.Cancelled(consumer))
    trio.on_frame = with_relay(trio, Relay(session, [answer], epoch))
    trio.run(20)
    return p.Cancelled(consumer) in trio.told


def test_a_relay_from_before_the_client_came_back_is_dropped() -> None:
    trio = Trio()
    trio.say(hello())
    trio.run_until(lambda: any(isinstance(answer, p.Welcome) for answer in trio.told))
    welcome = next(answer for answer in trio.told if isinstance(answer, p.Welcome))
    assert told_of(trio, welcome.session, 1, welcome.epoch)

    trio.say(replace(hello(), session=welcome.session))
    trio.run_until(lambda: any(isinstance(answer, p.Welcome) for answer in trio.told))
    again = next(answer for answer in trio.told if isinstance(answer, p.Welcome))
    assert again.epoch > welcome.epoch
    assert not told_of(trio, welcome.session, 2, welcome.epoch)
    assert told_of(trio, welcome.session, 3, again.epoch)
    assert told_of(trio, welcome.session, 4, 0)  # a node that does not say
