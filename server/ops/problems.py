"""What can be wrong with a request to the API: status, code, and what the description says of it."""

from typing import NamedTuple

from starlette.exceptions import HTTPException

from server.gateway.refusals import RETRIED, retry_after


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
RATE_LIMITED = Problem(
    429, "rate_limited", "More than the user, or the address, may ask; `Retry-After` tells when to"
)
STORE_UNAVAILABLE = Problem(503, "store_unavailable", "The store gives no answer; try again")


class ApiError(HTTPException):
    """A request that is answered with an error in the protocol's shape; `wait`: the seconds after which
    it may be made again, where that is known.
    """

    def __init__(self, problem: Problem, message: str, wait: float = 0.0) -> None:
        headers = {"Cache-Control": "no-store"}
        if problem is UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"  # RFC 6750 §3
        if problem.status in RETRIED:
            headers["Retry-After"] = retry_after(wait)
        super().__init__(problem.status, message, headers)
        self.code = problem.code
