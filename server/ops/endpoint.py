"""The parts that all routes of the API share: admission, parameters and answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from math import isfinite
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

import msgspec
from msgspec import Meta
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from server.gateway.auth import Identity
from server.ops.admission import USER, Gate
from server.ops.problems import (
    BAD_REQUEST,
    FORBIDDEN,
    RATE_LIMITED,
    TOO_LARGE,
    UNAUTHORIZED,
    UNSUPPORTED,
    ApiError,
    Problem,
)
from server.store.loader import Payer, TooManyLookups

BODY = "quotestream.body"
"""The key, in a request's scope, of the function that waits for the request's body and returns it. Only
requests with a body have it.
"""

TIME_OUT = "quotestream.time_out"
"""The key, in a request's scope, of the cancel scope with the application's time for its answer."""

UNCOMPRESSED, GZIP = ("", "identity"), ("gzip", "x-gzip")
"""The encodings of bodies that are read (RFC 9110 §8.4.1)."""

_encode = msgspec.json.Encoder().encode


class EarlyRoute(Route):
    """A route that gets a request before its body. So it refuses a request without reading the body."""


class ReadBody:
    """ASGI middleware that waits for the body of a request to any route that is not an EarlyRoute."""

    def __init__(self, app: ASGIApp, routes: Sequence[Route]) -> None:
        self._app = app
        self._late = [each for each in routes if not isinstance(each, EarlyRoute)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Errors: ApiError."""
        if BODY in scope and any(route.matches(scope)[0] is not Match.NONE for route in self._late):
            await read_body(scope)
        await self._app(scope, receive, send)


class TimeLimit:
    """ASGI middleware that gives up a request whose time is over."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Errors: HTTPException if it takes too long."""
        with scope[TIME_OUT] as time_out:
            await self._app(scope, receive, send)
        if time_out.cancelled_caught:
            raise HTTPException(500, "the server found no answer in time")


async def read_body(scope: Scope) -> bytes:
    """Return the body of a request, when all of it is here. Errors: ApiError."""
    if BODY not in scope:
        return b""
    body: bytes = await scope[BODY]()
    return body


class Parameter(NamedTuple):
    """One parameter of a route, with its schema's type, its place and an example."""

    name: str
    type: Any
    text: str
    example: Any
    place: Literal["query", "path", "header"] = "query"
    default: Any = None


def limit(most: int, default: int, text: str = "How many to return") -> Parameter:
    """Return the parameter that bounds a list."""
    kind = Annotated[int, Meta(ge=1, le=most)]
    return Parameter("limit", kind, text, default, default=default)


class Call(NamedTuple):
    """An admitted request, with its values by parameter.

    `payer` pays for the user's lookups. On routes without tokens, `payer` and `user` are None. The
    handler may add to the answer's `headers`. `body` is as the client sent it, in `encoding`, one of
    UNCOMPRESSED and GZIP.
    `address` is the client's.
    """

    user: Identity | None
    payer: Payer | None
    values: Mapping[str, Any]
    headers: dict[str, str]
    body: bytes = b""
    encoding: str = ""
    address: str = ""

    def pay(self, lookups: float) -> None:
        """Take lookups from the user's budget. Errors: TooManyLookups."""
        if self.payer and (wait := self.payer.pay(lookups)):
            raise TooManyLookups(wait)


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One route. `handle` returns a value of the type `result`, or one of `others`.

    `role`: None for requests without a token, `user` for any valid token, another one for a token with
    that role. `problems`: those beside the ones that follow from the role and the body. `takes`: the
    type of the body's objects, if the route reads a body. A `cacheable` answer gets an ETag (RFC 9110
    §8.8.3); clients must not store other answers. `headers` describes the
    headers that `handle` may add. If it sets Cache-Control itself, the answer has no ETag.
    `takes_file`: the media type of a file that the body is.
    `token_in_url`: a client that cannot set headers may give the token as the parameter `token`, or in
    the path behind its first part: `/udf/TOKEN/config`.
    """

    path: str
    method: Literal["GET", "POST", "DELETE"]
    summary: str
    handle: Callable[[Call], Awaitable[Any]]
    result: Any
    parameters: Sequence[Parameter] = ()
    problems: Sequence[Problem] = ()
    role: Literal["user", "admin", "publisher"] | None = "user"
    takes: Any = None
    cacheable: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)
    others: Sequence[Any] = ()
    token_in_url: bool = False
    takes_file: str = ""

    @property
    def every_problem(self) -> list[Problem]:
        """Return all kinds of errors that the route answers with."""
        found = [BAD_REQUEST, RATE_LIMITED, *self.problems]
        if self.role:
            found.append(UNAUTHORIZED)
        if self.role not in (None, USER):
            found.append(FORBIDDEN)
        if self.takes or self.takes_file:
            found += [TOO_LARGE, UNSUPPORTED]
        return found

    def routes(self, gate: Gate, *, open_to_all: bool = False) -> list[Route]:
        """Return the routes for Starlette, with admission by `gate`.

        Arguments:
            open_to_all: only operators reach the port. They need no token, but may name themselves by
                one.
        """

        async def endpoint(request: Request) -> Response:
            call = self._admitted(request, gate, open_to_all)
            body = await read_body(request.scope)
            return await self._respond(request, call._replace(body=body))

        # A symbol may contain a slash, which arrives here unescaped.
        path = self.path.replace("{symbol}", "{symbol:path}")
        paths = [path]
        if self.token_in_url:
            _, first, rest = path.split("/", 2)
            paths.append(f"/{first}/{{token}}/{rest}")
        return [EarlyRoute(each, endpoint, methods=[self.method]) for each in paths]

    def _admitted(self, request: Request, gate: Gate, open_to_all: bool) -> Call:
        """Return a request that may be handled, still without its body, and charge its user.

        Errors: ApiError.
        """
        user = None
        if open_to_all:
            user = gate.operator(request.scope, self.method)
        elif self.role:
            token = _token(request) if self.token_in_url else ""
            user = gate.admit(request.scope, self.role, token)
        values = {each.name: _value(request, each) for each in self.parameters}
        payer = None
        if user:
            gate.charge_symbols(user, str(values.get("symbols", "")).count(",") + 1)
            payer = gate.budgets.request_payer(user.user)
        encoding = "".join(_header(request, "Content-Encoding")).strip().lower()
        if (self.takes or self.takes_file) and encoding not in (*UNCOMPRESSED, *GZIP):
            message = "send the body as it is, or with Content-Encoding: gzip"
            raise ApiError(UNSUPPORTED, message)
        return Call(user, payer, values, {}, b"", encoding, gate.address(request.scope))

    async def _respond(self, request: Request, call: Call) -> Response:
        """Handle a request. Errors: ApiError."""
        try:
            body = _encode(await self.handle(call))
        except TooManyLookups as error:
            raise ApiError(RATE_LIMITED, str(error), error.wait) from None
        cacheable = self.cacheable and "Cache-Control" not in call.headers
        response = answer(request, body, "application/json", cacheable=cacheable)
        response.headers.update(call.headers)
        return response


def answer(
    request: Request,
    body: bytes,
    media_type: str,
    *,
    cacheable: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Return an answer with further `headers`, or 304 if the client already has the same body."""
    if not cacheable:
        all_headers = {"Cache-Control": "no-store", **(headers or {})}
        return Response(body, media_type=media_type, headers=all_headers)
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    caching = {"ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization"}
    all_headers = {**caching, **(headers or {})}
    known = {each.strip() for each in request.headers.get("if-none-match", "").split(",")}
    if {tag, f"W/{tag}", "*"} & known:
        return Response(status_code=304, headers=all_headers)
    return Response(body, media_type=media_type, headers=all_headers)


def _token(request: Request) -> str:
    """Return the token in a request's URL, an empty text without one."""
    return str(request.path_params.get("token") or request.query_params.get("token", "")).strip()


def _header(request: Request, name: str) -> list[str]:
    """Return the value of a header, [] if it is missing. Errors: ApiError if it comes twice. HTTP would
    join the values to one (RFC 9110 §5.3) that the client did not mean.
    """
    given = request.headers.getlist(name)
    if len(given) > 1:
        raise ApiError(BAD_REQUEST, f"{name}: send this header once")
    return given


def _value(request: Request, parameter: Parameter) -> Any:
    if parameter.place == "path":
        return request.path_params[parameter.name]
    if parameter.place == "header":
        given = _header(request, parameter.name)
    else:
        given = request.query_params.getlist(parameter.name)
    if not given:
        if parameter.default is None:
            raise ApiError(
                BAD_REQUEST, f"{parameter.name}: missing, for instance {parameter.example}"
            )
        return parameter.default
    try:
        value = msgspec.convert(",".join(given), parameter.type, strict=False)
    except msgspec.ValidationError:
        raise ApiError(BAD_REQUEST, f"{parameter.name}: not {_allowed(parameter.type)}") from None
    if isinstance(value, float) and not isfinite(value):
        raise ApiError(BAD_REQUEST, f"{parameter.name}: not a finite number")
    return value


def _allowed(kind: Any) -> str:
    """Return the values of a parameter's type in words."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is bool:
        return "true or false"
    if kind is float:
        return "a number"
    bounds = kind.__metadata__[0] if hasattr(kind, "__metadata__") else Meta()
    if get_args(kind)[:1] == (int,):
        return f"a whole number from {bounds.ge} to {bounds.le}"
    characters = "printable ASCII characters" if bounds.pattern else "characters"
    return f"a text of {bounds.min_length or 0} to {bounds.max_length} {characters}"
