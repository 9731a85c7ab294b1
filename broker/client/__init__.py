"""The blocking client of RaftMQ.

from broker.client import Client

with Client("raftmq://127.0.0.1:7650//") as client:
    client.declare_queue("orders")
    client.publish(b"...", routing_key="orders")
    channel = client.channel()
    channel.set_prefetch(10)
    channel.consume("orders")
    while (event := client.next_event(timeout=1.0)) is not None:
        event.ack()
"""

from broker.client.channel import Channel
from broker.client.client import Client, QueueInfo
from broker.client.consumer import Consumer, ConsumerCancelled, Delivery, Event
from broker.client.pipeline import Pending, Pipeline
from broker.client.url import Address, parse_url
from broker.machines.commands import Outcome
from broker.protocol import Content

__all__ = [
    "Address",
    "Channel",
    "Client",
    "Consumer",
    "ConsumerCancelled",
    "Content",
    "Delivery",
    "Event",
    "Outcome",
    "Pending",
    "Pipeline",
    "QueueInfo",
    "parse_url",
]
