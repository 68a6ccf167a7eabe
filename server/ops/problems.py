"""The errors of the API: status, code, and text for the API's description."""

from typing import NamedTuple

from starlette.exceptions import HTTPException

from server.gateway.refusals import RETRIED, retry_after


class Problem(NamedTuple):
    """One kind of error. The API's description shows `text`."""

    status: int
    code: str
    text: str


BAD_REQUEST = Problem(
    400, "bad_request", "A parameter is missing or not allowed, or a header is there twice"
)
TOO_MANY_SYMBOLS = Problem(400, "too_many_symbols", "More symbols than one request may name")
UNAUTHORIZED = Problem(401, "unauthorized", "The token is missing or not valid")
FORBIDDEN = Problem(403, "forbidden", "The token does not have the required role")
MISDIRECTED = Problem(
    421, "misdirected_request", "On OPS_PORT: the name in `Host` is not one of this port"
)
UNKNOWN_SYMBOL = Problem(404, "unknown_symbol", "The symbol is not an instrument")
UNKNOWN_CLIENT = Problem(404, "unknown_client", "No open connection has the id")
REQUEST_TIMEOUT = Problem(408, "request_timeout", "The request did not come in time")
TOO_LARGE = Problem(413, "too_large", "The body is larger than a route reads")
UNSUPPORTED = Problem(415, "unsupported_encoding", "The body's encoding is not gzip")
HEADERS_TOO_LARGE = Problem(
    431, "headers_too_large", "The URL and headers are too long, or there are too many headers"
)
RATE_LIMITED = Problem(
    429, "rate_limited", "Too many requests of the user or the address; wait for `Retry-After`"
)
NOT_PUBLISHED_YET = Problem(
    503, "not_published_yet", "The batch is taken, its end is not known yet"
)
HOST_UNAVAILABLE = Problem(503, "host_unavailable", "The supervisor gives no answer; try again")
BAD_FILE = Problem(400, "bad_file", "The file cannot be imported; the message names the line")
STORE_UNAVAILABLE = Problem(503, "store_unavailable", "The store gives no answer; try again")


class ApiError(HTTPException):
    """A request that is answered with an error in the protocol's form.

    `wait`: the seconds after which the client may try again, 0 if unknown.
    """

    def __init__(self, problem: Problem, message: str, wait: float = 0.0) -> None:
        headers = {"Cache-Control": "no-store"}
        if problem is UNAUTHORIZED:
            # RFC 6750 §3 requires it.
            headers["WWW-Authenticate"] = "Bearer"
        if problem.status in RETRIED:
            headers["Retry-After"] = retry_after(wait)
        super().__init__(problem.status, message, headers)
        self.code = problem.code
