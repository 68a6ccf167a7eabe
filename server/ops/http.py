"""The HTTP application: its routes for probes and operators, and the form of all errors."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from http import HTTPStatus

import structlog
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from server import __version__
from server.config.redaction import redact
from server.ops.endpoint import ReadBody, TimeLimit
from server.ops.guard import Guard
from server.ops.health import HealthMonitor
from server.ops.problems import ApiError

NO_STORE = {"Cache-Control": "no-store"}

log = structlog.get_logger()


def probe_routes(unready: Callable[[], list[str]]) -> list[Route]:
    """Return the routes for load balancers, process managers and deployments.

    Arguments:
        unready: returns the reasons to send no client here now; empty if the server is ready.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    async def readyz(_: Request) -> Response:
        reasons = unready()
        body = {"status": "unready" if reasons else "ready", "reasons": reasons}
        return JSONResponse(body, 503 if reasons else 200, headers=NO_STORE)

    async def version(_: Request) -> Response:
        return JSONResponse({"name": "quotestream", "version": __version__}, headers=NO_STORE)

    return [Route("/healthz", healthz), Route("/readyz", readyz), Route("/version", version)]


def operator_routes(
    metrics_page: Callable[[str | None], Awaitable[str | None]],
    health: HealthMonitor,
    gets_details: Callable[[Scope], bool],
) -> list[Route]:
    """Return the routes for operators and their monitoring.

    Arguments:
        metrics_page: returns the page of all metrics, or of a named worker; None for an unknown one.
        gets_details: returns whether a request gets the details of `/health`. Errors: ApiError.
    """

    async def health_report(request: Request) -> Response:
        details = gets_details(request.scope)
        return JSONResponse(health.report(details=details), headers=NO_STORE)

    async def metrics(request: Request) -> Response:
        page = await metrics_page(request.query_params.get("worker"))
        if page is None:
            raise HTTPException(
                404, "no worker has this number; without `worker` you get all of them"
            )
        return Response(page, media_type=CONTENT_TYPE_LATEST, headers=NO_STORE)

    return [Route("/health", health_report), Route("/metrics", metrics)]


def build_http_app(
    routes: Sequence[Route], outer: Sequence[Middleware] = (), inner: Sequence[Middleware] = ()
) -> Starlette:
    """Return an application of `routes` behind the middleware `inner`. Errors have one form.

    The answers to errors pass the middleware `outer` too.
    """
    app = Starlette(
        routes=routes,
        exception_handlers={HTTPException: _error},
        middleware=[
            *outer,
            Middleware(Guard, answer=_error, escapable=_escapable(routes)),
            *inner,
            Middleware(TimeLimit),
            Middleware(ReadBody, routes=routes),
        ],
    )
    # A path with another ending is answered 404 and not redirected.
    app.router.redirect_slashes = False
    return app


def _escapable(routes: Sequence[Route]) -> list[str]:
    """Return the beginnings of the paths that end in a symbol. No other part needs an escape."""
    starts = (each.path.partition("{symbol") for each in routes)
    return [start for start, symbol, _ in starts if symbol]


_CODES = {404: "not_found", 405: "method_not_allowed"}


async def _error(_: HTTPConnection, error: Exception) -> Response:
    """Answer an error in the protocol's form."""
    if isinstance(error, HTTPException):
        status, headers = error.status_code, dict(error.headers or {})
        message = _message(error.detail, status, headers)
    else:
        log.error("request failed", exc_info=error)
        status, headers, message = 500, {}, "something went wrong here"
    code = error.code if isinstance(error, ApiError) else _CODES.get(status, "internal_error")
    body = {"error": {"code": code, "message": redact(message)}}
    return JSONResponse(body, status, headers=NO_STORE | headers)


def _message(detail: str, status: int, headers: Mapping[str, str]) -> str:
    """Return the words of an error. Starlette's own only repeat the status."""
    if detail != HTTPStatus(status).phrase:
        return detail
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        methods = sorted(each.strip() for each in headers["Allow"].split(","))
        return f"this path takes {' and '.join(methods)}"
    return "no route has this path; GET / names the routes" if status == 404 else detail
