"""The Celery application of the tests: tasks that write down what happened to them.

Each task appends one line to a file in one write, so that lines of several processes do not
tear and every execution, also a second one of the same task, leaves its own line.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from celery import Celery

import kombu_transport  # noqa: F401  makes raftmq:// known to Kombu

URL = "RAFTMQ_TEST_URL"
CONFIGURATION = "RAFTMQ_TEST_CELERY"

app = Celery("tests", broker=os.environ.get(URL))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)
app.conf.update(json.loads(os.environ.get(CONFIGURATION, "{}")))


def append(path: str, *words: object) -> None:
    """One line, in one write."""
    file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(file, (" ".join(map(str, words)) + "\n").encode())
    finally:
        os.close(file)


@app.task  # type: ignore[untyped-decorator]
def record(path: str, number: int) -> None:
    """A line: number, worker's name."""
    append(path, number, record.request.hostname)


@app.task  # type: ignore[untyped-decorator]
def record_size(path: str, body: str) -> None:
    """A line: the length of the body."""
    append(path, len(body))


@app.task  # type: ignore[untyped-decorator]
def hang_once(path: str, number: int) -> None:
    """The first delivery never ends by itself; a redelivery ends at once. A line each."""
    redelivered = bool(delivery_info(hang_once).get("redelivered"))
    append(path, number, "again" if redelivered else "first")
    if not redelivered:
        time.sleep(600)


def delivery_info(task: Any) -> dict[str, Any]:
    """What Celery knows of how the running task came."""
    info: dict[str, Any] | None = task.request.delivery_info
    return info or {}
