"""The outcome of one operation: not known yet, a value, or a typed error.

    Call()  --resolve(value)-->  done, value
            --fail(error)----->  done, error          (the first of the two counts)

One thread settles calls, any thread may look. There is no lock: `done` is written after the
result and before the waiters are woken, and whoever waits adds itself before it looks at
`done`; so either it sees the result or it is woken.
"""

from __future__ import annotations

from typing import Any, Protocol

from broker.errors import RaftMQError


class Notice(Protocol):
    """Whatever wants to hear that a call is done; called once, in the thread that settled it."""

    def set(self) -> None: ...


class Group:
    """The publishes of one pipeline: how many are under way, and the first that went wrong.

    Written by the thread that drives the session alone; read by all.
    """

    __slots__ = ("bytes_under_way", "error", "under_way", "waiters")

    def __init__(self) -> None:
        self.under_way = 0
        self.bytes_under_way = 0
        self.error: RaftMQError | None = None
        self.waiters: list[Notice] = []


class Call:
    """One operation that has been asked for."""

    __slots__ = ("done", "error", "group", "value", "waiters")

    def __init__(self, group: Group | None = None) -> None:
        self.done = False
        self.error: RaftMQError | None = None
        self.group = group
        self.value: Any = None
        self.waiters: list[Notice] = []

    def is_done(self) -> bool:
        """`done`, read anew: another thread sets it."""
        return self.done

    def resolve(self, value: Any = None) -> None:
        if self.done:
            return
        self.value = value
        self.done = True
        while self.waiters:
            self.waiters.pop().set()

    def fail(self, error: RaftMQError) -> None:
        if self.done:
            return
        self.error = error
        group = self.group
        if group is not None and group.error is None:
            group.error = error
        self.done = True
        while self.waiters:
            self.waiters.pop().set()


class Barrier:
    """Resolves a call once a number of other calls are done."""

    __slots__ = ("_call", "_left")

    def __init__(self, call: Call, calls: list[Call]) -> None:
        """In the thread that settles calls; `calls` are not done yet."""
        self._call = call
        self._left = len(calls)
        for each in calls:
            each.waiters.append(self)
        if not calls:
            call.resolve()

    def set(self) -> None:
        self._left -= 1
        if not self._left:
            self._call.resolve()
