"""A node: the loop around the engine that touches sockets, disk and clock.

    readable -> drain -> begin -> send -> write (one transaction) -> end -> send -> again?

While a write runs, frames pile up in ZeroMQ's queues, and the next turn is a larger batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import random
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from broker.charter import JOIN_BYTE, NAME, Charter, encode_charter, founding_charter
from broker.config import Config
from broker.engine import Engine
from broker.errors import FormatTooNew, StateDiffered, StateDiffers
from broker.groups import voters
from broker.joining import join, stored_owner
from broker.residence import Residence
from broker.transport import Transport
from broker.web import start_web
from raftlog.lmdb_environment import DATA_FILE
from raftlog.lmdb_scrub import Scrubber
from raftlog.lmdb_store import Identity, LmdbStore
from raftlog.store_errors import StoreError
from raftlog.write import GroupWrite

FRAMES_PER_TURN = 2000
CLIENTS_PER_TURN_S = 0.01
"""How long a turn listens to clients: whatever they send, peers and ticks come in between."""

ROUNDS_PER_TURN = 8
LOOK_AGAIN_TICKS = 10
"""How often all sockets are looked at though nothing has called for it."""
RESIDENCE_TICKS = 2
"""How often the mapped pages of the store are counted."""
LOG_LINES_PER_SECOND = 20
DIFFERED = "differed"
"""The value in the store that tells why this node must not be started again."""

log = logging.getLogger("raftmq.node")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Node:
    """One broker process. `run()` returns its exit code."""

    def __init__(self, config: Config, charter: Charter) -> None:
        """Open the data directory and the sockets; raise `ConfigError` or a `StoreError`.

        The sockets come first: a node that cannot listen touches no data.
        """
        self.config = config
        self._transport = Transport(config)
        try:
            self._store = _open_store(config, charter)
            _refuse_what_differed(self._store)
        except BaseException:
            self._transport.close()
            raise
        self._charter = charter
        self.engine = Engine(
            config,
            boot=time.time_ns(),
            now_ms=_boot_ms(),
            store=self._store,
            cluster_id=charter.cluster,
            random=random.Random(),
            log=_LimitedLog(LOG_LINES_PER_SECOND),
        )
        self._scrubber = (
            Scrubber(
                self._store,
                bytes_per_s=config.scrub_bytes_per_s,
                pass_ms=config.scrub_pass_ms,
            )
            if config.scrub_bytes_per_s
            else None
        )
        data_file = Path(config.data_dir) / DATA_FILE
        self._residence = Residence(data_file, config.mapped_bytes_max)
        self._scheduled = False
        self._clients_waiting = self._peers_waiting = True
        self._ticks = self._commits = 0
        self._leave_by: float | None = None  #: told to stop: when it will at the latest
        self._endpoints: dict[str, tuple[str, int]] = {}
        self._watched: set[int] = set()  #: descriptors of monitors that the loop looks at
        self._exit: asyncio.Future[int] | None = None

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT (0), or until the disk or an assertion fails (1)."""
        self._loop = loop = asyncio.get_running_loop()
        self._exit = loop.create_future()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        web = await start_web(self.engine, self.config.http_host, self.config.http_port)
        transport = self._transport
        loop.add_reader(transport.clients_fd, self._wake_for_clients)
        loop.add_reader(transport.peers_fd, self._wake_for_peers)
        self._follow()
        self._hear_of_resets()  # a descriptor says nothing before its first look
        _calm_garbage_collector()
        self._next_tick = loop.time()
        self._tick()
        log.info(
            "node %s serves clients on %s, peers on port %d, HTTP on port %d, data in %s",
            self.config.node_id,
            self.config.client_address,
            self.config.peer_port,
            self.config.http_port,
            self.config.data_dir,
        )
        try:
            return await self._exit
        finally:
            for fd in (transport.clients_fd, transport.peers_fd, *self._watched):
                loop.remove_reader(fd)
            await web.cleanup()
            self._transport.close()
            self._store.close()

    def _leave(self) -> None:
        """Hand over what is led here, and stop. Told twice, stop at once."""
        if self._leave_by is not None or self.engine.has_left():
            self._stop(0)
            return
        log.info("node %s hands over the shards that it leads, and stops", self.config.node_id)
        self._leave_by = self._loop.time() + self.config.leave_ms / 1000
        self.engine.leave()
        self._wake()

    def _stop(self, code: int) -> None:
        if self._exit is not None and not self._exit.done():
            self._exit.set_result(code)

    def _tick(self) -> None:
        if self._exit is None or self._exit.done():
            return
        with self._ending_on_failure():
            self.engine.tick(_boot_ms())
        self._follow()
        self._ticks += 1
        if self._ticks % RESIDENCE_TICKS == 0:
            self._residence.limit()
        if self._ticks % LOOK_AGAIN_TICKS == 0:
            # Arms the descriptors of the monitors, and costs little should an edge be missed.
            self._hear_of_resets()
            self._clients_waiting = self._peers_waiting = True
        self._next_tick = max(self._next_tick + self.config.tick_ms / 1000, self._loop.time())
        self._loop.call_at(self._next_tick, self._tick)
        self._turn()
        with self._ending_on_failure():
            self._collect_garbage()
            self._scrub()

    def _collect_garbage(self) -> None:
        """Where no write has come since the last tick, and has done that by the way."""
        if self._exit is None or self._exit.done():
            return
        commits = self.engine.counters.commits
        if commits == self._commits:
            self._store.collect_garbage()
        self._commits = commits

    def _scrub(self) -> None:
        """Look for damage in what nobody needs just now: told, and nobody is stopped for it."""
        if self._scrubber is None or self._exit is None or self._exit.done():
            return
        counters = self.engine.counters
        for damage in self._scrubber.run(_boot_ms()):
            counters.damaged_records += 1
            log.error(
                "%s in %s. It was not needed yet, and this node goes on: stop it when it suits, "
                "and run `raftmq node verify` and `raftmq node repair`",
                damage,
                self.config.data_dir,
            )
        counters.scrubbed_bytes = self._scrubber.bytes
        counters.scrub_passes = self._scrubber.passes

    def _follow(self) -> None:
        """Be connected to the nodes of the cluster, as its list has them now."""
        endpoints, transport = self.engine.endpoints(), self._transport
        if endpoints != self._endpoints:
            self._endpoints = endpoints
            # A closed socket's descriptor may be given to the next one: all are taken anew.
            for fd in self._watched:
                self._loop.remove_reader(fd)
            for fault in transport.follow(endpoints):
                log.error("node %s cannot reach a node: %s", self.config.node_id, fault)
            self._watched = set(transport.monitor_fds)
            for fd in self._watched:
                self._loop.add_reader(fd, self._wake_for_reset)
            self._hear_of_resets()

    def _wake_for_clients(self) -> None:
        self._clients_waiting = True
        self._wake()

    def _wake_for_peers(self) -> None:
        self._peers_waiting = True
        self._wake()

    def _wake_for_reset(self) -> None:
        self._hear_of_resets()
        self._wake()

    def _hear_of_resets(self) -> None:
        for node in self._transport.resets():
            self.engine.peer_reset(node)

    def _wake(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        """One turn; what comes in meanwhile is for the next."""
        self._scheduled = False
        if self._exit is None or self._exit.done():
            return
        with self._ending_on_failure():
            self._receive()
            if self._exit.done():
                return
            for _ in range(ROUNDS_PER_TURN):
                self._round()
                if not self.engine.has_work():
                    break
            if self._leave_by is not None and (
                self.engine.has_left() or self._loop.time() > self._leave_by
            ):
                self._stop(0)
            if self._clients_waiting or self._peers_waiting or self.engine.has_work():
                self._wake()

    @contextlib.contextmanager
    def _ending_on_failure(self) -> Iterator[None]:
        try:
            yield
        except StateDiffers as error:
            self._say_last(error)
            with contextlib.suppress(StoreError):
                self._store.write_meta(DIFFERED, str(error).encode())
        except (StoreError, FormatTooNew) as error:
            self._say_last(error)  # the disk failed, or a record is damaged or too new
        except Exception:
            # Our own bug: a replica that goes on wrongly is worse than none.
            log.exception("node %s stops; the other nodes go on", self.config.node_id)
            self._stop(1)

    def _say_last(self, error: Exception) -> None:
        log.error("node %s stops, the other nodes go on: %s", self.config.node_id, error)
        self._stop(1)

    def _end_dismissed(self, code: int, why: str) -> None:
        """The cluster does not have this node (any more)."""
        log.log(
            logging.ERROR if code else logging.WARNING,
            "node %s stops: %s",
            self.config.node_id,
            why,
        )
        self._stop(code)

    def _receive(self) -> None:
        engine, transport = self.engine, self._transport
        if self._peers_waiting:
            frames = list(islice(transport.receive(transport.peers), FRAMES_PER_TURN))
            self._peers_waiting = len(frames) == FRAMES_PER_TURN
            for identity, frame in frames:
                if frame[:1] == JOIN_BYTE:
                    transport.answer_stranger(identity, engine.join_answer(frame, self._charter))
                    self._peers_waiting = True  # a send may have used up what came meanwhile
                else:
                    engine.peer_frame(frame)
            if engine.dismissed is not None:
                self._end_dismissed(*engine.dismissed)
                return
        if self._clients_waiting:
            end = time.monotonic() + CLIENTS_PER_TURN_S
            left = FRAMES_PER_TURN
            for identity, frame in transport.receive(transport.clients):
                engine.client_frame(identity, frame)
                left -= 1
                if not left or time.monotonic() > end:
                    return  # and there may be more
            self._clients_waiting = False

    def _round(self) -> None:
        engine = self.engine
        writes = engine.begin(_unix_ms())
        self._send()
        if writes:
            self._write(writes)
        engine.end()
        self._send()
        frames = engine.client_frames()
        for identity, frame in frames:
            if not self._transport.send_client(identity, frame):
                engine.client_lost(identity)
        if frames and self._transport.has_client_input():
            self._clients_waiting = True

    def _send(self) -> None:
        for node, frame in self.engine.peer_frames():
            self._transport.send_peer(node, frame)
        for node, frame in self.engine.part_frames():
            self._transport.send_part(node, frame)

    def _write(self, writes: list[GroupWrite]) -> None:
        start = time.perf_counter()
        self._store.write(writes)
        self.engine.counters.commits += 1
        self.engine.counters.commit_seconds += time.perf_counter() - start


def _open_store(config: Config, charter: Charter) -> LmdbStore:
    """Open the directory. Only a founder's new one is given groups: any other has them."""
    path = Path(config.data_dir)
    founds = charter.cluster == config.cluster_id and stored_owner(path) is None
    store = LmdbStore.open(
        path,
        Identity(charter.cluster.hex(), config.node_id),
        voters(config) if founds else {},
        map_bytes=config.store_bytes_max,
        cache_bytes=config.cache_bytes_max,
    )
    try:
        charter.check(config)
        if store.read_meta(NAME) is None:
            store.write_meta(NAME, encode_charter(charter))
    except BaseException:
        store.close()
        raise
    return store


def _refuse_what_differed(store: LmdbStore) -> None:
    """A node that has been found wrong once is wrong for ever, whoever starts it again."""
    differed = store.read_meta(DIFFERED)
    if differed is not None:
        store.close()
        raise StateDiffered(f"this node has stopped for good: {differed.decode()}")


def _unix_ms() -> int:
    return time.time_ns() // 1_000_000


def _boot_ms() -> int:
    """Time that goes on while the machine sleeps, and that nobody sets."""
    return time.clock_gettime_ns(_CLOCK) // 1_000_000


class _LimitedLog:
    """Log lines of the engine, so many a second: nobody fills the disk by sending rubbish."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._second = 0
        self._count = 0

    def __call__(self, text: str) -> None:
        second = int(time.monotonic())
        if second != self._second:
            if self._count > self._per_second:
                log.warning("%d similar lines were left out", self._count - self._per_second)
            self._second, self._count = second, 0
        self._count += 1
        if self._count <= self._per_second:
            log.info(text)


def _calm_garbage_collector() -> None:
    """What lives now lives long; cycles are rare here, and a full collection stalls a turn."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run_node(config: Config) -> int:
    """Run a node in this process until it ends; its exit code.

    Raise `ConfigError` or a `StoreError` when it cannot start.
    """
    import uvloop

    return uvloop.run(_run(config))


async def _run(config: Config) -> int:
    owner = stored_owner(Path(config.data_dir))
    kept = owner.charter if owner is not None else None
    if kept is not None and kept.name == config.cluster_name:
        return await Node(config, kept).run()
    if not config.join:
        return await Node(config, founding_charter(config)).run()
    told = await join(config)
    return 0 if told is None else await Node(*told).run()
