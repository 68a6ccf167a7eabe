"""What every route of the API does alike: who may ask, its parameters, the shape of answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from random import uniform
from typing import Any, Literal, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.gateway.auth import Authenticator, BadToken, Identity
from server.gateway.refusals import MAX_RETRY, MIN_RETRY

ADMIN = "admin"
"""The token's role that may change the cache."""

_encode = msgspec.json.Encoder().encode


class Problem(NamedTuple):
    """`status` and what the description says about it."""

    status: int
    code: str
    text: str


BAD_REQUEST = Problem(400, "bad_request", "A parameter is missing or not allowed")
TOO_MANY_SYMBOLS = Problem(400, "too_many_symbols", "More symbols than one request may name")
UNAUTHORIZED = Problem(401, "unauthorized", "The token is missing or not valid")
FORBIDDEN = Problem(403, "forbidden", "The token has not the role that is needed")
UNKNOWN_SYMBOL = Problem(404, "unknown_symbol", "There is no such instrument")
STORE_UNAVAILABLE = Problem(503, "store_unavailable", "The store gives no answer; try again")


class ApiError(HTTPException):
    """A request that is answered with an error in the protocol's shape."""

    def __init__(self, problem: Problem, message: str) -> None:
        headers = {"Cache-Control": "no-store"}
        if problem is UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 §3
        if problem is STORE_UNAVAILABLE:
            headers["Retry-After"] = str(round(uniform(MIN_RETRY, MAX_RETRY)))
        super().__init__(problem.status, message, headers)
        self.code = problem.code


class Parameter(NamedTuple):
    """One parameter of a route: its schema's type, where it is, and an example."""

    name: str
    type: Any
    text: str
    example: Any
    place: Literal["query", "path"] = "query"
    default: Any = None


class Call(NamedTuple):
    """A request that was let in; `values` by parameter. `user` is None where anyone may ask.
    `headers` are the answer's, to which the handler may add.
    """

    user: Identity | None
    values: Mapping[str, Any]
    headers: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One route. `handle` returns what `result` describes.

    `role`: None for anyone, `user` for any good token, `admin` for one with that role. `cacheable`
    answers get an ETag, to be asked for again (RFC 9110 §8.8.3); others are not to be stored.
    `headers`: those that `handle` may add, each with what it means.
    """

    path: str
    method: Literal["GET", "POST", "DELETE"]
    summary: str
    handle: Callable[[Call], Awaitable[Any]]
    result: Any
    parameters: Sequence[Parameter] = ()
    problems: Sequence[Problem] = ()
    role: Literal["user", "admin"] | None = "user"
    cacheable: bool = False
    headers: Mapping[str, str] = field(default_factory=dict)

    def route(self, authenticator: Authenticator) -> Route:
        """For Starlette."""

        async def endpoint(request: Request) -> Response:
            user = _identify(request, authenticator, self.role) if self.role else None
            values = {each.name: _value(request, each) for each in self.parameters}
            call = Call(user, values, {})
            body = _encode(await self.handle(call))
            response = answer(request, body, "application/json", cacheable=self.cacheable)
            response.headers.update(call.headers)
            return response

        # A symbol may hold a slash, which arrives here unescaped.
        path = self.path.replace("{symbol}", "{symbol:path}")
        return Route(path, endpoint, methods=[self.method])


def answer(
    request: Request, body: bytes, media_type: str, *, cacheable: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:  # fmt: skip
    """The body with `headers` beside its own, or 304 if the client has it."""
    headers = headers or {}
    if not cacheable:
        headers = {"Cache-Control": "no-store", **headers}
        return Response(body, media_type=media_type, headers=headers)
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {
        "ETag": tag, "Cache-Control": "private, no-cache", "Vary": "Authorization", **headers
    }  # fmt: skip
    known = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    if {tag, f"W/{tag}", "*"} & set(known):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def asks_as_admin(request: Request, authenticator: Authenticator) -> bool:
    """Whether the request's token has the role `admin`; False without a token. Errors: ApiError."""
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    if scheme.lower() != "bearer":
        return False
    return _identify(request, authenticator, "user").role == ADMIN


def _identify(request: Request, authenticator: Authenticator, role: str) -> Identity:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise ApiError(UNAUTHORIZED, "a token is required: Authorization: Bearer <JWT>")
    try:
        identity = authenticator.verify(token.strip())
    except BadToken as error:
        raise ApiError(UNAUTHORIZED, str(error)) from None
    if role == ADMIN and identity.role != ADMIN:
        raise ApiError(FORBIDDEN, "this needs a token with the role admin")
    return identity


def _value(request: Request, parameter: Parameter) -> Any:
    if parameter.place == "path":
        return request.path_params[parameter.name]
    given = request.query_params.getlist(parameter.name)
    if not given:
        if parameter.default is None:
            raise ApiError(
                BAD_REQUEST, f"{parameter.name}: missing, for instance {parameter.example}"
            )
        return parameter.default
    try:
        return msgspec.convert(",".join(given), parameter.type, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(BAD_REQUEST, f"{parameter.name}: {error}") from None
