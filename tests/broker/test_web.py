"""The HTTP pages and the metrics behind them, without a node."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import msgspec
import pytest
from aiohttp.test_utils import TestClient, TestServer
from prometheus_client.parser import text_string_to_metric_families

from broker import metrics, web
from broker.metrics import Counters
from broker.status import (
    NodeStatus,
    PeerStatus,
    QueueStatus,
    SessionStatus,
    ShardStatus,
    decode_status,
    encode_status,
)
from broker.web import application

STATUS = NodeStatus(
    version="1.0",
    node="n1",
    boot=7,
    cluster="test",
    ready=True,
    reason="",
    peers=[PeerStatus(node="n2", connected=True, last_heard_ms=12, client_address="h:1")],
    shards=[
        ShardStatus(shard=0, role="leader", leader="n1", term=3, commit=9, applied=8, last=10),
        ShardStatus(shard=1, role="follower", leader="", term=2, commit=1, applied=1, last=1),
    ],
    sessions=[
        SessionStatus(id=5, vhost="/", user="", node="n1", epoch=1, client={}, connected=True),
        SessionStatus(id=6, vhost="/", user="", node="n2", epoch=1, client={}, connected=True),
    ],
    queues=[
        QueueStatus(
            vhost="/",
            name='odd "name"\n',
            shard=1,
            durable=True,
            exclusive=False,
            auto_delete=False,
            ready=4,
            checked_out=2,
            consumers=1,
        )
    ],
)

Page = tuple[int, str, bytes]


@dataclass
class View:
    """Stands in for the engine."""

    state: tuple[bool, str] = (True, "")
    shown: NodeStatus = STATUS
    counters: Counters = field(default_factory=Counters)
    in_force: dict[str, int] = field(default_factory=lambda: {"queues_max": 2, "bindings_max": 3})
    deaf: int = 0  #: so many changes are lost on their way

    def limits(self) -> dict[str, int]:
        return self.in_force

    def change_limits(self, changes: Mapping[str, int]) -> str:
        if not changes.keys() <= self.in_force.keys():
            return "there is no such limit"
        self.deaf -= 1
        if self.deaf < 0:
            self.in_force = self.in_force | dict(changes)
        return ""

    def status(self) -> NodeStatus:
        return self.shown

    def readiness(self) -> tuple[bool, str]:
        return self.state


def ask(view: View, path: str, method: str = "GET", body: bytes | None = None) -> Page:
    async def one() -> Page:
        async with TestClient(TestServer(application(view))) as client:
            answer = await client.request(method, path, data=body)
            return answer.status, answer.content_type, await answer.read()

    return asyncio.run(one())


def scrape(view: View) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    status, kind, body = ask(view, "/metrics")
    assert (status, kind) == (200, "text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_a_node_without_a_quorum_is_healthy_and_says_why_it_is_not_ready() -> None:
    view = View(state=(False, "shard 0 has no leader"))
    assert ask(view, "/health")[0] == 200
    status, kind, body = ask(view, "/ready")
    assert (status, kind) == (503, "application/json")
    assert json.loads(body) == {"ready": False, "reason": "shard 0 has no leader"}


def test_a_ready_node() -> None:
    assert ask(View(), "/ready")[0] == 200


def test_status_survives_json() -> None:
    _, kind, body = ask(View(), "/status")
    assert kind == "application/json"
    assert decode_status(body) == STATUS
    assert decode_status(encode_status(STATUS)) == STATUS
    with pytest.raises(msgspec.DecodeError):
        decode_status(b"{}")


@pytest.mark.parametrize(
    ("method", "path", "code"), [("GET", "/nowhere", 404), ("POST", "/status", 405)]
)
def test_errors_are_json(method: str, path: str, code: int) -> None:
    status, kind, body = ask(View(), path, method)
    assert (status, kind) == (code, "application/json")
    assert path in json.loads(body)["error"]


def test_a_page_that_fails_does_not_show_its_inside() -> None:
    class Broken(View):
        def readiness(self) -> tuple[bool, str]:
            raise RuntimeError("secret")

    status, kind, body = ask(Broken(), "/ready")
    assert (status, kind) == (500, "application/json")
    assert b"secret" not in body


def test_every_counter_is_a_series_with_its_value() -> None:
    view = View()
    for number, name in enumerate(fields(Counters), start=1):
        setattr(view.counters, name.name, number)
    seen = scrape(view)
    for number, name in enumerate(fields(Counters), start=1):
        assert seen[f"raftmq_{name.name}_total", frozenset()] == number


def test_gauges_of_raft_queues_and_sessions() -> None:
    seen = scrape(View())
    queue = {("vhost", "/"), ("queue", 'odd "name"\n')}
    assert seen["raftmq_queue_messages", frozenset(queue | {("state", "ready")})] == 4
    assert seen["raftmq_queue_messages", frozenset(queue | {("state", "checked_out")})] == 2
    assert seen["raftmq_raft_is_leader", frozenset({("shard", "0")})] == 1
    assert seen["raftmq_raft_is_leader", frozenset({("shard", "1")})] == 0
    assert seen["raftmq_raft_has_leader", frozenset({("shard", "1")})] == 0
    assert seen["raftmq_raft_applied_index", frozenset({("shard", "0")})] == 8
    assert seen["raftmq_sessions", frozenset({("state", "connected")})] == 1
    assert seen["raftmq_peer_connected", frozenset({("peer", "n2")})] == 1


def test_queues_beyond_the_limit_have_no_series_and_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(metrics, "QUEUES_MAX", 2)
    queues = [
        msgspec.structs.replace(STATUS.queues[0], name=f"q{n}", ready=n, checked_out=0)
        for n in range(5)
    ]
    seen = scrape(View(shown=msgspec.structs.replace(STATUS, queues=queues)))
    depths = sorted(value for (name, _), value in seen.items() if name == "raftmq_queue_messages")
    assert depths == [0, 0, 3, 4]
    assert seen["raftmq_queues_without_series", frozenset()] == 3
    assert seen["raftmq_queues", frozenset()] == 5


def test_limits_are_shown_and_changed_and_the_answer_comes_when_they_are_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "LOOK_S", 0.001)
    view = View(deaf=1)
    assert json.loads(ask(view, "/cluster/limits")[2]) == {"queues_max": 2, "bindings_max": 3}
    status, _, body = ask(view, "/cluster/limits", "POST", b'{"queues_max": 5}')
    assert (status, json.loads(body)) == (200, {"queues_max": 5, "bindings_max": 3})


@pytest.mark.parametrize("body", [b"5", b'{"queues_max": "5"}', b"", b'{"shards": 5}'])
def test_a_wrong_limit_is_refused(body: bytes) -> None:
    status, _, answer = ask(View(), "/cluster/limits", "POST", body)
    assert status == 400
    assert json.loads(answer)["error"]


def test_a_change_that_nobody_takes_is_said_to_be_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "CHANGE_S", 0.1)
    status, _, answer = ask(View(deaf=99), "/cluster/limits", "POST", b'{"queues_max": 5}')
    assert status == 503
    assert "leader" in json.loads(answer)["error"]
