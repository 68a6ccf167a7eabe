"""A boundary around the HTTP application, which every request passes before any route."""

from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import unquote

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.gateway.target import split_target

NOSNIFF = "X-Content-Type-Options", "nosniff"
"""Tells browsers to trust an answer's media type: JSON must not run as a page or script."""

_ANSWERS = ("http.response.start", "websocket.http.response.start")


class Guard:
    """Passes exact paths on to `app`, answers its failures, and adds NOSNIFF to each answer.

    Arguments:
        answer: makes the answer to a failed request.
        escapable: beginnings of paths whose rest may contain %-escapes, such as a symbol.
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
            # Once an answer has begun, the connection can only be cut.
            if started or scope["type"] != "http":
                raise
            response = await self._answer(HTTPConnection(scope), error)
            await response(scope, receive, send_guarded)

    def _exact(self, scope: Scope) -> Scope:
        """Return the scope with an exact path. Errors: HTTPException.

        Starlette's routes would also accept a path that ends in a line feed, and they see only the
        decoded path.
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
