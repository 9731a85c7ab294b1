"""The node's HTTP side: is it alive, does it serve, what does it know, what has it counted.

    GET /health    200 while the process and its loop live; asks nothing of the cluster
    GET /ready     200 {"ready": true}, or 503 {"ready": false, "reason": "..."}
    GET /status    the node's `NodeStatus` as JSON
    GET /metrics   for Prometheus
    GET /cluster/limits    the limits in force, {"queues_max": 10000, ...}
    GET /cluster/members   the list of nodes, a `ClusterStatus`
    POST /cluster/add      {"node": "n4", "address": "10.0.0.4:7651"}
    POST /cluster/promote, /cluster/remove   {"node": "n4"}
    POST /cluster/limits   {"queues_max": 20000}: change some; answers when they are in force

What is posted is JSON, at most `BODY_BYTES_MAX`, and says so: a page of the web that a browser
has open cannot send it. There are no users: this port is for operators' networks.

Everything else is an error in JSON: {"error": "..."}. A node that waits for its quorum is
healthy and not ready: restarting it would not help.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry

from broker.changes import OK, Changes
from broker.config import split_address
from broker.errors import Code
from broker.metrics import CONTENT_TYPE, Counters, exposition, registry_for
from broker.status import ClusterStatus, NodeStatus, encode_cluster, encode_status

logger = logging.getLogger(__name__)

SHUTDOWN_S = 1.0
"""How long open HTTP connections may still be served when the node stops."""

CHANGE_S = 5.0
"""How long a change may take to be in force here."""
LOOK_S = 0.02
ATTEMPTS = 50
MEMBERS_S = 10.0
"""How long a change of the list of nodes may wait for an answer."""
ASK_AGAIN_S = 0.1
BODY_BYTES_MAX = 64 << 10


class NodeWish(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is posted to change the list of nodes."""

    node: str
    address: str = ""  #: host:port for peers; only to add


HTTP_STATUS = {
    Code.NOT_FOUND: 404,
    Code.PRECONDITION_FAILED: 409,
    Code.INVALID_ARGUMENT: 400,
}
_wish = msgspec.json.Decoder(NodeWish)
_changes = msgspec.json.Decoder(dict[str, int])
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class EngineView(Protocol):
    """What HTTP shows of a node."""

    @property
    def counters(self) -> Counters: ...

    def status(self) -> NodeStatus: ...

    def readiness(self) -> tuple[bool, str]:
        """Whether clients are served, and why not."""
        ...

    @property
    def changes(self) -> Changes:
        """What operators want changed in the list of nodes."""
        ...

    def members(self) -> ClusterStatus:
        """The list of nodes."""
        ...

    def limits(self) -> dict[str, int]:
        """The limits in force."""
        ...

    def change_limits(self, changes: Mapping[str, int]) -> str:
        """Ask for other limits; why not, or ""."""
        ...


async def start_web(engine_view: EngineView, host: str, port: int) -> web.AppRunner:
    """Serve in the running loop until the runner's `cleanup()`. OSError: cannot listen there."""
    runner = web.AppRunner(application(engine_view), access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
    except OSError:
        await runner.cleanup()
        raise
    return runner


def application(engine_view: EngineView) -> web.Application:
    """The application without a socket, as tests use it."""
    pages = _Pages(engine_view)
    app = web.Application(middlewares=[_json_errors, _json_posts], client_max_size=BODY_BYTES_MAX)
    app.router.add_get("/health", pages.health)
    app.router.add_get("/ready", pages.ready)
    app.router.add_get("/status", pages.status)
    app.router.add_get("/metrics", pages.metrics)
    app.router.add_get("/cluster/members", pages.members)
    for kind in ("add", "promote", "remove"):
        app.router.add_post(f"/cluster/{kind}", pages.change_members)
    app.router.add_get("/cluster/limits", pages.limits)
    app.router.add_post("/cluster/limits", pages.change_limits)
    return app


class _Pages:
    __slots__ = ("_registry", "_view")

    def __init__(self, view: EngineView) -> None:
        self._view = view
        self._registry: CollectorRegistry = registry_for(view)

    async def health(self, request: web.Request) -> web.Response:
        return _json({"alive": True})

    async def ready(self, request: web.Request) -> web.Response:
        ready, reason = self._view.readiness()
        if ready:
            return _json({"ready": True})
        return _json({"ready": False, "reason": reason}, status=503)

    async def status(self, request: web.Request) -> web.Response:
        return web.Response(
            body=encode_status(self._view.status()), content_type="application/json"
        )

    async def metrics(self, request: web.Request) -> web.Response:
        return web.Response(body=exposition(self._registry), headers={"Content-Type": CONTENT_TYPE})

    async def members(self, request: web.Request) -> web.Response:
        return web.Response(
            body=encode_cluster(self._view.members()), content_type="application/json"
        )

    async def change_members(self, request: web.Request) -> web.Response:
        kind = request.path.rpartition("/")[2]
        try:
            wish = _wish.decode(await request.read())
        except msgspec.DecodeError as error:
            return _json({"error": f"send the name of a node: {error}"}, status=400)
        host, port = split_address(wish.address)
        if (kind == "add") != bool(wish.address) or (wish.address and not host):
            text = f"address {wish.address!r}: give host:peer-port, as in 10.0.0.4:7651, to add"
            return _json({"error": text}, status=400)
        changes = self._view.changes
        number = changes.begin(kind, wish.node, host, port)
        try:
            for _ in range(int(MEMBERS_S / ASK_AGAIN_S)):
                verdict = changes.answer(number)
                if verdict is not None:
                    break
                await asyncio.sleep(ASK_AGAIN_S)
        finally:
            changes.end(number)
        if verdict is None:
            text = (
                f"no leader of shard 0 answered within {MEMBERS_S:g} s, and it may be done or "
                f"not: look at /cluster/members, then repeat"
            )
            return _json({"error": text}, status=503)
        if verdict.code == OK:
            return _json({"done": verdict.text})
        status = HTTP_STATUS.get(Code(verdict.code), 400)
        return _json({"error": verdict.text}, status=status)

    async def limits(self, request: web.Request) -> web.Response:
        return _json(self._view.limits())

    async def change_limits(self, request: web.Request) -> web.Response:
        try:
            changes = _changes.decode(await request.read())
        except msgspec.DecodeError as error:
            return _json({"error": f"send an object of limits and numbers: {error}"}, status=400)
        for attempt in range(int(CHANGE_S / LOOK_S)):
            # Asked again now and then: a leader that went took the question with it.
            if attempt % ATTEMPTS == 0 and (fault := self._view.change_limits(changes)):
                return _json({"error": fault}, status=400)
            await asyncio.sleep(LOOK_S)
            limits = self._view.limits()
            if changes.items() <= limits.items():
                return _json(limits)
        text = f"not in force after {CHANGE_S:g} s; has shard 0 a leader? Look again, and repeat"
        return _json({"error": text}, status=503)


@web.middleware
async def _json_posts(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Nothing but JSON may be posted: what a form in a browser could send is refused."""
    taken = request.match_info.http_exception is None
    if taken and request.method == "POST" and request.content_type != "application/json":
        return _json({"error": "post JSON, as content type application/json"}, status=415)
    return await handler(request)


@web.middleware
async def _json_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except web.HTTPException as error:
        answer = _json({"error": f"{error.reason}: {request.path}"}, status=error.status)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except Exception:
        # The edge of this task: a page that fails must not end the node, and must be seen.
        logger.exception("%s %s failed", request.method, request.path)
        return _json({"error": "this page failed; the node's log says why"}, status=500)


def _json(value: Mapping[str, bool | int | str], *, status: int = 200) -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json"
    )
