"""`raftmq demo`: kill the leader under a Celery application, and count what was lost.

    three nodes, a worker with two processes
      send a third of the tasks -> kill -9 the leader of the queue's shard
      send the second third     -> start it again
      send the rest             -> all executed? each once? the node level with the others?

Each execution appends a line to a file, so that what the table says at the end was counted,
not reported by those it is about.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from broker.cli.http_view import first_status
from broker.cli.local_cluster import LocalCluster, LocalNode, die_with_parent, free_ports
from broker.cli.tables import table

QUEUE = "celery"
NODES = 3
READY_S = 20.0
FIRST_TASK_S = 20.0
EXECUTED_S = 30.0
LEVEL_S = 20.0
WORKER_STOP_S = 15.0
POLL_S = 0.05
LOG_LINES_SHOWN = 40
_T = TypeVar("_T")


class DemoFailed(Exception):
    """Something the demo waited for did not happen; the message says what."""


@click.command("demo")
@click.option("--tasks", type=click.IntRange(10, 100_000), default=2000, show_default=True)
def demo(tasks: int) -> None:
    """Kill the leader under a running Celery worker and count lost and repeated tasks."""
    with tempfile.TemporaryDirectory(prefix="raftmq-demo-") as folder:
        show = _Demo(Path(folder), tasks)
        try:
            good = show.run()
        except DemoFailed as error:
            show.explain()
            click.echo(f"raftmq: the demo failed: {error}", err=True)
            good = False
        finally:
            show.end()
    sys.exit(0 if good else 1)


@dataclass(slots=True)
class Pauses:
    """When publishes were confirmed: how many, and the longest time without one."""

    count: int = 0
    longest_s: float = 0.0
    _last: float | None = field(default=None, repr=False)

    def begin(self, now_s: float) -> None:
        """From here on publishes follow one another: what was before is no pause."""
        self._last = now_s

    def confirmed(self, now_s: float) -> None:
        if self._last is not None:
            self.longest_s = max(self.longest_s, now_s - self._last)
        self._last = now_s
        self.count += 1


class _Demo:
    def __init__(self, folder: Path, tasks: int) -> None:
        self.folder = folder
        self.tasks = tasks
        self.file = folder / "executed"
        self.worker_log = folder / "worker.log"
        self.node_lines: list[str] = []
        self.cluster = LocalCluster(
            folder, NODES, port=free_ports(NODES), cluster_name="demo", on_line=self._on_line
        )
        self.worker: subprocess.Popen[bytes] | None = None
        self.pauses = Pauses()
        self.began = time.monotonic()

    def run(self) -> bool:
        """Whether nothing was lost, nothing ran twice and the killed node came back."""
        self.say(f"starting {NODES} nodes, data in {self.folder}")
        self.cluster.start()
        wait_for(lambda: self.cluster.ready, READY_S, "the nodes to be ready")
        self.say(f"the cluster serves at {self.cluster.url}")
        send = self._publisher()
        self._start_worker()
        send(0)
        wait_for(lambda: self.executed(), FIRST_TASK_S, "the worker to run the first task")
        self.say("the worker runs tasks (prefork, 2 processes)")

        third = self.tasks // 3
        self.pauses.begin(time.monotonic())
        for number in range(1, third):
            send(number)
        killed = self._kill_leader()
        for number in range(third, 2 * third):
            send(number)
        self.say(f"starting {killed.id} again on its data")
        self.cluster.start_node(killed)
        for number in range(2 * third, self.tasks):
            send(number)
        self.say(f"all {self.tasks} publishes are confirmed")
        self._wait_executed()
        rejoined = self._wait_level(killed)
        return self._report(rejoined=rejoined, killed=killed)

    # --- steps ----------------------------------------------------------------------------

    def _publisher(self) -> Callable[[int], None]:
        os.environ["RAFTMQ_DEMO_URL"] = self.cluster.url
        os.environ["RAFTMQ_DEMO_FILE"] = str(self.file)
        # Only now: the module reads the environment, and Celery takes a second to import.
        app_module: Any = importlib.import_module("broker.cli.demo_app")
        step = max(1, self.tasks // 8)

        def send(number: int) -> None:
            app_module.record.delay(number)
            self.pauses.confirmed(time.monotonic())
            if number and number % step == 0:
                self.say(f"confirmed {number:>5}   executed {sum(self.executed().values()):>5}")

        return send

    def _start_worker(self) -> None:
        command = [sys.executable, "-m", "celery", "-A", "broker.cli.demo_app", "worker"]
        options = ["--pool", "prefork", "--concurrency", "2", "--loglevel", "INFO"]
        with self.worker_log.open("wb") as log:
            self.worker = subprocess.Popen(
                [*command, *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )

    def _kill_leader(self) -> LocalNode:
        shard = self._shard_of_queue()
        leader = wait_for(lambda: self.cluster.leader_of(shard), READY_S, "a leader")
        assert leader is not None
        self.cluster.kill(leader)
        self.say(f"kill -9 {leader.id}, the leader of shard {shard} with queue {QUEUE!r}")
        return leader

    def _shard_of_queue(self) -> int:
        status = first_status(node.http_url for node in self.cluster.running)
        for queue in status.queues if status else ():
            if queue.name == QUEUE:
                return queue.shard
        raise DemoFailed(f"no node knows of the queue {QUEUE!r}")

    def _wait_executed(self) -> None:
        def all_there() -> bool:
            return len(self.executed()) >= self.tasks

        try:
            wait_for(all_there, EXECUTED_S, "all tasks to be executed")
        except DemoFailed:
            self.explain()  # the table will say how many are missing

    def _wait_level(self, killed: LocalNode) -> bool:
        self.say(f"waiting until {killed.id} has applied what the others have")

        def level() -> bool:
            applied = self.cluster.applied()
            return len(applied) == NODES and all(
                view == applied[killed.id] for view in applied.values()
            )

        try:
            return wait_for(level, LEVEL_S, "the killed node to catch up")
        except DemoFailed:
            return False

    def _report(self, *, rejoined: bool, killed: LocalNode) -> bool:
        executed = self.executed()
        lost = sum(number not in executed for number in range(self.tasks))
        twice = sum(times > 1 for times in executed.values())
        rows: list[tuple[str, str | int]] = [
            ("sent and confirmed", self.pauses.count),
            ("executed", len(executed)),
            ("lost", lost),
            ("executed twice", twice),
            ("longest pause of confirmed publishes, ms", round(self.pauses.longest_s * 1000)),
            (f"{killed.id} rejoined and caught up", "yes" if rejoined else "NO"),
        ]
        click.echo()
        click.echo(table(("RESULT", ""), [(name, str(value)) for name, value in rows]))
        return lost == 0 and twice == 0 and rejoined

    # --- around ---------------------------------------------------------------------------

    def executed(self) -> Counter[int]:
        """How often each task has written its line."""
        if not self.file.exists():
            return Counter()
        return Counter(int(line) for line in self.file.read_bytes().splitlines())

    def say(self, text: str) -> None:
        click.echo(f"{time.monotonic() - self.began:6.1f} s  {text}")

    def explain(self) -> None:
        """Show the ends of the logs."""
        worker = self.worker_log.read_text(errors="replace") if self.worker_log.exists() else ""
        for line in [*self.node_lines[-LOG_LINES_SHOWN:], "--- worker ---"]:
            click.echo(line, err=True)
        click.echo("\n".join(worker.splitlines()[-LOG_LINES_SHOWN:]), err=True)

    def end(self) -> None:
        """End the worker, then the nodes."""
        if self.worker is not None and self.worker.poll() is None:
            self.worker.send_signal(signal.SIGTERM)
            try:
                self.worker.wait(WORKER_STOP_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.worker.pid, signal.SIGKILL)
                self.worker.wait()
        self.cluster.stop()

    def _on_line(self, node: str, line: str) -> None:
        self.node_lines.append(f"{node} | {line}")
        del self.node_lines[:-1000]


def wait_for(condition: Callable[[], _T], timeout_s: float, what: str) -> _T:
    """The first truthy value of `condition`; `DemoFailed` after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited {timeout_s:g} s for {what}")
        time.sleep(POLL_S)
    return value
