"""A node in the simulation: the real engine, driven as the real loop drives it.

frames pile up while a write is on its way to the disk; a crash in between loses it,
or, as the process may die after the disk was done, keeps it unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from broker.config import Config
from broker.engine import Engine
from broker.groups import voters
from broker.shard import Shard
from raftlog.memory_store import MemoryStore
from raftlog.write import GroupWrite
from tests.simulation.network import Network
from tests.simulation.world import World

EPOCH_MS = 1_700_000_000_000
WRITE_MS = (0.2, 1.0)
WAKE_MS = 0.1
"""From the first frame in a socket to the turn that takes it, with whatever came meanwhile."""


class ClientEnd(Protocol):
    """A client's end of a link."""

    name: str

    def receive(self, identity: bytes, frame: bytes) -> None:
        """A frame of the node."""

    def has(self, identity: bytes) -> bool:
        """Whether the client still uses this link."""

    def cut(self, identity: bytes) -> None:
        """The link broke."""


class SimNode:
    """One node: its disk for ever, its engine from start to crash."""

    def __init__(
        self,
        world: World,
        network: Network,
        config: Config,
        nodes: dict[str, SimNode],
        founding: Config | None = None,
    ) -> None:
        """founding: of one of the cluster's founders, for a node that joins it."""
        self.name = config.node_id
        self.config = config
        self.engine: Engine | None = None
        self.boots = 0
        self.paused = False
        self.held = False  #: it stays down or paused until it is mended
        self.clients: dict[bytes, ClientEnd] = {}
        self.clock_skew_ms = 0
        self.on_turn: Callable[[SimNode, list[Shard]], None] = lambda node, shards: None
        self._world, self._network, self._nodes = world, network, nodes
        self._chance = world.chance(self.name)
        self._write_ms, self._slow_until, self._stalled_until = WRITE_MS, 0.0, 0.0
        self.wiped = False  #: its disk was lost
        self.gone = False  #: it was told that it does not belong to the cluster
        self._cluster_id = (founding or config).cluster_id
        self.disk = MemoryStore({} if founding else voters(config), self._disk_id(0))
        self._inbox: list[Callable[[Engine], None]] = []
        self._busy = False
        self._writing: list[GroupWrite] = []  #: on their way to the disk
        self._tick_waits = False
        self._awake = False
        self._ended_in_pause = False
        self._touched: list[Shard] = []  #: by the turn under way
        self.dies_installing_ms = 0.0  #: how long it is down when its next snapshot was written
        self.died_installing = 0
        self.installed = 0  #: snapshots that came to its disk

    def _disk_id(self, number: int) -> bytes:
        return f"{self.name}/{number}".encode()

    # --- life -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start, or start again after a crash."""
        assert self.engine is None
        self.boots += 1
        self._world.note(f"{self.name} starts")
        self.engine = Engine(
            self.config,
            boot=self.boots,
            now_ms=int(self._world.now),
            store=self.disk,
            random=self._chance,
            cluster_id=self._cluster_id,
            log=lambda text: self._world.note(f"{self.name}: {text}"),
        )
        self._inbox, self._busy, self._tick_waits, self.paused = [], False, False, False
        self._awake = self._ended_in_pause = False
        self.on_turn(self, list(self.engine.shards.values()))
        self._tick(self.boots)

    def crash(self) -> None:
        """The process dies at once. Its peers and clients see their links reset."""
        self._world.note(f"{self.name} crashes")
        self.engine = None
        if self._writing and self._chance.random() < 0.5:
            self._write(self._writing)  # the disk was done just before
        self._writing = []
        self.clients = {}
        for node in self._nodes.values():
            if node is not self:
                node.take(lambda engine, name=self.name: engine.peer_reset(name))  # type: ignore[misc]

    def crash_for(self, down_ms: float) -> bool:
        """Crash, and start again after a while; False when it is down already."""
        if self.engine is None:
            return False
        self.crash()
        self._world.after(down_ms, self.restart)
        return True

    def restart(self) -> None:
        """Start, unless that has happened, or would be for nothing."""
        if self.engine is None and not self.gone and not self.held:
            self.start()

    def lose_disk(self) -> None:
        """The process ends and the disk is lost; in its place is an empty one."""
        if self.engine is not None:
            self._writing = []
            self.crash()
        self._world.note(f"the disk of {self.name} is lost")
        self.wiped = True
        founder = self.config.cluster_id == self._cluster_id
        self.disk = MemoryStore(voters(self.config) if founder else {}, self._disk_id(1))

    def _leave(self, engine: Engine) -> None:
        """The cluster has told it to go, and it ends."""
        assert engine.dismissed is not None
        self._world.note(f"{self.name} ends with code {engine.dismissed[0]}")
        self.gone = True
        self.crash()

    def pause(self) -> None:
        """SIGSTOP: nothing moves; what comes in waits."""
        self._world.note(f"{self.name} is paused")
        self.paused = True

    def resume(self) -> None:
        """SIGCONT."""
        if self.paused and not self.held:
            self._world.note(f"{self.name} goes on")
            self.paused = False
            if self._ended_in_pause:
                self._ended_in_pause = False
                self._end(self.boots)
            self._begin()

    # --- the shell around it --------------------------------------------------------------

    def slow_disk(self, write_ms: float, for_ms: float) -> None:
        """For a while each write takes from a tenth of this to all of it."""
        self._write_ms, self._slow_until = (write_ms / 10, write_ms), self._world.now + for_ms

    def stall_disk(self, for_ms: float) -> None:
        """A write that begins now ends after this."""
        self._stalled_until = self._world.now + for_ms

    def hold(self) -> None:
        """Whatever was to start it again or have it go on does not, until it is mended."""
        self.held = True

    def mend(self) -> None:
        """Everything about it is well again."""
        self.held = False
        self._slow_until = self._stalled_until = self.dies_installing_ms = 0.0
        self.resume()
        self.restart()

    def _disk_delay(self) -> float:
        now = self._world.now
        low, high = self._write_ms if now < self._slow_until else WRITE_MS
        return max(low + (high - low) * self._chance.random(), self._stalled_until - now)

    def _unix_ms(self) -> int:
        return EPOCH_MS + int(self._world.now) + self.clock_skew_ms

    def _tick(self, boot: int) -> None:
        if self.engine is None or self.boots != boot:
            return
        if not self.paused and not self._tick_waits:
            self._tick_waits = True  # a loop that was held up makes one tick of all it missed
            self.take(self._tick_engine)
        self._world.after(self.config.tick_ms, lambda: self._tick(boot))

    def _tick_engine(self, engine: Engine) -> None:
        self._tick_waits = False
        engine.tick(int(self._world.now))

    # --- frames ---------------------------------------------------------------------------

    def take(self, act: Callable[[Engine], None]) -> None:
        """Something for the engine: at once, or when the write under way is done."""
        if self.engine is None:
            return
        self._inbox.append(act)
        if not self._busy and not self.paused and not self._awake:
            self._awake = True
            self._world.after(WAKE_MS, self._wake)

    def _wake(self) -> None:
        if self._awake:
            self._awake = False
            self._begin()

    def connect(self, client: ClientEnd, identity: bytes) -> bool:
        """A client's new link; False when nobody listens."""
        if self.engine is None:
            return False
        self.clients[identity] = client
        return True

    def _begin(self) -> None:
        """Turns, until nothing is left to do or a write is on its way."""
        while (engine := self.engine) is not None and not self._busy and not self.paused:
            inbox, self._inbox = self._inbox, []
            for act in inbox:
                act(engine)
            if engine.dismissed is not None:
                self._leave(engine)
                return
            if not engine.has_work():
                self._send(engine)
                return
            writes = engine.begin(self._unix_ms())
            # What a turn changes of a shard, its Ready says.
            self._touched = [shard for shard, _ in engine._readies]
            self._send(engine)
            if not writes:
                self._finish_turn(engine)
                continue
            self._busy, self._writing = True, writes
            if self._dies_by(writes):
                return
            self._world.after(self._disk_delay(), partial(self._end, self.boots))

    def _dies_by(self, writes: list[GroupWrite]) -> bool:
        """Whether this node was to die when its next snapshot is written."""
        if self.dies_installing_ms and any(write.install is not None for write in writes):
            down_ms, self.dies_installing_ms = self.dies_installing_ms, 0.0
            self.died_installing += 1
            self.crash_for(down_ms)
            return True
        return False

    def _write(self, writes: list[GroupWrite]) -> None:
        self.disk.write(writes)
        self.installed += sum(
            write.install is not None and write.install.index > 0 for write in writes
        )

    def _end(self, boot: int) -> None:
        """The write has ended; a process that stands still hears of it when it goes on."""
        engine = self.engine
        if self.boots != boot or engine is None:
            return  # crashed meanwhile
        if self.paused:
            self._ended_in_pause = True
            return
        self._write(self._writing)
        self._busy, self._writing = False, []
        self._finish_turn(engine)
        self._begin()

    def _finish_turn(self, engine: Engine) -> None:
        engine.end()
        self.on_turn(self, self._touched)
        self._send(engine)

    def _send(self, engine: Engine) -> None:
        for target, frame in engine.peer_frames():
            self._send_peer(target, frame)
        for target, frame in engine.part_frames():
            self._send_peer(target, frame, parts=True)
        for identity, frame in engine.client_frames():
            client = self.clients.get(identity)
            if client is None or not client.has(identity):
                self.clients.pop(identity, None)
                engine.client_lost(identity)
                continue
            self._network.send(
                self.name,
                client.name,
                lambda client=client, identity=identity, frame=frame: client.receive(  # type: ignore[misc]
                    identity, frame
                ),
                lambda client=client, identity=identity: client.cut(identity),  # type: ignore[misc]
            )

    def _send_peer(self, target: str, frame: bytes, *, parts: bool = False) -> None:
        node = self._nodes.get(target)
        if node is None:
            return  # it is in the list, and was never started

        def deliver() -> None:
            node.take(lambda engine: engine.peer_frame(frame))

        self._network.send(self.name, target, deliver, parts=parts)
