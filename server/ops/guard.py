"""What every request to the HTTP port passes before any route: one boundary around the application."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.gateway.target import split_target

NOSNIFF = "X-Content-Type-Options", "nosniff"
"""Has a browser take each answer for what it says it is: no JSON for a page or script."""

_ANSWERS = ("http.response.start", "websocket.http.response.start")


class Guard:
    """Lets exact paths through to `app`, answers its failures, and adds NOSNIFF to each answer.

    Arguments:
        answer: makes the answer to a request that failed.
        escapable: the beginnings of those paths whose rest may hold %-escapes, as a symbol's may.
    """

    def __init__(
        self,
        app: ASGIApp,
        answer: Callable[[HTTPConnection, Exception], Awaitable[Response]],
        escapable: Sequence[str],
    ) -> None:
        self._app = app
        self._answer = answer
        self._escapable = tuple(escapable)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        started = False

        async def send_guarded(message: Message) -> None:
            nonlocal started
            if message["type"] in _ANSWERS:
                started = True
                MutableHeaders(scope=message)[NOSNIFF[0]] = NOSNIFF[1]
            await send(message)

        try:
            await self._app(self._exact(scope), receive, send_guarded)
        except Exception as error:
            if started or scope["type"] != "http":
                raise  # the connection can only be cut
            response = await self._answer(HTTPConnection(scope), error)
            await response(scope, receive, send_guarded)

    def _exact(self, scope: Scope) -> Scope:
        """The scope of a path that can be one of ours. Errors: HTTPException.

        Starlette's routes also take a path that ends in a line feed, and see only decoded paths.
        """
        raw, path = scope.get("raw_path"), scope["path"]
        if raw is not None:
            written, _ = split_target(raw.decode("latin-1"))
            if "%" in written and not written.startswith(self._escapable):
                raise HTTPException(404)
            path = unquote(written)
        if not path.startswith("/") or not path.isprintable():
            raise HTTPException(404)
        return {**scope, "path": path}
