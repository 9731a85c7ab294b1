"""Nodes for the tests of this folder: all of them leave the cluster as it was."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import pytest
from kombu import Connection, Queue

import kombu_transport  # noqa: F401  (registers the scheme)
from tests.cluster import Cluster


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One node, in service."""
    with Cluster(tmp_path_factory.mktemp("single"), nodes=1) as cluster:
        cluster.wait_ready()
        yield cluster


@pytest.fixture(scope="session")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes, in service."""
    with Cluster(tmp_path_factory.mktemp("triple"), nodes=3) as cluster:
        cluster.wait_ready()
        yield cluster


@pytest.fixture
def connect(single: Cluster) -> Iterator[Callable[..., Connection]]:
    """A function that makes connections to the single node; they are closed in the end."""
    made: list[Connection] = []

    def make(**options: object) -> Connection:
        made.append(Connection(single.url, transport_options=options))
        return made[-1]

    yield make
    for connection in made:
        connection.release()


@pytest.fixture
def connection(connect: Callable[..., Connection]) -> Connection:
    return connect()


@pytest.fixture
def queue(connection: Connection) -> Iterator[Queue]:
    """A declared queue of the test's own."""
    name = f"test-{uuid.uuid4().hex}"
    queue = Queue(name, routing_key=name, max_priority=10)(connection.default_channel)
    queue.declare()
    yield queue
    with connection.clone() as other:
        queue(other.default_channel).delete()
