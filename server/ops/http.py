"""The HTTP application: its routes for probes and operators, and the one shape of errors."""

from collections.abc import Awaitable, Callable, Sequence

from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from server.ops.health import HealthMonitor
from server.ops.problems import ApiError

NO_STORE = {"Cache-Control": "no-store"}


def probe_routes(unready: Callable[[], list[str]]) -> list[Route]:
    """What load balancers and process managers ask.

    Arguments:
        unready: the reasons why no client should be sent here now; none if one should.
    """

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=NO_STORE)

    async def readyz(_: Request) -> Response:
        reasons = unready()
        body = {"status": "unready" if reasons else "ready", "reasons": reasons}
        return JSONResponse(body, 503 if reasons else 200, headers=NO_STORE)

    return [Route("/healthz", healthz), Route("/readyz", readyz)]


def operator_routes(
    metrics_page: Callable[[str | None], Awaitable[str | None]], health: HealthMonitor
) -> list[Route]:
    """What operators and their monitoring ask.

    Arguments:
        metrics_page: what `/metrics` shows, of one worker if it is named; None if there is no such one.
    """

    async def health_report(_: Request) -> Response:
        return JSONResponse(health.report(), headers=NO_STORE)

    async def metrics(request: Request) -> Response:
        page = await metrics_page(request.query_params.get("worker"))
        if page is None:
            raise HTTPException(404, "there is no such worker")
        return Response(page, media_type=CONTENT_TYPE_LATEST)

    return [Route("/health", health_report), Route("/metrics", metrics)]


def build_http_app(routes: Sequence[Route]) -> Starlette:
    """An application of `routes`, whose errors have the protocol's one shape."""
    app = Starlette(routes=routes, exception_handlers={HTTPException: _error, Exception: _error})
    app.router.redirect_slashes = False  # another path is not found, it does not redirect
    return app


_CODES = {404: "not_found", 405: "method_not_allowed", 503: "unavailable"}


async def _error(_: Request, error: Exception) -> Response:
    """Every error in the one shape of the protocol."""
    if isinstance(error, HTTPException):
        status, message, headers = error.status_code, error.detail, error.headers
    else:
        status, message, headers = 500, "something went wrong here", None
    code = error.code if isinstance(error, ApiError) else _CODES.get(status, "internal_error")
    body = {"error": {"code": code, "message": message}}
    return JSONResponse(body, status, headers=headers)
