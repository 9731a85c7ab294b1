"""How threads wait for one another: natively, or cooperatively under gevent.

The I/O thread of a client is always a real thread. Who waits for it may be one, too, or a
greenlet that must not hold up its siblings. Which it is shows when a client is made: gevent
counts when it has patched `threading`.

    Waiter       wakes whoever waits in a call        Wake   wakes a poll: an eventfd or a pipe
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, Protocol


class Waiter(Protocol):
    """Made and waited for by one caller, set by another thread. Stays set."""

    def set(self) -> None: ...

    def wait(self, timeout: float | None) -> bool:
        """False when `timeout` seconds went by first."""


class ThreadWaiter:
    """A lock that is born taken: a third of the cost of a `threading.Event`."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        self._lock.release()

    def wait(self, timeout: float | None) -> bool:
        if timeout is None:
            return self._lock.acquire()
        return self._lock.acquire(timeout=max(0.0, min(timeout, threading.TIMEOUT_MAX)))


class GreenWaiter:
    """An event of this thread's hub, set through the hub's loop from outside."""

    __slots__ = ("_event", "_loop")

    def __init__(self) -> None:
        from gevent import get_hub  # type: ignore[import-untyped]
        from gevent.event import Event  # type: ignore[import-untyped]

        self._event: Any = Event()
        self._loop: Any = get_hub().loop

    def set(self) -> None:
        self._loop.run_callback_threadsafe(self._event.set)

    def wait(self, timeout: float | None) -> bool:
        return bool(self._event.wait(timeout))


class Platform:
    """Waiters and threads that fit this process as it is now."""

    def __init__(self) -> None:
        self.green = _is_patched()
        self.waiter: Callable[[], Waiter] = GreenWaiter if self.green else ThreadWaiter

    def start(self, run: Callable[[], None], name: str) -> None:
        """Run in a real thread that does not keep the process alive."""
        if self.green:
            from gevent.monkey import get_original  # type: ignore[import-untyped]

            get_original("_thread", "start_new_thread")(run, ())
        else:
            threading.Thread(target=run, name=name, daemon=True).start()


def _is_patched() -> bool:
    monkey = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


class Wake:
    """A file descriptor that is readable from `set` until `clear`, whoever does either.

    Closed when nobody knows it any more: a caller may be about to set it until then.
    """

    __slots__ = ("_out", "fd")

    def __init__(self) -> None:
        if hasattr(os, "eventfd"):
            self.fd = self._out = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        else:
            self.fd, self._out = os.pipe()
            os.set_blocking(self.fd, False)
            os.set_blocking(self._out, False)

    def set(self) -> None:
        try:
            os.write(self._out, b"\x01\0\0\0\0\0\0\0" if sys.byteorder == "little" else _BIG)
        except BlockingIOError:
            pass  # it is full of wake-ups: readable

    def clear(self) -> None:
        try:
            while len(os.read(self.fd, 4096)) == 4096:
                pass
        except BlockingIOError:
            pass

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.fd)
        if self._out != self.fd:
            close(self._out)


_BIG = b"\0\0\0\0\0\0\0\x01"
