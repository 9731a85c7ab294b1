"""One node of the group: its disk for ever, its Raft node and machine from start to crash.

    message, timer, proposal -> step -> Ready -> messages leave
                                          |  a write: on its way for a while; a crash meanwhile
                                          |  loses it, or finds all of it on the disk
                                          +-> promises leave -> apply -> advance

Ticks that only count are not taken one by one: before anything else happens, the node passes
those that are due at once, and a timer stands at the next tick that does something.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from raftlog.config import Config
from raftlog.errors import RaftError
from raftlog.membership import Change, decode_change
from raftlog.memory_store import MemoryGroup
from raftlog.messages import (
    EntryKind,
    Membership,
    Message,
    Snapshot,
    decode_message,
    encode_message,
)
from raftlog.node import RawNode, ReadState, Ready
from raftlog.write import GroupWrite, Mark
from tests.simulation.raft.machine import Machine
from tests.simulation.world import World

WRITE_MS = (0.2, 2.0)


class Observer(Protocol):
    """Who looks at a host at every step; see `checks.py`."""

    def started(self, host: Host) -> None: ...
    def sends(self, host: Host, message: Message) -> None: ...
    def wrote(self, host: Host, ready: Ready) -> None: ...
    def applied(self, host: Host, ready: Ready) -> None: ...
    def stepped(self, host: Host) -> None: ...


class Disk(MemoryGroup):
    """The group's log, in memory; its snapshots carry the machine's state themselves."""

    __slots__ = ()

    def snapshot(self) -> Snapshot:
        found = super().snapshot()
        if self.checkpoint is None:
            return found
        return Snapshot(found.index, found.term, found.membership, self.chunk(0))

    def commit(self, write: GroupWrite) -> None:
        """One transaction."""
        self.check(write)
        self.write(write)


class Host:
    """`config` is that of every life; `tick_ms` is this node's own, for clocks differ."""

    def __init__(
        self,
        world: World,
        config: Callable[[int], Config],
        id: int,
        membership: Membership,
        observer: Observer,
        send: Callable[[Message], None],
        tick_ms: float,
    ) -> None:
        self.id = id
        self.disk = Disk(membership)
        self.node: RawNode | None = None
        self.machine = Machine()
        self.lives = 0
        self.paused = False
        self.tick_ms = tick_ms
        self.reads: list[ReadState] = []  #: granted, until the machine is there
        self.on_read: Callable[[Host, ReadState], None] = lambda host, read: None
        self._world, self._config, self._observer, self._send = world, config, observer, send
        self._chance = world.chance(f"host {id}")
        self._write_ms, self._slow_until, self._stalled_until = WRITE_MS, 0.0, 0.0
        self._apply_ms, self._lazy_until = 0.0, 0.0
        self._waiting: list[Callable[[RawNode], None]] = []  #: while it is paused
        self._ready: Ready | None = None
        self._is_written = False  #: the write of `_ready` is on the disk
        self._ticked_ms = 0.0
        self._timer_ms = 0.0

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start from what the disk holds."""
        if self.node is not None:
            return
        self.lives += 1
        self.paused = False
        mark = self.disk.checkpoint
        applied = mark.index if mark is not None else 0
        self.machine = Machine() if mark is None else Machine.load(self.disk.chunk(0))
        self.node = RawNode(self._config(applied), self.disk)
        self._ready, self.reads, self._waiting = None, [], []
        self._ticked_ms = self._world.now - self._chance.random() * self.tick_ms
        self._timer_ms = float("inf")
        self._observer.started(self)
        self._world.note(f"{self.id} starts, applied {applied}")
        self._settle(self.node)

    def crash(self) -> None:
        """The process dies; a write under way is on the disk as a whole, or not at all."""
        if self.node is None:
            return
        ready, written = self._ready, False
        self.node = None
        if (
            ready is not None
            and ready.must_sync
            and not self._is_written
            and self._chance.random() < 0.5
        ):
            self.disk.commit(self._write(ready))
            self._observer.wrote(self, ready)
            written = True
        self._world.note(f"{self.id} crashes{', its last write done' if written else ''}")

    def pause(self) -> None:
        """SIGSTOP."""
        self._world.note(f"{self.id} is paused")
        self.paused = True

    def resume(self) -> None:
        """SIGCONT: what came meanwhile is taken now, and of all ticks missed one is made."""
        if not self.paused:
            return
        self._world.note(f"{self.id} goes on")
        self.paused = False
        node = self.node
        if node is None:
            return
        self._ticked_ms = self._world.now - self.tick_ms
        waiting, self._waiting = self._waiting, []
        for act in [*waiting, lambda node: None]:
            self.take(act)

    def slow_disk(self, write_ms: float, for_ms: float) -> None:
        """For a while each write takes from a tenth of this to all of it."""
        self._write_ms, self._slow_until = (write_ms / 10, write_ms), self._world.now + for_ms

    def stall_disk(self, for_ms: float) -> None:
        """A write that begins before then ends then."""
        self._stalled_until = self._world.now + for_ms

    def slow_machine(self, apply_ms: float, for_ms: float) -> None:
        """For a while it takes up to so long to apply what a Ready brings."""
        self._apply_ms, self._lazy_until = apply_ms, self._world.now + for_ms

    def mend(self) -> None:
        """All is well with it."""
        self._slow_until = self._stalled_until = self._lazy_until = 0.0
        self.resume()
        self.start()

    # --- events ---------------------------------------------------------------------------

    def take(self, act: Callable[[RawNode], None]) -> None:
        """Something happens to the node now, or when it is no longer paused."""
        node = self.node
        if node is None:
            return
        if self.paused:
            self._waiting.append(act)
            return
        self._catch_up(node)
        act(node)
        self._settle(node)

    def receive(self, message: Message) -> None:
        """A message; now and then it goes through the codec."""
        if self._chance.random() < 0.05:
            message = decode_message(encode_message(message))
        self.take(lambda node: node.step(message))

    def attempt(self, act: Callable[[RawNode], object]) -> bool:
        """Something that Raft may refuse; whether it did not."""
        if self.node is None or self.paused:
            return False
        self._catch_up(self.node)
        try:
            act(self.node)
        except RaftError as refusal:
            if self._world.tracing:
                self._world.detail(f"{self.id} refuses: {refusal}")
            return False
        finally:
            self._settle(self.node)
        return True

    def checkpoint(self, compact: bool, careful: bool) -> bool:
        """Write the machine down, and cut the log; `careful`: no follower is cut off."""
        node, disk = self.node, self.disk
        if node is None or self.paused or self._ready is not None:
            return False
        whole = disk.checkpoint.index if disk.checkpoint is not None else 0
        index = self.machine.index
        if index > whole:
            mark = Mark(index, disk.term(index), node.membership, 1)
            chunk = (index, 0, self.machine.dump())
            disk.commit(GroupWrite(1, mark=mark, chunks=[chunk]))
            whole = index
        limit = min(whole, node.compactable_to()) if careful else whole
        if compact and limit >= disk.first_index():
            gone = range(disk.first_index(), limit + 1)
            disk.commit(GroupWrite(1, compact_to=limit, drop_entries=gone))
        return True

    # --- ticks ----------------------------------------------------------------------------

    def _catch_up(self, node: RawNode) -> None:
        due = int((self._world.now - self._ticked_ms) / self.tick_ms)
        if due > 0:
            self._ticked_ms += due * self.tick_ms
            idle = node.idle_ticks()
            if due <= idle:
                node.pass_ticks(due)
            else:
                node.pass_ticks(idle)
                for _ in range(due - idle):
                    node.tick()

    def _set_timer(self, node: RawNode) -> None:
        due = self._ticked_ms + (node.idle_ticks() + 1) * self.tick_ms + 1e-6
        if due < self._timer_ms:
            self._timer_ms = due
            life = self.lives
            self._world.at(due, lambda: self._timer(life, due))

    def _timer(self, life: int, due: float) -> None:
        node = self.node
        if self.lives != life or due != self._timer_ms or node is None:
            return
        self._timer_ms = float("inf")
        if not self.paused:
            self._catch_up(node)
            self._settle(node)

    # --- turns ----------------------------------------------------------------------------

    def _settle(self, node: RawNode) -> None:
        """Turns until there is nothing to do or a write is on its way; then look."""
        while self._ready is None and node.has_ready():
            ready = self._ready = node.ready()
            self._is_written = False
            for message in ready.messages:
                self._leave(message)
            if ready.must_sync:
                self._later(self._disk_delay(), self._written, ready)
            else:
                self._promise(ready)
                self._apply(node, ready)
        self._observer.stepped(self)
        self._set_timer(node)

    def _later(self, delay_ms: float, act: Callable[[RawNode, Ready], None], ready: Ready) -> None:
        """The next part of a turn, if this life lasts so long and is awake then."""
        life = self.lives

        def go_on() -> None:
            node = self.node
            if self.lives != life or node is None:
                return
            if self.paused:
                self._world.after(5.0, go_on)
                return
            self._catch_up(node)
            act(node, ready)
            self._settle(node)

        self._world.after(delay_ms, go_on)

    def _disk_delay(self) -> float:
        now = self._world.now
        low, high = self._write_ms if now < self._slow_until else WRITE_MS
        return max(low + (high - low) * self._chance.random(), self._stalled_until - now)

    def _written(self, node: RawNode, ready: Ready) -> None:
        self.disk.commit(self._write(ready))
        self._is_written = True
        self._observer.wrote(self, ready)
        self._promise(ready)
        self._apply(node, ready)

    def _write(self, ready: Ready) -> GroupWrite:
        write = GroupWrite(1, hard_state=ready.hard_state, entries=ready.entries)
        snapshot = ready.snapshot
        if snapshot is None:
            return write
        count = 1 if snapshot.index else 0
        mark = Mark(snapshot.index, snapshot.term, snapshot.membership, count)
        chunks = [(snapshot.index, 0, snapshot.data)] if count else []
        return write._replace(install=mark, chunks=chunks)

    def _apply(self, node: RawNode, ready: Ready) -> None:
        if ready.committed and self._world.now < self._lazy_until:
            self._later(self._apply_ms * self._chance.random(), self._finish, ready)
        else:
            self._finish(node, ready)

    def _promise(self, ready: Ready) -> None:
        for message in ready.messages_after:
            self._leave(message)

    def _finish(self, node: RawNode, ready: Ready) -> None:
        if ready.snapshot is not None and ready.snapshot.index:
            self.machine = Machine.load(ready.snapshot.data)
        for entry in ready.committed:
            self.machine.apply(entry)
            if entry.kind == EntryKind.CHANGE:
                node.apply_conf_change(decode_change(entry.data))
        self._observer.applied(self, ready)
        self.reads += ready.read_states
        self._ready = None
        node.advance(ready)
        while self.reads and self.reads[0].index <= self.machine.index:
            self.on_read(self, self.reads.pop(0))

    def _leave(self, message: Message) -> None:
        self._observer.sends(self, message)
        self._send(message)


def change_text(change: Change) -> str:
    """A change in a few letters."""
    return " ".join(f"{step.kind.name} {step.node}" for step in change.steps) or "leave joint"
