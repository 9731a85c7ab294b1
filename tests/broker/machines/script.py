"""Golden scripts for a data shard's machine: entries in, effects out, as text.

    # why
    publish 8.1 q1          one line per command; the lines of a block are one entry
    publish 8.2 q1          S.N: session and seq; q1: queue 1; M: message as index.offset
    ----
    confirm 8.1             the effects, in order
    ...

Blocks are parted by blank lines. `REWRITE=1 pytest tests/broker/machines` writes what comes
out into the files; read the difference as carefully as code.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from broker.batch import command_id, index_of, offset_of
from broker.machines import commands as c
from broker.machines import effects as e
from broker.machines.limits import Limits
from broker.machines.machine import Machine

_FLAGS = {"durable": c.QueueFlag.DURABLE, "auto_delete": c.QueueFlag.AUTO_DELETE}


def run(path: Path, *, rewrite: bool) -> tuple[str, str]:
    """(the script as it stands, the script as it should stand)."""
    text = path.read_text()
    runner = Runner()
    blocks = [runner.block(block) for block in text.strip().split("\n\n")]
    result = "\n\n".join(blocks) + "\n"
    if rewrite:
        path.write_text(result)
        return result, result
    return text, result


class Runner:
    def __init__(self) -> None:
        limits = Limits(ready_per_queue_max=5, consumers_per_session_max=3)
        self._make: Callable[[], Machine] = lambda: Machine(
            shard=1, shards=2, limits=limits, place=lambda vhost, name: 1
        )
        self._machine = self._make()
        self._index = 0

    def block(self, text: str) -> str:
        lines = text.split("\n")
        if "----" in lines:
            lines = lines[: lines.index("----")]
        asked = [line for line in lines if line and not line.startswith("#")]
        if not asked:
            return text
        return "\n".join([*lines, "----", *(self._entry(asked) or ["(nothing)"])])

    def _entry(self, lines: list[str]) -> list[str]:
        if lines[0].startswith("show "):
            return self._show(int(lines[0].split()[1][1:]))
        if lines == ["restart"]:
            snapshot = self._machine.snapshot()
            self._machine = self._make()
            self._machine.restore(snapshot)
            return [f"at {self._machine.applied}"]
        self._index += 1
        effects = self._machine.apply(self._index, 0, [parse(line) for line in lines])
        self._machine.check()
        return [show(effect) for effect in effects]

    def _show(self, queue: int) -> list[str]:
        ready, checked_out, consumers = self._machine.counts(queue)
        ids = sorted(self._machine.messages(queue))
        messages = " ".join(map(message, ids)) or "none"
        return [f"ready={ready} out={checked_out} consumers={consumers} messages: {messages}"]


def parse(line: str) -> c.AnyCommand:
    verb, *words = line.split()
    named = dict(word.split("=") for word in words if "=" in word)
    plain = [word for word in words if "=" not in word]
    if verb == "create":
        flags = sum(_FLAGS[word] for word in plain[1:])
        return c.QueueCreate(_queue(plain[0]), flags, None)
    if verb == "down":
        return c.SessionDown(int(plain[0]))
    session, seq = map(int, plain.pop(0).split("."))
    head = (session, seq, int(named.get("floor", 0)))
    match verb:
        case "publish":
            priority = int(named.get("priority", 0))
            return c.Enqueue(*head, tuple(map(_queue, plain)), "", "", priority, None, b"")
        case "subscribe":
            consumer, queue = int(plain[0]), _queue(plain[1])
            return c.Subscribe(*head, consumer, queue, int(named["window"]), "exclusive" in plain)
        case "unsubscribe":
            return c.Unsubscribe(*head, int(plain[0]))
        case "credit":
            return c.Credit(*head, int(plain[0]), int(named["window"]))
        case "ack" | "requeue" | "drop" | "release":
            outcome = c.Outcome[verb.upper()]
            return c.Settle(*head, _queue(plain[0]), outcome, tuple(map(_id, plain[1:])))
        case "settle":
            ids = tuple(map(_id, plain[1:]))
            return c.Settle(*head, _queue(plain[0]), int(named["outcome"]), ids)
        case "attach":
            held = [word.split(":") for word in plain]
            return c.Attach(*head, tuple((_queue(queue), _id(id)) for queue, id in held))
        case "fetch":
            return c.Fetch(*head, _queue(plain[0]))
        case "purge":
            return c.Purge(*head, _queue(plain[0]))
        case "delete":
            return c.QueueDrop(*head, _queue(plain[0]), "if_unused" in plain, "if_empty" in plain)
        case "count":
            return c.Count(*head, _queue(plain[0]))
    raise ValueError(f"no such command: {line}")


def show(effect: e.Effect) -> str:
    match effect:
        case e.Deliver():
            return (
                f"deliver {message(effect.id)} of q{effect.queue} to {effect.session}"
                f" consumer {effect.consumer}, time {effect.count}"
            )
        case e.Fetched():
            return (
                f"fetched {effect.session}.{effect.seq}: {message(effect.id)} of q{effect.queue},"
                f" time {effect.count}, {effect.ready} ready"
            )
        case e.Confirm():
            return f"confirm {effect.session}.{effect.seq}"
        case e.Reply():
            return f"reply {effect.session}.{effect.seq}: {effect.value}"
        case e.Refuse():
            return f"refuse {effect.session}.{effect.seq}: {int(effect.code)} {effect.text}"
        case e.Misrouted():
            return f"misrouted {effect.session}.{effect.seq}"
        case e.Cancelled():
            return f"cancelled {effect.session} consumer {effect.consumer}"
        case e.Unused():
            return f"unused q{effect.queue}"
    return repr(effect)


def message(id: int) -> str:
    return f"{index_of(id)}.{offset_of(id)}"


def _id(word: str) -> int:
    index, offset = map(int, word.split("."))
    return command_id(index, offset)


def _queue(word: str) -> int:
    return int(word.removeprefix("q"))
