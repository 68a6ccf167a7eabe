"""The HTTP application on the second port, for operators: health and metrics."""

import logging
import socket
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

import hypercorn.trio
import structlog
import trio
from hypercorn.config import Config
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from server.gateway.auth import Authenticator
from server.gateway.sockets import ignore_new
from server.ops.endpoint import ApiError, asks_as_admin
from server.ops.guard import Guard
from server.ops.health import HealthMonitor
from server.redaction import redact

GRACEFUL_TIMEOUT = 3.0
"""Seconds a request in progress may take at a shutdown: as long as any takes."""

CANCEL_TIME = 0.25
"""Seconds in which Hypercorn ends what has had that."""

KEEP_ALIVE_TIMEOUT = 15.0
"""Seconds an idle HTTP connection is kept: a scrape interval."""

MAX_HEAD = 64 * 1024
"""Bytes of a request's head: the longest list of symbols with every character escaped."""

log = structlog.get_logger()

NO_STORE = {"Cache-Control": "no-store"}


def build_http_app(
    metrics_page: Callable[[str | None], Awaitable[str | None]],
    unready: Callable[[], list[str]],
    health: HealthMonitor,
    routes: Sequence[Route] = (),
    *,
    authenticator: Authenticator,
    open_details: bool = False,
) -> Starlette:
    """The operators' routes and, behind them, `routes`.

    Arguments:
        metrics_page: what `/metrics` shows, of one worker if it is named; None if there is no such one.
        unready: the reasons why no client should be sent here now; none if one should.
        authenticator: tells whether a token of role `admin` asks for the details of `/health`.
        open_details: `/health` gives its details to all, for a listener that only operators reach.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    async def readyz(_: Request) -> Response:
        reasons = unready()
        body = {"status": "unready" if reasons else "ready", "reasons": reasons}
        return JSONResponse(body, 503 if reasons else 200, headers=NO_STORE)

    async def health_report(request: Request) -> Response:
        details = open_details or asks_as_admin(request, authenticator)
        return JSONResponse(health.report(details=details), headers=NO_STORE)

    async def metrics(request: Request) -> Response:
        page = await metrics_page(request.query_params.get("worker"))
        if page is None:
            raise HTTPException(404, "there is no such worker")
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    app = Starlette(
        routes=[
            Route("/healthz", healthz),
            Route("/readyz", readyz),
            Route("/health", health_report),
            Route("/metrics", metrics),
            *routes,
            WebSocketRoute("/{path:path}", _refuse_websocket),
        ],
        exception_handlers={HTTPException: _error},
        middleware=[Middleware(Guard, answer=_error, escapable=_escapable(routes))],
    )
    app.router.redirect_slashes = False  # another path is not found, it does not redirect
    return app


def _escapable(routes: Sequence[Route]) -> list[str]:
    """The beginnings of the paths that end in a parameter."""
    return [start for start, brace, _ in (each.path.partition("{") for each in routes) if brace]


_CODES = {404: "not_found", 405: "method_not_allowed", 503: "unavailable"}


async def _error(_: HTTPConnection, error: Exception) -> Response:
    """Every error in the one shape of the protocol."""
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, error.detail, error.headers
    else:
        log.error("request failed", exc_info=error)
        status, message, headers = 500, "something went wrong here", None
    code = error.code if isinstance(error, ApiError) else _CODES.get(status, "internal_error")
    body = {"error": {"code": code, "message": redact(message)}}
    return JSONResponse(body, status, headers=headers)


async def _refuse_websocket(websocket: WebSocket) -> None:
    """An upgrade is answered like a request for what is not there."""
    error = HTTPException(404, "no WebSocket here, quotes are streamed on the other port")
    await websocket.send_denial_response(await _error(websocket, error))


class HttpServer:
    """Serves `app` on `listeners`, which Hypercorn closes. `run` is called once."""

    def __init__(self, app: Starlette, listeners: Sequence[socket.socket]) -> None:
        self._app = app
        self._ports = [listener.dup() for listener in listeners]
        self._stopping = trio.Event()
        self._stopped = trio.Event()
        self._config = config = Config()
        config.bind = [f"fd://{listener.detach()}" for listener in listeners]
        config.h11_max_incomplete_size = MAX_HEAD
        config.accesslog = None
        config.errorlog = logging.getLogger("hypercorn.error")
        config.graceful_timeout = GRACEFUL_TIMEOUT
        config.keep_alive_timeout = KEEP_ALIVE_TIMEOUT
        config.include_server_header = False

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until stopped."""
        stop = self._stopping.wait
        async with trio.open_nursery() as nursery:
            await nursery.start(
                partial(hypercorn.trio.serve, self._app, self._config, shutdown_trigger=stop)  # type: ignore[arg-type]  # Starlette's
            )
            task_status.started()
        self._stopped.set()

    def leave(self) -> None:
        """Leave new connections to those who share the port. Of those there are, the next answer is the
        last, and says so (RFC 9112 §9.6): then no request meets a connection that is just closing.
        """
        self._config.keep_alive_max_requests = 0
        for port in self._ports:
            ignore_new(port)

    async def stop(self) -> None:
        """Close the port and idle connections, and return when what was asked is answered, or has had
        its time: a client that does not read holds Hypercorn up, and nobody else.
        """
        self._config.keep_alive_max_requests = 0
        for port in self._ports:
            port.close()
        self._stopping.set()
        with trio.move_on_after(GRACEFUL_TIMEOUT + CANCEL_TIME):
            await self._stopped.wait()
