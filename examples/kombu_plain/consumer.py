"""Consumes with Kombu until the queue has been silent for a while.

python examples/kombu_plain/consumer.py
"""

from __future__ import annotations

import os
import socket
from typing import Any

from kombu import Connection, Exchange, Queue

import kombu_transport  # noqa: F401  makes raftmq:// known to a program that uses Kombu alone

URL = os.environ.get("RAFTMQ_URL", "raftmq://127.0.0.1:7650,127.0.0.1:7651,127.0.0.1:7652//")
ORDERS = Queue("orders", Exchange("shop", type="topic", durable=True), routing_key="order.#")
SILENCE_S = 2.0


def handle(body: dict[str, Any], message: Any) -> None:
    again = " (again)" if message.delivery_info.get("redelivered") else ""
    print(f"order {body['order']}{again}")
    message.ack()


def main() -> None:
    with Connection(URL) as connection:
        consumer = connection.Consumer([ORDERS], callbacks=[handle])
        consumer.qos(prefetch_count=10)
        with consumer:
            try:
                while True:
                    connection.drain_events(timeout=SILENCE_S)
            except socket.timeout:  # noqa: UP041  what Kombu's documentation names
                print("no more orders")


if __name__ == "__main__":
    main()
