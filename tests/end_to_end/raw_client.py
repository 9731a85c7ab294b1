"""The protocol spoken by hand over one ZeroMQ socket: one operation, one answer.

Nothing of the product's client is in it: what this sees is what the node says.
"""

from __future__ import annotations

import secrets
import time
from types import TracebackType

import zmq

from broker import protocol

WAIT_MS = 5000


def hello(**changes: object) -> protocol.Hello:
    """The opening of a session that hardly outlives its link."""
    fields: dict[str, object] = {
        "version": protocol.VERSION,
        "session": 0,
        "token": secrets.token_bytes(16),
        "vhost": "/",
        "user": "guest",
        "credentials": {},
        "grace_ms": 1,
        "client": {},
    }
    return protocol.Hello(**{**fields, **changes})  # type: ignore[arg-type]


class RawClient:
    """A DEALER to one port of a node; `greet` opens a session."""

    def __init__(self, port: int, *, unread_frames_max: int = 1000) -> None:
        """unread_frames_max: then its socket takes no more from the link."""
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = WAIT_MS
        self._socket.rcvhwm = unread_frames_max
        self._socket.sndtimeo = WAIT_MS
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self.seq = 0

    def __enter__(self) -> RawClient:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._context.destroy(linger=WAIT_MS)

    def send(self, *parts: bytes) -> None:
        """One ZeroMQ message."""
        self._socket.send_multipart(parts)

    def say(self, *operations: protocol.AnyOperation, floor: int = 0) -> None:
        """One frame; waits for nothing."""
        self.send(protocol.encode_operations(floor, list(operations)))

    def answers(self, timeout_ms: int = WAIT_MS) -> list[protocol.AnyAnswer]:
        """The next frame; none when nothing comes in time."""
        if not self._socket.poll(timeout_ms):
            return []
        return protocol.decode_answers(self._socket.recv())

    def greet(self, **changes: object) -> protocol.Welcome:
        """Open a session."""
        self.say(hello(**changes))
        deadline = time.monotonic() + WAIT_MS / 1000
        while time.monotonic() < deadline:
            for answer in self.answers():
                if isinstance(answer, protocol.Welcome):
                    return answer
                assert not isinstance(answer, protocol.Denied), answer
        raise AssertionError("no Welcome")

    def ask(self, operation: protocol.AnyOperation) -> protocol.AnyAnswer:
        """Send one operation and wait for the answer to its seq."""
        self.say(operation)
        seq = getattr(operation, "seq", None)
        deadline = time.monotonic() + WAIT_MS / 1000
        while time.monotonic() < deadline:
            for answer in self.answers():
                if isinstance(answer, protocol.Confirmed) and seq in answer.seqs:
                    return answer
                if getattr(answer, "seq", None) == seq:
                    return answer
        raise AssertionError(f"no answer to {operation}")

    def next_seq(self) -> int:
        self.seq += 1
        return self.seq


def round_trip(port: int, queue: str, payload: bytes) -> bytes:
    """Declare a queue, publish, get and acknowledge; the payload that came back."""
    with RawClient(port) as client:
        client.greet()
        client.ask(protocol.DeclareQueue(client.next_seq(), queue))
        done = client.ask(protocol.Publish(client.next_seq(), "", queue, True, 0, None, payload))
        assert isinstance(done, protocol.Confirmed), done
        got = client.ask(protocol.Get(client.next_seq(), queue))
        assert isinstance(got, protocol.Fetched), got
        acked = client.ask(
            protocol.SettleMessages(client.next_seq(), got.shard, got.queue, 0, (got.id,))
        )
        assert isinstance(acked, protocol.Confirmed), acked
        client.say(protocol.Goodbye())
        return got.payload
