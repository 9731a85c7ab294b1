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
from broker.changes import OK, Verdict
from broker.errors import Code
from broker.metrics import Counters
from broker.status import (
    ClusterStatus,
    MemberStatus,
    NodeStatus,
    PeerStatus,
    QueueStatus,
    SessionStatus,
    ShardStatus,
    decode_cluster,
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


CLUSTER = ClusterStatus(
    version=3,
    settled=False,
    moving=[1],
    nodes=[
        MemberStatus(
            node="n1",
            address="h:7651",
            state="member",
            known=True,
            connected=True,
            votes=[0, 1, 2],
            learns=[],
        )
    ],
)


@dataclass
class Operator:
    """Stands in for `Changes`: the answer comes when it has been asked for often enough."""

    verdict: Verdict = field(default_factory=lambda: Verdict(OK, "so it is"))
    deaf: int = 0
    wishes: list[tuple[str, str, str, int]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)

    def begin(self, kind: str, node: str, host: str, port: int) -> int:
        self.wishes.append((kind, node, host, port))
        return len(self.wishes)

    def answer(self, number: int) -> Verdict | None:
        self.deaf -= 1
        return self.verdict if self.deaf < 0 else None

    def end(self, number: int) -> None:
        self.ended.append(number)


@dataclass
class View:
    """Stands in for the engine."""

    state: tuple[bool, str] = (True, "")
    shown: NodeStatus = STATUS
    counters: Counters = field(default_factory=Counters)
    in_force: dict[str, int] = field(default_factory=lambda: {"queues_max": 2, "bindings_max": 3})
    operator: Operator = field(default_factory=lambda: Operator())
    deaf: int = 0  #: so many changes are lost on their way

    @property
    def changes(self) -> Operator:
        return self.operator

    def members(self) -> ClusterStatus:
        return CLUSTER

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


def ask(
    view: View,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    kind: str = "application/json",
) -> Page:
    headers = {} if body is None else {"Content-Type": kind}

    async def one() -> Page:
        async with TestClient(TestServer(application(view))) as client:
            answer = await client.request(method, path, data=body, headers=headers)
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


def test_the_list_of_nodes_survives_json() -> None:
    status, kind, body = ask(View(), "/cluster/members")
    assert (status, kind) == (200, "application/json")
    assert decode_cluster(body) == CLUSTER


@pytest.mark.parametrize(
    ("kind", "body", "wish"),
    [
        ("add", b'{"node": "n4", "address": "[::1]:7651"}', ("add", "n4", "::1", 7651)),
        ("promote", b'{"node": "n4"}', ("promote", "n4", "", 0)),
        ("remove", b'{"node": "n4"}', ("remove", "n4", "", 0)),
    ],
)
def test_a_change_of_the_list_is_asked_for_until_it_is_answered(
    kind: str, body: bytes, wish: tuple[str, str, str, int]
) -> None:
    view = View(operator=Operator(deaf=2))
    status, _, answer = ask(view, f"/cluster/{kind}", "POST", body)
    assert (status, json.loads(answer)) == (200, {"done": "so it is"})
    assert view.operator.wishes == [wish]
    assert view.operator.ended == [1]


@pytest.mark.parametrize(
    ("code", "status"),
    [(Code.PRECONDITION_FAILED, 409), (Code.NOT_FOUND, 404), (Code.INVALID_ARGUMENT, 400)],
)
def test_a_refused_change_says_why_with_a_status_of_its_own(code: Code, status: int) -> None:
    view = View(operator=Operator(Verdict(code, "start n3 first")))
    answered, _, body = ask(view, "/cluster/remove", "POST", b'{"node": "n2"}')
    assert (answered, json.loads(body)) == (status, {"error": "start n3 first"})


def test_a_change_that_nobody_answers_may_be_done_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "MEMBERS_S", 0.3)
    view = View(operator=Operator(deaf=99))
    status, _, body = ask(view, "/cluster/remove", "POST", b'{"node": "n2"}')
    assert status == 503
    assert b"look at /cluster/members" in body
    assert view.operator.ended == [1]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/cluster/add", b'{"node": "n4"}'),
        ("/cluster/add", b'{"node": "n4", "address": "nowhere"}'),
        ("/cluster/add", b'{"node": "n4", "address": "h:70000"}'),
        ("/cluster/remove", b'{"node": "n4", "address": "h:1"}'),
        ("/cluster/remove", b'{"node": 4}'),
        ("/cluster/remove", b'{"name": "n4"}'),
        ("/cluster/promote", b"n4"),
    ],
)
def test_a_wrong_wish_is_refused_and_asked_of_nobody(path: str, body: bytes) -> None:
    view = View()
    assert ask(view, path, "POST", body)[0] == 400
    assert view.operator.wishes == []


def test_only_json_may_be_posted_and_not_much_of_it() -> None:
    """What a form on a page of the web could send must not change a cluster."""
    view, body = View(), b'{"node": "n2"}'
    assert ask(view, "/cluster/remove", "POST", body, "text/plain")[0] == 415
    form = "application/x-www-form-urlencoded"
    assert ask(view, "/cluster/limits", "POST", b'{"queues_max": 5}', form)[0] == 415
    assert ask(view, "/cluster/remove", "POST", b'{"node": "' + b"n" * (1 << 17) + b'"}')[0] == 413
    assert view.operator.wishes == []
