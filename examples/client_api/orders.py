"""The client of RaftMQ itself, without Kombu: publish, consume, look at the queues.

    python examples/client_api/orders.py

`publish` returns when a majority of the nodes has the message on disk, or raises an error that
says whether it may have been done. Deliveries are held by the session, not by the link: when a
node dies the client goes on at another, and what it holds is neither lost nor sent again.
"""

from __future__ import annotations

import os

from broker.client import Client, Delivery
from broker.errors import NoRoute

URL = os.environ.get("RAFTMQ_URL", "raftmq://127.0.0.1:7650,127.0.0.1:7651,127.0.0.1:7652//")
QUEUE = "client-api-orders"
COUNT = 100


def main() -> None:
    with Client(URL, name="example") as client:
        client.declare_queue(QUEUE)
        for number in range(COUNT):
            # Many on their way at once; `flush` waits for the confirms of them all.
            client.publish_nowait(b"order %d" % number, routing_key=QUEUE)
        client.flush()
        print(f"{COUNT} orders are on disk at a majority of the nodes")

        try:
            client.publish(b"lost?", routing_key="no-such-queue", mandatory=True)
        except NoRoute as error:
            print(f"refused: {error}")

        channel = client.channel()
        channel.set_prefetch(10)  # hold ten at a time
        channel.consume(QUEUE)
        for _ in range(COUNT):
            event = client.next_event(timeout=5.0)
            assert isinstance(event, Delivery), "the queue went away, or nothing came"
            event.ack()
        channel.close()

        (queue,) = (q for q in client.inspect("queues") if q["name"] == QUEUE)
        print(f"handled them all; {queue['ready'] + queue['checked_out']} are left")
        client.delete_queue(QUEUE)


if __name__ == "__main__":
    main()
