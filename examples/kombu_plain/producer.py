"""Publishes with Kombu: a topic exchange, a durable queue, JSON bodies.

python examples/kombu_plain/producer.py 10
"""

from __future__ import annotations

import os
import sys

from kombu import Connection, Exchange, Queue

import kombu_transport  # noqa: F401  makes raftmq:// known to a program that uses Kombu alone

URL = os.environ.get("RAFTMQ_URL", "raftmq://127.0.0.1:7650,127.0.0.1:7651,127.0.0.1:7652//")
ORDERS = Queue("orders", Exchange("shop", type="topic", durable=True), routing_key="order.#")


def main(count: int) -> None:
    with Connection(URL) as connection, connection.Producer(serializer="json") as producer:
        for number in range(count):
            # Returns when a majority of the nodes has the message on disk, or raises.
            producer.publish(
                {"order": number},
                exchange=ORDERS.exchange,
                routing_key="order.new",
                declare=[ORDERS],
            )
    print(f"published {count} orders")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10)
