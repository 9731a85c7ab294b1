"""The workloads, through Kombu's public API alone: JSON bodies of 1 KiB, durable queues.

Each takes a `Target`, has a queue of its own, ends at a number of messages or of seconds,
whichever is first, and gives a `Sample`. A workload with several threads or processes lets
all of them connect before the clock starts.
"""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection as Pipe
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu
from tests.bench.meter import Latencies, Meter, Sample, sample

BODY_BYTES = 1024
PREFETCH = 100
BATCH = 100
DRAIN_S = 0.2
READY_S = 30.0
SETTLE_S = 60.0
"""How long after its last message a workload may take to get all its confirms or messages."""

_queue_numbers = itertools.count(1)
_spawn = multiprocessing.get_context("spawn")


@dataclass(frozen=True, slots=True)
class Target:
    """A broker: where it is, its processes, and how long each workload may take of it."""

    url: str
    pids: list[int]
    seconds: float
    messages: int

    def connect(self, *, confirm: bool = True) -> Connection:
        return Connection(self.url, transport_options={"confirm_publish": confirm})

    @property
    def deadline(self) -> float:
        return time.monotonic() + self.seconds


def body(**fields: Any) -> dict[str, Any]:
    """A body of about `BODY_BYTES` as JSON."""
    return {**fields, "padding": "x" * (BODY_BYTES - 40)}


@contextlib.contextmanager
def new_queue(target: Target) -> Iterator[Queue]:
    """A declared queue with an exchange of the same name, deleted at the end."""
    name = f"bench-{os.getpid()}-{next(_queue_numbers)}"
    queue = Queue(name, Exchange(name, type="direct"), routing_key=name)
    with target.connect() as connection:
        queue(connection.default_channel).declare()
    try:
        yield queue
    finally:
        with target.connect() as connection:
            queue(connection.default_channel).delete()
            queue.exchange(connection.default_channel).delete()


# --- publishing ----------------------------------------------------------------------------------


def publish_one_thread(target: Target) -> Sample:
    return _publish_threads(target, "confirmed publish, 1 thread", threads=1)


def publish_eight_threads(target: Target) -> Sample:
    return _publish_threads(target, "confirmed publish, 8 threads", threads=8)


def _publish_threads(target: Target, workload: str, *, threads: int) -> Sample:
    """Each thread with a connection of its own; every call waits for its confirm."""
    latencies: list[list[float]] = [[] for _ in range(threads)]
    failed: list[BaseException] = []
    ready = threading.Barrier(threads + 1)
    done = threading.Barrier(threads + 1)

    def work(mine: list[float]) -> None:
        try:
            with target.connect() as connection:
                producer = Producer(connection.channel(), queue.exchange, queue.name)
                producer.publish(body(n=0))
                ready.wait(READY_S)
                _publish_loop(target, producer, mine, target.messages // threads)
                done.wait(target.seconds + SETTLE_S)
        except BaseException as error:
            failed.append(error)
            ready.abort()
            done.abort()
            raise

    with new_queue(target) as queue:
        workers = [threading.Thread(target=work, args=(mine,), daemon=True) for mine in latencies]
        for worker in workers:
            worker.start()
        try:
            ready.wait(READY_S)
            with Meter(target.pids) as meter:
                done.wait(target.seconds + SETTLE_S)
        except threading.BrokenBarrierError as error:
            raise RuntimeError(f"{workload}: {failed or 'too slow'}") from error
        for worker in workers:
            worker.join(READY_S)
    flat = Latencies(list(itertools.chain(*latencies)))
    return sample(workload, len(flat.seconds), meter, flat)


def _publish_loop(
    target: Target, producer: Producer, latencies: list[float], messages: int
) -> None:
    deadline, now, publish, message = target.deadline, time.monotonic(), producer.publish, body(n=1)
    for _ in range(messages):
        publish(message)
        before, now = now, time.monotonic()
        latencies.append(now - before)
        if now > deadline:
            break


def publish_batches(target: Target) -> Sample:
    """`Producer.batch`: a hundred messages confirmed together."""
    latencies = Latencies()
    with new_queue(target) as queue, target.connect() as connection:
        producer = Producer(connection.channel(), queue.exchange, queue.name)
        producer.publish(body(n=0))
        message, deadline = body(n=1), target.deadline
        with Meter(target.pids) as meter:
            for _ in range(max(1, 4 * target.messages // BATCH)):
                began = time.monotonic()
                with producer.batch(max_size=BATCH):
                    for _ in range(BATCH):
                        producer.publish(message)
                latencies.seconds.append(time.monotonic() - began)
                if time.monotonic() > deadline:
                    break
    return sample("batches of 100", len(latencies.seconds) * BATCH, meter, latencies)


def publish_pipelined(target: Target) -> Sample:
    """Publishing runs ahead of the confirms; the clock stops when all have come."""
    latencies = Latencies()
    with new_queue(target) as queue, target.connect(confirm=False) as connection:
        channel = connection.channel()
        producer = Producer(channel, queue.exchange, queue.name)
        producer.publish(body(n=0))
        flush = getattr(channel, "flush", None)
        if flush is not None:
            flush(timeout=SETTLE_S)
        with Meter(target.pids) as meter:
            _publish_loop(target, producer, latencies.seconds, 8 * target.messages)
            if flush is not None:
                flush(timeout=SETTLE_S)
    return sample("pipelined publish", len(latencies.seconds), meter, latencies)


# --- consuming -----------------------------------------------------------------------------------


def fill(target: Target, queue: Queue, messages: int) -> None:
    """Put that many messages into a queue, confirmed."""
    with target.connect(confirm=False) as connection:
        channel = connection.channel()
        producer, message = Producer(channel, queue.exchange, queue.name), body(n=1)
        for _ in range(messages):
            producer.publish(message)
        flush = getattr(channel, "flush", None)
        if flush is not None:
            flush(timeout=SETTLE_S)


def consume(target: Target) -> Sample:
    """Take out of a filled queue: decode, acknowledge each, a hundred in hand at most."""
    messages = 4 * target.messages
    with new_queue(target) as queue:
        fill(target, queue, messages)
        with target.connect() as connection:
            connection.connect()
            with Meter(target.pids) as meter:
                taken = _consume_loop(
                    connection, queue, lambda n: n >= messages, target.seconds, lambda _: None
                )
    return sample("consume, prefetch 100, ack each", taken, meter, Latencies())


def _consume_loop(
    connection: Connection,
    queue: Queue,
    enough: Callable[[int], bool],
    seconds: float,
    on_body: Callable[[dict[str, Any]], None],
) -> int:
    count = 0

    def on_message(content: dict[str, Any], message: Any) -> None:
        nonlocal count
        count += 1
        on_body(content)
        message.ack()

    channel, deadline = connection.channel(), time.monotonic() + seconds
    consumer = Consumer(
        channel, [queue], callbacks=[on_message], auto_declare=False, prefetch_count=PREFETCH
    )
    consumer.consume()
    while not enough(count) and time.monotonic() < deadline:
        with contextlib.suppress(TimeoutError):
            connection.drain_events(timeout=DRAIN_S)
    # The consumer ends with its connection: what is still on its way then was not timed.
    return count


# --- both at once, two processes -----------------------------------------------------------------


def one_to_one(target: Target) -> Sample:
    """A producer and a consumer, each a process; the rate is what the consumer got."""
    with new_queue(target) as queue:
        pipes, processes = [], []
        for work in (_producing, _consuming):
            ours, theirs = _spawn.Pipe()
            process = _spawn.Process(target=work, args=(theirs, target, queue.name), daemon=True)
            process.start()
            pipes.append(ours)
            processes.append(process)
        try:
            for pipe in pipes:
                _receive(pipe)
            with Meter(target.pids) as meter:
                for pipe in pipes:
                    pipe.send("go")
                (sent, sender_cpu_s), (latencies, receiver_cpu_s) = map(_receive, pipes)
                meter.more_client_cpu_s = sender_cpu_s + receiver_cpu_s
        finally:
            for pipe in pipes:
                pipe.close()
            for process in processes:
                process.join(10)
                if process.is_alive():
                    process.kill()
    assert len(latencies) <= sent, f"{len(latencies)} messages received, {sent} sent"
    seen = sample("1 producer to 1 consumer", len(latencies), meter, Latencies(latencies))
    return replace(seen, sent=sent)


def _receive(pipe: Pipe) -> Any:
    if not pipe.poll(READY_S + SETTLE_S):
        raise TimeoutError("a process of the workload is stuck")
    return pipe.recv()


def _named(name: str) -> Queue:
    return Queue(name, Exchange(name, type="direct"), routing_key=name)


def _producing(pipe: Pipe, target: Target, name: str) -> None:
    queue = _named(name)
    with target.connect(confirm=False) as connection:
        channel = connection.channel()
        producer = Producer(channel, queue.exchange, queue.name)
        pipe.send("ready")
        pipe.recv()
        cpu, deadline, sent = time.process_time(), target.deadline, 0
        while time.monotonic() < deadline and sent < 20 * target.messages:
            producer.publish(body(at=time.monotonic()))
            sent += 1
        pipe.send((sent, time.process_time() - cpu))
        _wait_closed(pipe)


def _consuming(pipe: Pipe, target: Target, name: str) -> None:
    latencies: list[float] = []

    def on_body(content: dict[str, Any]) -> None:
        latencies.append(time.monotonic() - content["at"])

    with target.connect() as connection:
        connection.connect()
        pipe.send("ready")
        pipe.recv()
        cpu = time.process_time()
        _consume_loop(connection, _named(name), lambda n: False, target.seconds, on_body)
        pipe.send((list(latencies), time.process_time() - cpu))
        _wait_closed(pipe)


def _wait_closed(pipe: Pipe) -> None:
    """Until the other side has its figures: a process that ends uses CPU that is not the work's."""
    with contextlib.suppress(EOFError):
        if pipe.poll(SETTLE_S):
            pipe.recv()


WORKLOADS: dict[str, Callable[[Target], Sample]] = {
    "publish1": publish_one_thread,
    "publish8": publish_eight_threads,
    "batch": publish_batches,
    "pipelined": publish_pipelined,
    "consume": consume,
    "both": one_to_one,
}
"""By the names that `--only` takes."""

IN_MEMORY = ("publish1", "consume")
"""The workloads that Kombu's in-memory transport can do: one process, no confirms."""
