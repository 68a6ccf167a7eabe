"""What every route of the API does alike: who may ask, its parameters, the shape of answers."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.gateway.auth import Identity
from server.ops.admission import Gate
from server.ops.problems import BAD_REQUEST, RATE_LIMITED, ApiError, Problem
from server.store.loader import Payer, TooManyLookups

_encode = msgspec.json.Encoder().encode


class Parameter(NamedTuple):
    """One parameter of a route: its schema's type, where it is, and an example."""

    name: str
    type: Any
    text: str
    example: Any
    place: Literal["query", "path"] = "query"
    default: Any = None


class Call(NamedTuple):
    """A request that was let in; `values` by parameter. `user` and `payer`, for whom symbols are looked
    up, are None where anyone may ask. `headers` are the answer's, to which the handler may add.
    """

    user: Identity | None
    payer: Payer | None
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

    def route(self, gate: Gate) -> Route:
        """For Starlette."""

        async def endpoint(request: Request) -> Response:
            user = gate.admit(request.scope, self.role) if self.role else None
            values = {each.name: _value(request, each) for each in self.parameters}
            payer = None
            if user:
                gate.charge_symbols(user, str(values.get("symbols", "")).count(",") + 1)
                payer = gate.budgets.payer(user.user)
            call = Call(user, payer, values, {})
            try:
                body = _encode(await self.handle(call))
            except TooManyLookups as error:
                raise ApiError(RATE_LIMITED, str(error), error.wait) from None
            response = answer(request, body, "application/json", cacheable=self.cacheable)
            response.headers.update(call.headers)
            return response

        # A symbol may hold a slash, which arrives here unescaped.
        path = self.path.replace("{symbol}", "{symbol:path}")
        return Route(path, endpoint, methods=[self.method])


def answer(
    request: Request,
    body: bytes,
    media_type: str,
    *,
    cacheable: bool,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """The body with `headers` beside its own, or 304 if the client has it."""
    headers = headers or {}
    if not cacheable:
        headers = {"Cache-Control": "no-store", **headers}
        return Response(body, media_type=media_type, headers=headers)
    tag = f'"{blake2b(body, digest_size=12).hexdigest()}"'
    headers = {
        "ETag": tag,
        "Cache-Control": "private, no-cache",
        "Vary": "Authorization",
        **headers,
    }
    known = [each.strip() for each in request.headers.get("if-none-match", "").split(",")]
    if {tag, f"W/{tag}", "*"} & set(known):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


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
