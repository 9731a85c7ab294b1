"""A Celery application on RaftMQ.

    celery -A examples.celery_app.tasks worker --loglevel INFO
    python -m examples.celery_app.send

Nothing here but the URL knows of RaftMQ. `acks_late` is advisable with any broker: a task
counts as done when it has run, not when a worker has taken it. With RaftMQ a task that takes
hours is not sent again while its worker lives, for no timeout runs on it.
"""

from __future__ import annotations

import os

from celery import Celery

URL = os.environ.get("RAFTMQ_URL", "raftmq://127.0.0.1:7650,127.0.0.1:7651,127.0.0.1:7652//")

app = Celery("example", broker=URL)
app.conf.update(task_acks_late=True, task_ignore_result=True, worker_prefetch_multiplier=1)


@app.task
def add(x: int, y: int) -> int:
    """The worker's log shows what comes out."""
    return x + y


@app.task(bind=True, max_retries=3)
def fragile(self, fail_times: int) -> str:  # type: ignore[no-untyped-def]
    """Fails as often as it is told, and is tried again."""
    if self.request.retries < fail_times:
        raise self.retry(countdown=0.1)
    return f"done after {self.request.retries} retries"
