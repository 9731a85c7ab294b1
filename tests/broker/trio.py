"""Three engines in one process, in virtual time, on disks in memory: for tests of few steps.

    trio = Trio()                all three serve
    trio.say(p.Publish(...))     what a client of n1 is told
    trio.run(ticks)              time passes

Frames arrive at once and in order. A node whose engine raises what stops a node is taken out,
and the error stays in `ended`.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from broker import protocol as p
from broker.config import Config, Peer
from broker.engine import Engine
from broker.errors import StateDiffers
from broker.groups import voters
from raftlog.memory_store import MemoryStore

CLIENT = b"client"
ROUNDS_MAX = 10_000
NODES = ("n1", "n2", "n3")


class Trio:
    """A cluster of n1, n2 and n3; its one client is at home on n1."""

    def __init__(self, *, shards: int = 2, audit_ms: int = 1000, **settings: int) -> None:
        """settings: other fields of `Config`."""
        peers = tuple(Peer(name, "here", number) for number, name in enumerate(NODES, 1))
        self.configs = {
            peer.id: Config(
                node_id=peer.id,
                cluster_nodes=peers,
                peer_port=peer.peer_port,
                shards=shards,
                audit_ms=audit_ms,
                **settings,  # type: ignore[arg-type]
            )
            for peer in peers
        }
        self.now_ms = 0
        self.logs: list[str] = []
        self.ended: dict[str, Exception] = {}
        self.told: list[p.AnyAnswer] = []
        self.on_frame: Callable[[str, str, bytes], bytes] = lambda source, target, frame: frame
        self.disks = {
            name: MemoryStore(voters(config), f"disk of {name}".encode())
            for name, config in self.configs.items()
        }
        self.engines: dict[str, Engine] = {}
        self.boots = 0
        for name in NODES:
            self.start(name)
        self.run_until(lambda: all(e.readiness()[0] for e in self.engines.values()))

    def start(self, name: str) -> Engine:
        """A new process on the node's disk."""
        self.boots += 1
        engine = self.engines[name] = Engine(
            self.configs[name],
            boot=self.boots,
            now_ms=self.now_ms,
            store=self.disks[name],
            random=random.Random(self.boots),
            log=lambda text: self.logs.append(f"{name}: {text}"),
        )
        return engine

    def run(self, ticks: int) -> None:
        """So many ticks, and all work between them."""
        for _ in range(ticks):
            self.now_ms += self.configs["n1"].tick_ms
            for name in tuple(self.engines):
                self._do(name, lambda engine: engine.tick(self.now_ms))
            self._rest()

    def run_until(self, condition: Callable[[], bool], ticks: int = 400) -> None:
        """Until it holds, but not for ever."""
        for _ in range(ticks):
            if condition():
                return
            self.run(1)
        raise AssertionError(f"not within {ticks} ticks: {self.logs[-10:]}")

    def say(self, *operations: p.AnyOperation) -> list[p.AnyAnswer]:
        """What the client is told as soon as there is nothing to do any more."""
        self.told = []
        frame = p.encode_operations(1, list(operations))
        self._do("n1", lambda engine: engine.client_frame(CLIENT, frame))
        self._rest()
        return self.told

    def _rest(self) -> None:
        for _ in range(ROUNDS_MAX):
            busy = [self._turn(name) for name in tuple(self.engines) if name in self.engines]
            if not any(busy):
                return
        raise AssertionError("work without an end")

    def _turn(self, name: str) -> bool:
        busy = self._do(name, self._round(name)) and name in self.engines
        return busy and self._send(name)

    def _round(self, name: str) -> Callable[[Engine], None]:
        def act(engine: Engine) -> None:
            writes = engine.begin(self.now_ms)
            self._send(name)
            self.disks[name].write(writes)
            engine.end()

        return act

    def _send(self, name: str) -> bool:
        """Whether anything was sent, or anything is left to do."""
        engine = self.engines[name]
        frames = engine.peer_frames() + engine.part_frames()
        for target, frame in frames:
            data = self.on_frame(name, target, frame)
            if data and target in self.engines:  # b"": it is lost
                self._do(target, lambda other, data=data: other.peer_frame(data))  # type: ignore[misc]
        for identity, frame in engine.client_frames():
            if identity == CLIENT:
                self.told += p.decode_answers(frame)
        return bool(frames) or engine.has_work()

    def _do(self, name: str, act: Callable[[Engine], None]) -> bool:
        try:
            act(self.engines[name])
        except StateDiffers as error:
            self.ended[name] = error
            del self.engines[name]
            return False
        return True


def hello() -> p.Hello:
    return p.Hello(p.VERSION, 0, b"a secret token!!", "/", "guest", {}, 0, {})
