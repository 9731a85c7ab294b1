"""The Celery application of `raftmq demo`: one task, which writes down that it ran.

Configured by the environment, for the worker is a process of its own:
RAFTMQ_DEMO_URL is the broker's URL, RAFTMQ_DEMO_FILE gets a line for each execution.
"""

from __future__ import annotations

import os

from celery import Celery

import kombu_transport  # noqa: F401  the import makes raftmq:// known to Kombu

app = Celery("raftmq_demo", broker=os.environ.get("RAFTMQ_DEMO_URL", "raftmq://127.0.0.1:7650//"))
app.conf.update(
    task_ignore_result=True,
    task_acks_late=True,
    broker_connection_retry_on_startup=True,
)


@app.task(name="raftmq_demo.record")  # type: ignore[untyped-decorator]
def record(number: int) -> None:
    """Append the number to the file, in one write that no other process can tear."""
    file = os.open(os.environ["RAFTMQ_DEMO_FILE"], os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o644)
    try:
        os.write(file, b"%d\n" % number)
    finally:
        os.close(file)
