"""A Celery worker process under test.

with Worker(cluster.url, tmp_path, pool="prefork") as worker:
    worker.wait_ready()
    ...
    worker.kill()
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.celery_app import CONFIGURATION, URL, app
from tests.cluster import ROOT, ClusterError, die_with_parent, eventually, python_environment

LOG_LINES_SHOWN = 80


class Worker:
    """`celery worker` on the tasks of `tests.celery_app`, or on another application."""

    def __init__(
        self,
        url: str,
        directory: Path,
        *,
        name: str = "w1",
        pool: str = "prefork",
        concurrency: int = 1,
        queue: str = "celery",
        application: str = "tests.celery_app",
        configuration: dict[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        environment: dict[str, str] | None = None,
    ) -> None:
        """configuration: Celery settings (plain values); arguments: more of the command line."""
        self.name = name
        self.log_path = directory / f"worker-{name}.log"
        self._environment = python_environment(
            **{URL: url, CONFIGURATION: json.dumps(configuration or {})}, **(environment or {})
        )
        self._command = [
            *(sys.executable, "-m", "celery", "-A", application, "worker"),
            *("--hostname", f"{name}@test", "--pool", pool, "--concurrency", str(concurrency)),
            *("--queues", queue, "--loglevel", "INFO", *arguments),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.end()

    def start(self) -> None:
        """Start the process; does not wait."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def wait_ready(self, timeout_s: float = 20.0) -> None:
        """Until the worker says that it is ready."""
        eventually(self._is_ready, timeout_s, f"worker {self.name} to be ready:\n{self.log()}")

    def _is_ready(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            raise ClusterError(f"worker {self.name} ended:\n{self.log()}")
        return f"{self.name}@test ready." in self.log()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def kill(self) -> None:
        """kill -9 of the worker and the processes of its pool."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, timeout_s: float = 15.0) -> int:
        """A warm shutdown (SIGTERM); the exit code."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout_s)

    def end(self) -> None:
        """Whatever it does, it ends; its log is printed for a test that failed."""
        if self.process is None:
            return
        if self.process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.stop(5.0)
        self.kill()
        print(f"--- worker {self.name} ---")
        print("\n".join(self.log().splitlines()[-LOG_LINES_SHOWN:]))


def send(url: str, task: Any, *arguments: object, queue: str = "celery") -> None:
    """Send one task of `tests.celery_app` to this cluster, over a connection of its own."""
    with app.connection_for_write(url) as connection:
        task.apply_async(arguments, queue=queue, connection=connection)


def lines_of(path: Path) -> list[list[str]]:
    """The words of each line that tasks have written so far."""
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
