"""The I/O thread of one session: the only one that touches its sockets and its `SessionCore`.

    callers --commands--> [ obey, dial or receive, finish the turn, send ] --events--> callers
                               ^                    |
                               +----- sleep <-------+      woken by the node or by a caller

Callers and the thread share no lock. A caller appends to a deque and, if the thread sleeps,
wakes it; so a call may come from any thread, a signal handler, or a finalizer in the middle of
another call, and an interrupted caller leaves nothing half done. What piles up while the
thread works goes out together: one frame per turn.

Whatever goes wrong in here fails the client with it, and with it everyone who waits.

After a fork the child has no such thread. What it inherited is kept, so that nothing closes
a socket that belongs to the parent, and every call gets `ClientClosed`.
"""

from __future__ import annotations

import copy
import os
import random
import socket
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

import zmq

from broker.client.calls import Call, Group
from broker.client.consumer import Delivery, Event
from broker.client.dial import Dialer
from broker.client.link import GOODBYE_LINGER_MS, Link
from broker.client.session import SessionCore
from broker.client.url import Address
from broker.client.wait import Platform, Waiter, Wake
from broker.errors import (
    ClientClosed,
    ConnectFailed,
    DeadlineExceeded,
    RaftMQError,
    Unavailable,
)
from broker.machines.commands import Outcome
from broker.protocol import decode_answers, encode_operations
from broker.version import __version__

CONNECT_MS = 500
"""How long a node may take to shake hands before the next is tried."""
WELCOME_MS = 2_000
"""How long it may take to open or resume the session."""
REFUSED_MS = 1_000
"""When every node refuses connections for so long, a first connect gives up."""
SILENCE_MS = 3_500
"""Three beats and a half: a link with nothing on it for so long is lost."""
NOT_SERVING_MS = 2_000
"""A node that says for so long that it cannot serve is left for another."""
SLEEP_MS = 500
FRAMES_PER_TURN = 64
AUTO_ACKS = 256
"""Messages of consumers without acknowledgement that are settled together."""

Command: TypeAlias = "tuple[Callable[..., None], tuple[Any, ...]]"

_ACK = int(Outcome.ACK)
_inherited: list[object] = []  # what belongs to a parent process; never touched, never freed
_engines: weakref.WeakSet[Engine] = weakref.WeakSet()
_context: zmq.Context[zmq.Socket[bytes]] | None = None


class Engine:
    """One session and its thread. Not used again after it failed or was closed."""

    def __init__(
        self,
        address: Address,
        *,
        name: str,
        grace_ms: int,
        connect_ms: int,
        reconnect_ms: int,
    ) -> None:
        about = {
            "hostname": socket.gethostname(),
            "pid": str(os.getpid()),
            "product": "raftmq",
            "version": __version__,
            "name": name,
        }
        credentials = {"password": address.password.encode()} if address.password else {}
        self.core = SessionCore(
            token=os.urandom(16),
            vhost=address.vhost,
            user=address.user,
            credentials=credentials,
            grace_ms=grace_ms,
            about=about,
        )
        self.error: RaftMQError | None = None
        self.commands: deque[Command] = deque()
        self.opened = Call()
        self.ended = Call()
        self.pid = os.getpid()
        self.resumed = 0  #: how often the session moved to a new link
        self.platform = Platform()
        self._reconnect_ms = reconnect_ms
        self._asleep = False
        self._abandoned = False
        self._wake = Wake()
        self._ready: Wake | None = None
        self._signalled = False
        self._event_waiters: deque[Waiter] = deque()
        self._space_waiters: deque[tuple[Group, int, int, Waiter]] = deque()
        self._auto: deque[Delivery] = deque()
        self._closing: tuple[Call, int] | None = None
        self._dialer = Dialer(list(address.nodes))
        self._link: Link | None = None
        self._greeted = False
        self._attempt_ends = 0
        self._dial_at = 0
        self._heard = 0
        self._unfit_since = 0  #: when the node began to say that it cannot serve; 0: it can
        self._last_failure = "no node was tried"
        self._refused_only = True
        now = _now_ms()
        self._first_tried = now
        self._give_up_at = now + connect_ms
        self._idle = zmq.Poller()
        self._idle.register(self._wake.fd, zmq.POLLIN)
        self._zmq = _shared_context()
        _engines.add(self)
        self.platform.start(self._run, "raftmq-client")

    # --- for callers, from any thread -----------------------------------------------------

    def submit(self, act: Callable[..., None], *args: Any) -> None:
        """Have the thread do this. If the first argument is a Call, it ends in any case."""
        self.commands.append((act, args))
        if self._asleep:
            self._asleep = False
            self._wake.set()
        if self.error is not None and args and isinstance(args[0], Call):
            args[0].fail(self.error)

    def nudge(self) -> None:
        """Have the thread look around."""
        if self._asleep:
            self._asleep = False
            self._wake.set()

    def wait(self, call: Call, timeout: float | None) -> Any:
        """The call's value, or its error raised; `DeadlineExceeded` after `timeout` seconds."""
        if not call.done:
            waiter = self.platform.waiter()
            call.waiters.append(waiter)
            if not (call.is_done() or waiter.wait(timeout) or call.is_done()):
                raise DeadlineExceeded(f"no answer within {timeout:g} s; it may be done or not")
        if call.error is not None:
            raise_anew(call.error)
        return call.value

    def check(self) -> None:
        """Raise what the client failed with, if it has."""
        if self.error is not None:
            raise_anew(self.error)

    def wait_for_space(
        self, group: Group, *, window: int, window_bytes: int, size: int, timeout: float
    ) -> None:
        """Until one more publish of `size` bytes fits; `DeadlineExceeded` when none does."""
        ends = time.monotonic() + timeout
        low_bytes = max(0, min(window_bytes // 2, window_bytes - size))
        while self.is_full(group, window, window_bytes, size):
            waiter = self.platform.waiter()
            self._space_waiters.append((group, window // 2, low_bytes, waiter))
            self.nudge()
            self.check()
            if not waiter.wait(ends - time.monotonic()):
                raise DeadlineExceeded(
                    f"{group.under_way} publishes ({group.bytes_under_way} bytes) are not "
                    f"confirmed; there was no room for another within {timeout:g} s"
                )
            self.check()

    def is_full(self, group: Group, window: int, window_bytes: int, size: int) -> bool:
        """The commands that the thread has not seen yet count as one publish each, of no size:

        the bound on bytes may be passed by what is published between two of its turns.
        """
        return (
            group.under_way + len(self.commands) >= window
            or 0 < group.bytes_under_way > window_bytes - size
        )

    def fileno(self) -> int:
        ready = self._ready
        if ready is None:
            ready = self._ready = Wake()
            self._quiet()
        return ready.fd

    def next_event(self, timeout: float | None) -> Event | None:
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            self.check()
            event = self._pop()
            if event is not None:
                return event
            left = None if ends is None else ends - time.monotonic()
            if left is not None and left <= 0:
                return None
            waiter = self.platform.waiter()
            self._event_waiters.append(waiter)
            if not self.core.events and self.error is None:
                waiter.wait(left)
            try:
                self._event_waiters.remove(waiter)
            except ValueError:
                pass  # it was woken

    def close(self, timeout: float) -> None:
        """Have everything answered that can be within `timeout` seconds, and say goodbye."""
        call = Call()
        self.submit(self._close, call, _now_ms() + int(timeout * 1000))
        waiter = self.platform.waiter()
        self.ended.waiters.append(waiter)
        if not self.ended.done:
            waiter.wait(timeout + 0.5)
        self.abandon(ClientClosed("the client is closed"))

    def abandon(self, error: RaftMQError) -> None:
        """Drop everything; the thread ends soon. No waiting, nothing is said to the node."""
        if self.error is None:
            self.error = error
        self._abandoned = True
        if self.pid == os.getpid():
            self.nudge()

    def forked(self) -> None:
        """In a child process: the thread and the sockets are the parent's."""
        self.error = ClientClosed("this client belongs to the parent process")
        _inherited.append((self._link, self._zmq, self._wake, self._ready, self._idle))
        calls = [args[0] for _, args in self.commands if args and isinstance(args[0], Call)]
        calls += self.core.calls()
        for call in [*calls, self.opened, self.ended]:
            call.waiters.clear()  # those who wait were not forked
            call.fail(self.error)

    # --- events ---------------------------------------------------------------------------

    def _pop(self) -> Event | None:
        events = self.core.events
        while True:
            try:
                event = events.popleft()
            except IndexError:
                self._quiet()
                return None
            if type(event) is Delivery:
                if event.hand.held.get(event.message.id) is not event:
                    continue  # it went back meanwhile, with its channel
                if event.consumer.no_ack:
                    self._auto.append(event)
                    if not events or len(self._auto) >= AUTO_ACKS:
                        self.nudge()
            if not events:
                self._quiet()
            return event

    def _quiet(self) -> None:
        """There was no event left: clear the descriptor, unless one came meanwhile."""
        ready = self._ready
        if ready is None:
            return
        self._signalled = False
        ready.clear()
        if self.core.events or self.error is not None:
            self._signalled = True
            ready.set()

    def _announce(self) -> None:
        """In the thread: there are events, or an error."""
        ready = self._ready
        if ready is not None and not self._signalled:
            self._signalled = True
            ready.set()
        while self._event_waiters:
            try:
                self._event_waiters.popleft().set()
            except IndexError:
                break

    # --- the thread -----------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._turn():
                pass
        except RaftMQError as error:
            self._end(error)
        except Exception as error:  # noqa: BLE001 - the edge of the thread: all callers get it
            failure = Unavailable(f"the client's own I/O failed: {error!r}")
            failure.__cause__ = error
            self._end(failure)
        else:
            self._end(self.core.error or ClientClosed("the client is closed"))

    def _turn(self) -> bool:
        """False: the session is over."""
        if self._abandoned:
            return False
        core = self.core
        self._obey()
        now = _now_ms()
        link = self._link
        if link is None:
            self._dial(now)
        else:
            self._hear(link, now)
        if core.error is not None:
            return False
        core.finish_turn()
        link = self._link
        if link is not None and core.in_service:
            while operations := core.take(now):
                if not link.send(encode_operations(core.floor, operations)):
                    self._lose(now, "the link went down")
                    break
        if core.news:
            core.news = False
            self._announce()
        if self._space_waiters:
            self._give_space()
        if self._closing is not None and self._is_closed(now):
            return False
        self._sleep(now)
        return True

    def _obey(self) -> None:
        commands = self.commands
        for _ in range(len(commands)):
            act, args = commands.popleft()
            act(*args)
        auto = self._auto
        if auto:
            self.core.settle([auto.popleft() for _ in range(len(auto))], _ACK)

    def _sleep(self, now: int) -> None:
        ends = self._due(now)
        self._asleep = True
        if self.commands or self._abandoned:
            self._asleep = False
            return
        timeout_ms = max(0, ends - now)
        link = self._link
        if link is not None:
            link.wait(timeout_ms)
        else:
            self._idle.poll(timeout_ms)
        self._asleep = False
        self._wake.clear()

    def _due(self, now: int) -> int:
        """When something is to be done though nothing comes."""
        ends = now + SLEEP_MS
        if self._link is None:
            ends = min(ends, self._dial_at)
        elif not self.core.in_service:
            ends = min(ends, self._attempt_ends)
        else:
            repeat = self.core.repeat_due_ms()
            if repeat is not None:
                ends = min(ends, repeat)
        if self._closing is not None:
            ends = min(ends, self._closing[1])
        return ends

    def _give_space(self) -> None:
        for _ in range(len(self._space_waiters)):
            entry = self._space_waiters.popleft()
            group, count, size, waiter = entry
            if group.under_way <= count and group.bytes_under_way <= size:
                waiter.set()
            else:
                self._space_waiters.append(entry)

    def _close(self, call: Call, ends_ms: int) -> None:
        if self._closing is None:
            self._closing = (call, ends_ms)

    def _is_closed(self, now: int) -> bool:
        assert self._closing is not None
        call, ends = self._closing
        core, link = self.core, self._link
        if core.unanswered and now < ends:
            return False
        if link is not None and core.in_service:
            link.send(encode_operations(core.floor, [core.goodbye()]))
            link.close(linger_ms=GOODBYE_LINGER_MS)
            self._link = None
        elif core.session and now < ends:
            return False  # between two links: the next one can still say goodbye
        call.resolve()
        return True

    def _end(self, error: RaftMQError) -> None:
        """The thread's last act: nobody is left waiting."""
        if self.error is None:
            self.error = error
        error = self.error
        self.core.fail(error)
        while self.commands:
            _, args = self.commands.popleft()
            if args and isinstance(args[0], Call):
                args[0].fail(error)
        while self._space_waiters:
            self._space_waiters.popleft()[3].set()
        self._announce()
        self.opened.fail(error)
        if self._link is not None:
            self._link.close()
            self._link = None
        self.ended.resolve()

    # --- the link -------------------------------------------------------------------------

    def _dial(self, now: int) -> None:
        if now >= self._give_up_at or self._is_refused(now):
            what = "reconnect" if self.core.session else "connect"
            nodes = ", ".join(self._dialer.nodes)
            raise ConnectFailed(f"could not {what} to any of {nodes}: {self._last_failure}")
        if now < self._dial_at:
            return
        node = self._dialer.next()
        self._greeted = False
        self._attempt_ends = now + CONNECT_MS
        try:
            self._link = Link(self._zmq, node, self._wake.fd)
        except OSError as error:
            self._missed(now, node, str(error))

    def _is_refused(self, now: int) -> bool:
        return (
            not self.core.session
            and self._refused_only
            and bool(self._dialer.failures)
            and now - self._first_tried >= REFUSED_MS
        )

    def _hear(self, link: Link, now: int) -> None:
        link.look()
        core = self.core
        for _ in range(FRAMES_PER_TURN):
            frame = link.receive()
            if frame is None:
                break
            self._heard = now
            was_in_service = core.in_service
            core.receive(decode_answers(frame))
            if core.in_service and not was_in_service:
                self._welcomed(link)
        if core.error is not None:
            return
        if core.denied is not None:
            self._lose(now, f"{link.node} said {core.denied.text}")
        elif link.down:
            self._lose(now, f"{link.node} is not reachable")
        elif core.in_service:
            self._watch(link, now)
        elif link.up and not self._greeted:
            self._greeted = True
            self._refused_only = False
            self._attempt_ends = now + WELCOME_MS
            link.send(encode_operations(core.floor, [core.hello()]))
        elif now >= self._attempt_ends or now >= self._give_up_at:
            what = "did not open the session" if self._greeted else "did not shake hands"
            self._refused_only = False
            self._lose(now, f"{link.node} {what} in time")

    def _welcomed(self, link: Link) -> None:
        self._dialer.served(link.node)
        self._dialer.learn(self.core.nodes)
        self._unfit_since = 0
        if self.opened.done:
            self.resumed += 1
        self.opened.resolve()

    def _watch(self, link: Link, now: int) -> None:
        if now - self._heard > SILENCE_MS:
            self._lose(now, f"nothing was heard of {link.node} for {SILENCE_MS} ms")
        elif self.core.serving:
            self._unfit_since = 0
        elif not self._unfit_since:
            self._unfit_since = now
        elif now - self._unfit_since > NOT_SERVING_MS:
            self._lose(now, f"{link.node} cannot reach a majority")

    def _lose(self, now: int, why: str) -> None:
        link = self._link
        assert link is not None
        if self.core.in_service:
            self._give_up_at = now + self._reconnect_ms
            self._dialer.lost(link.node)
            self._last_failure = why
            self._dial_at = now
        else:
            self._missed(now, link.node, why)
        self.core.link_lost()
        self._unfit_since = 0
        link.close()
        self._link = None

    def _missed(self, now: int, node: str, why: str) -> None:
        self._last_failure = why
        self._dial_at = now + self._dialer.failed(node, random.random())


def raise_anew(error: RaftMQError) -> None:
    """Raise a copy: one that many callers meet would gather all their tracebacks."""
    raise copy.copy(error) from error.__cause__


def end_process() -> None:
    """At exit: let goodbyes leave. Only when all threads of this process have ended."""
    global _context
    if _context is not None and all(engine.ended.done for engine in _engines):
        _context.term()
        _context = None


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    """One for all clients of this process; the application's own could be terminated by it."""
    global _context
    if _context is None:
        _context = zmq.Context()
        _context.set(zmq.MAX_SOCKETS, 16_384)
    return _context


def _after_fork() -> None:
    global _context
    for engine in list(_engines):
        engine.forked()
    _engines.clear()
    if _context is not None:
        _inherited.append(_context)
        _context = None


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_after_fork)
