"""A new node asks until the cluster knows of it; then it has what it needs to start."""

from __future__ import annotations

import asyncio
import logging
import signal
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import msgspec
import zmq

from broker.charter import NAME, Charter, JoinAsk, decode_answer, decode_charter, encode_join
from broker.config import Config, Peer, parse_addresses
from broker.errors import ConfigError
from raftlog.lmdb_peek import peek

ASK_S = 1.0
LOOK_S = 0.05
SAY_EVERY = 15
"""How many times the same answer comes before it is logged again."""
ANSWER_BYTES_MAX = 1 << 20
log = logging.getLogger("raftmq.node")


class Owner(NamedTuple):
    """Whose directory it is; without a charter it was made by a version that wrote none."""

    node: str
    cluster: str
    charter: Charter | None


def stored_owner(path: Path) -> Owner | None:
    """What a data directory says of itself; None for a new one, or one that `open` will refuse."""
    found = peek(path, NAME)
    if found is None:
        return None
    identity, value = found
    charter = decode_charter(value) if value is not None else None
    return Owner(identity.node, identity.cluster, charter)


async def join(config: Config) -> tuple[Config, Charter] | None:
    """The settings of a node that may join, and its cluster's charter; None: told to stop.

    Raise `ConfigError` when the cluster says that this node can never join so.
    """
    context = zmq.Context()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    try:
        charter = await _ask_all(context, config, stopped)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        context.destroy(linger=0)
    return None if charter is None else (joined(config, charter), charter)


def joined(config: Config, charter: Charter) -> Config:
    """The settings of a node, completed by its charter."""
    own = next((peer for peer in charter.peers() if peer.id == config.node_id), None)
    if own is None:
        raise ConfigError(f"the cluster's list does not name {config.node_id}: ask it again")
    if own.peer_port != config.peer_port:
        raise ConfigError(
            f"{own.id} was added with peer port {own.peer_port}, and --peer-port is "
            f"{config.peer_port}: make them equal"
        )
    return replace(
        config,
        cluster_nodes=charter.peers(),
        cluster_name=charter.name,
        shards=charter.shards,
        replication_factor=charter.replication_factor,
        join="",
    )


async def _ask_all(
    context: zmq.Context[zmq.Socket[bytes]], config: Config, stopped: asyncio.Event
) -> Charter | None:
    sockets = [_connect(context, peer) for peer in parse_addresses(config.join)]
    ask, said, count = encode_join(JoinAsk(config.node_id)), "", 0
    log.info("node %s asks %s whether it may join", config.node_id, config.join)
    while not stopped.is_set():
        for socket in sockets:
            try:
                socket.send(ask, zmq.NOBLOCK)
            except zmq.Again:
                pass  # not connected, or it has not read what was asked before
        text = "nobody answers"
        for _ in range(int(ASK_S / LOOK_S)):
            await asyncio.sleep(LOOK_S)
            for socket in sockets:
                answer = _receive(socket)
                if answer is None:
                    continue
                if isinstance(answer, Charter):
                    return answer
                text = answer
        if text != said or count % SAY_EVERY == 0:
            log.info("node %s waits: %s", config.node_id, text)
        said, count = text, count + 1 if text == said else 1
    return None


def _connect(context: zmq.Context[zmq.Socket[bytes]], peer: Peer) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.immediate = 1
    socket.sndhwm = 1
    socket.maxmsgsize = ANSWER_BYTES_MAX
    socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.connect(f"tcp://{peer.host}:{peer.peer_port}")
    except zmq.ZMQError as error:
        raise ConfigError(
            f"--join: {peer.host}:{peer.peer_port} is no address ({error.strerror or error}): "
            f"give a host's name or address and a peer port"
        ) from error
    return socket


def _receive(socket: zmq.Socket[bytes]) -> Charter | str | None:
    """What has been answered; None for nothing. Raise `ConfigError` when that is final."""
    try:
        frame = socket.recv(zmq.NOBLOCK)
        answer = decode_answer(frame)
    except (zmq.Again, msgspec.DecodeError):
        return None
    if answer.charter is not None:
        return answer.charter
    if answer.final:
        raise ConfigError(answer.text)
    return answer.text
