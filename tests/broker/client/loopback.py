"""A node of one thread on a real socket: queues in memory, nothing durable, one client at a time.

It confirms publishes, keeps them per routing key, and hands them to the consumers of that queue
one window at a time. Enough to test sockets, threads and processes; never semantics.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

import zmq

from broker.machines.commands import Outcome
from broker.protocol import (
    AnyAnswer,
    Beat,
    Cancel,
    Confirmed,
    Consume,
    DeclareQueue,
    Delivery,
    Denied,
    Fetched,
    Get,
    Goodbye,
    Hello,
    Inspect,
    Publish,
    RefusedAnswer,
    Replied,
    SettleMessages,
    Welcome,
    decode_operations,
    encode_answer,
    join_answers,
)


class Loopback:
    """`with Loopback() as node:` serves at `node.url`."""

    def __init__(self, port: int | None = None) -> None:
        self.sessions = 0
        self.resumed = 0
        self.goodbyes = 0
        self.published: list[bytes] = []
        self.settled: list[int] = []
        self.mute = False  #: read everything, answer nothing
        self.expire = False  #: deny every resume
        self.refuse: dict[str, int] = {}  #: routing key: refusal code
        self._context = zmq.Context()
        self._socket: Any = self._context.socket(zmq.ROUTER)
        self._socket.linger = 0
        if port is None:
            self.port = self._socket.bind_to_random_port("tcp://127.0.0.1", 15000, 30000)
        else:
            self.port = port
            self._socket.bind(f"tcp://127.0.0.1:{port}")
        self.url = f"raftmq://127.0.0.1:{self.port}//"
        self._queues: dict[str, deque[bytes]] = {}
        self._consumers: list[list[Any]] = []  # queue, id, window, held, identity
        self._held: dict[int, list[Any]] = {}
        self._ids = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Loopback:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(5)
        self._socket.close(0)
        self._context.term()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(20):
                continue
            identity, data = self._socket.recv_multipart()
            if self.mute:
                continue
            answers: list[AnyAnswer] = []
            for op in decode_operations(data).operations:
                self._operate(op, identity, answers)
            self._deliver(answers, identity)
            if answers:
                frame = join_answers(map(encode_answer, answers))
                self._socket.send_multipart([identity, frame])

    def _operate(self, op: Any, identity: bytes, answers: list[AnyAnswer]) -> None:
        match op:
            case Hello():
                if op.session and self.expire:
                    answers.append(Denied(320, "the session is over"))
                    return
                self.sessions += not op.session
                self.resumed += bool(op.session)
                session = op.session or self.sessions
                answers.append(Welcome(session, op.token, 1, "loop", 1, 5000, 1 << 20, []))
                answers.append(Beat(True))
            case Goodbye():
                self.goodbyes += 1
            case Publish() if op.routing_key in self.refuse:
                answers.append(RefusedAnswer(op.seq, self.refuse[op.routing_key], "no"))
            case Publish():
                self.published.append(op.payload)
                self._queues.setdefault(op.routing_key, deque()).append(op.payload)
                answers.append(Confirmed((op.seq,)))
            case Consume():
                self._consumers.append([op.queue, op.consumer, op.window, 0, identity])
                answers.append(Replied(op.seq, (1, 1)))
            case Cancel():
                self._consumers = [each for each in self._consumers if each[1] != op.consumer]
                answers.append(Confirmed((op.seq,)))
            case SettleMessages():
                for id in op.ids:
                    consumer = self._held.pop(id, None)
                    if consumer is not None:
                        consumer[3] -= 1
                    if op.outcome == Outcome.ACK:
                        self.settled.append(id)
                answers.append(Confirmed((op.seq,)))
            case Get():
                ready = self._queues.get(op.queue)
                if ready:
                    self._ids += 1
                    body = ready.popleft()
                    answers.append(
                        Fetched(op.seq, 1, 1, self._ids, 1, len(ready), "", op.queue, 0, body)
                    )
                else:
                    answers.append(Replied(op.seq, None))
            case DeclareQueue():
                answers.append(Replied(op.seq, (op.name, 0, 0)))
            case Inspect(what="nothing"):
                pass
            case _:
                answers.append(Confirmed((op.seq,)))

    def _deliver(self, answers: list[AnyAnswer], identity: bytes) -> None:
        for consumer in self._consumers:
            queue, id, window, _, owner = consumer
            ready = self._queues.get(queue)
            while owner == identity and ready and consumer[3] < window:
                self._ids += 1
                consumer[3] += 1
                self._held[self._ids] = consumer
                body = ready.popleft()
                answers.append(Delivery(1, 1, id, 1, self._ids, 1, "", queue, 0, body))
