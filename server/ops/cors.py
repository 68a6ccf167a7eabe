"""Lets pages of other origins use the API: cross-origin resource sharing (Fetch Standard §3.2).

Users show their tokens in a header, and no route reads a cookie. So a page of any origin can do only
what its token allows.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from server.gateway.refusals import Refused
from server.ops.endpoint import Endpoint
from server.ops.guard import NOSNIFF

ANY = "*"

REQUEST_HEADERS = frozenset({"Authorization", "Content-Encoding", "Content-Type", "If-None-Match"})
"""Headers of requests beside the routes' own parameters."""

ANSWER_HEADERS = frozenset({"ETag", "Retry-After", "WWW-Authenticate"})
"""Headers of answers beside those that a route describes."""

MAX_AGE = 7200
"""Seconds for which a browser may keep the answer to a preflight. Chromium keeps none for longer."""


@dataclass(frozen=True)
class Sharing:
    """`origins`: those whose pages may use the API; none without CORS, ANY for all.

    `methods` and `takes` are the methods and headers of their requests. `exposes` are the headers of
    answers that they may read.
    """

    origins: Collection[str] = ()
    methods: Sequence[str] = ()
    takes: Sequence[str] = ()
    exposes: Sequence[str] = ()

    @property
    def middleware(self) -> list[Middleware]:
        """Return the middleware that every request and answer passes first; none without CORS."""
        if not self.origins:
            return []
        shared = Middleware(
            CrossOrigin,
            allow_origins=self.origins,
            allow_methods=self.methods,
            allow_headers=self.takes,
            allow_private_network=True,
            expose_headers=self.exposes,
            max_age=MAX_AGE,
        )
        return [shared]

    def headers(self, origin: str) -> list[tuple[str, str]]:
        """Return the headers for an answer that no middleware sees, to a page of `origin`."""
        if not self.origins:
            return []
        headers = [("Vary", "Origin")]
        if origin and (ANY in self.origins or origin in self.origins):
            allowed = ANY if ANY in self.origins else origin
            exposed = ", ".join(self.exposes)
            headers += [
                ("Access-Control-Allow-Origin", allowed),
                ("Access-Control-Expose-Headers", exposed),
            ]
        return headers


def api_sharing(origins: Collection[str], api: Sequence[Endpoint]) -> Sharing:
    """Return what pages of `origins` may send to the routes of `api`, and read of their answers."""
    parameters = {each.name for route in api for each in route.parameters if each.place == "header"}
    described = {name for route in api for name in route.headers}
    methods = {"GET", "HEAD", *(route.method for route in api)}
    return Sharing(
        origins,
        sorted(methods),
        sorted(REQUEST_HEADERS | parameters),
        sorted(ANSWER_HEADERS | described),
    )


class CrossOrigin(CORSMiddleware):
    """Starlette's middleware, with refusals in the protocol's form. It is outside of the Guard, so that
    errors too carry its headers.
    """

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer a preflight request (Fetch Standard §4.8)."""
        response = super().preflight_response(request_headers)
        response.headers[NOSNIFF[0]] = NOSNIFF[1]
        if response.status_code == 200:
            return response
        refused, message = Refused.BAD_REQUEST, "the API does not take this method or these headers"
        if not self.is_allowed_origin(request_headers["origin"]):
            refused, message = Refused.ORIGIN_NOT_ALLOWED, "this origin may not use the API"
        reason = refused.value
        kept = {
            name: value
            for name, value in response.headers.items()
            if name not in ("content-length", "content-type")
        }
        return JSONResponse(
            {"error": {"code": reason.code, "message": message}}, reason.status, headers=kept
        )
