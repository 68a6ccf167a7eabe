"""Serves the files for browsers: the pages `/` and `/ops`, their modules, and `quotes.js`.

A page may load only this server's own files. It may connect only to this server's two ports.
"""

import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import __version__
from server.gateway.addresses import is_loopback
from server.ops.admission import is_of_own_page
from server.ops.endpoint import answer

MEDIA_TYPES = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "json": "application/json",
    "png": "image/png",
    "svg": "image/svg+xml",
    "ts": "text/plain",
    "txt": "text/plain",
    "woff2": "font/woff2",
}
"""The endings of the files that are served."""

FOLDER = Path(__file__).parents[1] / "web"

STREAM = "/ws/quotes"

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'{stream}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The addresses that a page may load and reach (Content Security Policy Level 3)."""

LOOPBACK = {"localhost", "127.0.0.1", "[::1]"}
"""Names under which a browser of this machine finds a development server. A page of another name may
belong to somebody who let the name point here (DNS rebinding).
"""

FORWARDED = ("x-forwarded-for", "x-real-ip")
"""Headers in which a proxy of this machine names the client: somebody else may reach it."""

_HOST = re.compile(r"(?P<name>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})")
"""A `Host` header with a port that can be part of a policy (RFC 9110 §7.2)."""


class PageConfig(msgspec.Struct, frozen=True):
    """The values that a page must know. `stream`: the address of `/ws/quotes`, relative behind a proxy.
    `token`: one of the development secret, or None. `prices`: the names of the feeds, such as
    `simulator`. `has_operators`: `/docs` and `/ops` are on the page's port.
    """

    version: str
    stream: str
    token: str | None
    prices: Sequence[str]
    has_operators: bool


class Web:
    """The pages and their configuration.

    Arguments:
        http_port, stream_port: of this server. A page of another port came through a proxy, which then
            also leads to `/ws/quotes`.
        development_token: makes a token with a role for a page, None with a secret of the operator's.
        feeds: names of the sources of prices. A page tells if they are not today's.
        has_operators: the operators' pages have no port of their own.
    """

    def __init__(
        self,
        http_port: int,
        stream_port: int,
        development_token: Callable[[str | None], str] | None = None,
        feeds: Sequence[str] = (),
        *,
        has_operators: bool = True,
    ) -> None:
        self._http_port = http_port
        self._stream_port = stream_port
        self._development_token = development_token
        self._feeds = feeds
        self._has_operators = has_operators

    def page(self, path: str, request: Request) -> Response:
        """Return the page in the file `path`."""
        stream = self._stream(request)
        origin = "" if stream == STREAM else f" {stream.removesuffix(STREAM)}"
        headers = {
            "Content-Security-Policy": POLICY.format(stream=origin),
            "Referrer-Policy": "no-referrer",
            "Vary": "Accept, Host",
        }
        return file_answer(request, path, headers)

    async def config(self, request: Request) -> Response:
        """Answer with the configuration. Only the own page, in a browser of this machine, gets a
        development token; with `role=admin` it is one for `/ops`.
        """
        role = "admin" if request.query_params.get("role") == "admin" else None
        token = None
        if self._development_token and _is_here(request):
            token = self._development_token(role)
        stream = self._stream(request)
        config = PageConfig(__version__, stream, token, self._feeds, self._has_operators)
        body = msgspec.json.encode(config)
        return answer(request, body, "application/json", cacheable=False)

    def _stream(self, request: Request) -> str:
        host = _HOST.fullmatch(request.headers.get("host", ""))
        if host and host["port"] == str(self._http_port):
            return f"ws://{host['name']}:{self._stream_port}{STREAM}"
        return STREAM


def _is_here(request: Request) -> bool:
    """Return whether this server's own page asks, in a browser of this machine.

    HTTP_ALLOWED_ORIGINS may let pages of other sites read answers, but none of them gets a token.
    """
    headers = request.headers
    host = _HOST.fullmatch(headers.get("host", ""))
    hops = [hop for name in FORWARDED for each in headers.getlist(name) for hop in each.split(",")]
    return (
        host is not None
        and host["name"].lower() in LOOPBACK
        and is_of_own_page(headers)
        # A proxy may give its target as `Host`. By default, nginx does, in HTTP/1.0 as no browser.
        and request.scope["http_version"] != "1.0"
        and not {"forwarded", "via"} & {*headers}
        and all(map(is_loopback, hops))
    )


def asset_routes(web: Web) -> list[Route]:
    """Return the routes of what pages load."""

    async def file(request: Request) -> Response:
        path = request.path_params["path"]
        # Only its own route gives a page its policy. Without it, another site could show it in a frame.
        if path.endswith(".html"):
            raise HTTPException(404)
        return file_answer(request, path)

    async def client(request: Request) -> Response:
        return file_answer(request, "quotes.js")

    return [
        Route("/quotes.js", client),
        Route("/web/config.json", web.config),
        Route("/web/{path:path}", file),
    ]


def page_route(path: str, page: str, web: Web) -> Route:
    """Return the route `path`, which answers with a page."""

    async def ask(request: Request) -> Response:
        return web.page(page, request)

    return Route(path, ask)


@cache
def _files() -> dict[str, bytes]:
    """Return each file that is served, by its path below `server/web`."""
    return {
        each.relative_to(FOLDER).as_posix(): each.read_bytes()
        for each in FOLDER.rglob("*")
        if each.suffix[1:] in MEDIA_TYPES
    }


def file_answer(request: Request, path: str, headers: dict[str, str] | None = None) -> Response:
    """Answer with a file, or 304. Errors: HTTPException."""
    body = _files().get(path)
    if body is None:
        raise HTTPException(404)
    kind = MEDIA_TYPES[path.rpartition(".")[2]]
    return answer(request, body, kind, cacheable=True, headers=headers)
