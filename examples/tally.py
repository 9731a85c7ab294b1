"""A Celery application that writes down every run of its task, so that runs can be counted.

    celery --app examples.tally worker           # in one terminal
    python -m examples.tally send 1000           # in another: returns when all are confirmed
    python -m examples.tally count 1000          # waits; says what was lost or ran twice

RAFTMQ_URL is the broker's URL, TALLY_FILE the file to which each run appends a line. All
worker processes and `count` must see the same file.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from pathlib import Path

from celery import Celery

FILE = Path(os.environ.get("TALLY_FILE", "/tmp/raftmq-tally"))
POLL_S = 0.2

app = Celery("tally", broker=os.environ.get("RAFTMQ_URL", "raftmq://127.0.0.1:7650//"))
app.conf.update(
    task_acks_late=True,
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="tally.mark")
def mark(number: int) -> None:
    """Append the number in one write, which no other process can tear apart."""
    file = os.open(FILE, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(file, b"%d\n" % number)
    finally:
        os.close(file)


def send(count: int, *, pause_s: float) -> None:
    """Send tasks 0 to count-1; each call returns when the message is safe on a majority."""
    for number in range(count):
        mark.delay(number)
        if pause_s:
            time.sleep(pause_s)
        if (number + 1) % 500 == 0:
            print(f"sent {number + 1}", flush=True)
    print(f"sent all {count}", flush=True)


def runs() -> Counter[int]:
    """How often each number has run so far."""
    text = FILE.read_text() if FILE.exists() else ""
    return Counter(int(line) for line in text.splitlines())


def count(expected: int, *, timeout_s: float) -> bool:
    """Whether tasks 0 to expected-1 all ran, each once; waits for them up to `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while len(runs()) < expected and time.monotonic() < deadline:
        time.sleep(POLL_S)
    # A task that runs twice may do so a moment after the last one has run.
    time.sleep(2.0)
    seen = runs()
    lost = [number for number in range(expected) if number not in seen]
    repeated = {number: times for number, times in seen.items() if times > 1}
    print(f"ran {sum(seen.values())} times: {len(lost)} lost, {len(repeated)} more than once")
    if lost:
        print("lost:", *lost[:20])
    if repeated:
        print("repeated:", *(f"{number} ({times} times)" for number, times in repeated.items()))
    return not lost and not repeated


def main() -> int:
    """Exit code 0 when everything was as it should be."""
    parser = argparse.ArgumentParser(description="Send tasks, and count how often they ran.")
    commands = parser.add_subparsers(dest="command", required=True)
    sending = commands.add_parser("send")
    sending.add_argument("tasks", type=int)
    sending.add_argument("--pause-ms", type=float, default=0.0)
    counting = commands.add_parser("count")
    counting.add_argument("tasks", type=int)
    counting.add_argument("--timeout-s", type=float, default=60.0)
    given = parser.parse_args()
    if given.command == "send":
        send(given.tasks, pause_s=given.pause_ms / 1e3)
        return 0
    return 0 if count(given.tasks, timeout_s=given.timeout_s) else 1


if __name__ == "__main__":
    sys.exit(main())
