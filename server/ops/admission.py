"""Admits HTTP requests: checks their tokens and charges the budgets that both ports share."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from starlette.datastructures import Headers
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from server.gateway.addresses import Proxies, budget_key
from server.gateway.auth import Authenticator, BadToken, Identity, bearer_token
from server.gateway.budgets import ADDRESS_SPENT, HTTP_REQUEST, USER_SPENT, Budgets
from server.gateway.limits import SYMBOLS_A_COMMAND
from server.gateway.sampling import Sampler
from server.ops.names import Names
from server.ops.problems import (
    BAD_REQUEST,
    FORBIDDEN,
    MISDIRECTED,
    RATE_LIMITED,
    UNAUTHORIZED,
    ApiError,
)

USER = "user"
"""The role that every valid token has."""

ADMIN = "admin"
"""The role of tokens that may administer the server."""

PROBES = frozenset({"/healthz", "/readyz"})
"""Paths that the server never refuses: a load balancer would treat a refusal as a dead server."""

SHOWN_NAME = 100
"""Characters of an unknown name that the error repeats."""

TOO_OFTEN = "too many requests from your address, try again later"


def is_of_own_page(headers: Headers) -> bool:
    """Return False for a request that a page of another site makes through a visitor's browser."""
    # A browser compares the addresses that it knows, though a proxy may change `Host`.
    if site := headers.get("sec-fetch-site"):
        return site in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is None or origin.partition("://")[2] == headers.get("host")


@dataclass(kw_only=True)
class Gate:
    """Decides which requests are admitted. Owned by the server; both ports share `budgets`.

    `names` are those of the port that only operators reach.
    """

    authenticator: Authenticator
    budgets: Budgets
    proxies: Proxies
    names: Names = field(default_factory=Names)
    _refused: Sampler = field(default_factory=lambda: Sampler("request refused"))

    def admit(self, scope: Scope, role: str, token: str = "") -> Identity:
        """Return the request's user, and charge the user for it. A bad token is charged to its address.

        Arguments:
            token: the one in the request's URL. A header `Authorization` takes precedence.

        Errors: ApiError.
        """
        address = self.address(scope)
        given = Headers(scope=scope).getlist("authorization")
        if len(given) > 1:
            # A proxy may have checked another one than this server would.
            self.budgets.failures.charge(budget_key(address))
            raise ApiError(BAD_REQUEST, "Authorization: send this header once")
        try:
            identity = self._verify("".join(given) or f"Bearer {token}")
        except BadToken as error:
            if wait := self.budgets.failures.take(budget_key(address)):
                raise self._refuse("failures", ADDRESS_SPENT, wait, address) from None
            self._refused.log(UNAUTHORIZED.code, str(error), address=address)
            raise ApiError(UNAUTHORIZED, str(error)) from None
        if wait := self.budgets.commands.take(identity.user, HTTP_REQUEST):
            raise self._refuse("commands", USER_SPENT, wait, address, identity.user)
        if role not in (USER, identity.role):
            message = f"this needs a token with the role {role}"
            self._refused.log(FORBIDDEN.code, message, address=address, user=identity.user)
            raise ApiError(FORBIDDEN, message)
        return identity

    def is_admin(self, scope: Scope) -> bool:
        """Return whether the request has a token with the role `admin`; False without a token.

        Errors: ApiError for a bad token.
        """
        token = bearer_token(Headers(scope=scope).get("authorization", ""))
        return token is not None and self.admit(scope, USER).role == ADMIN

    def operator(self, scope: Scope, method: str) -> Identity | None:
        """Return the user of a request to a port that only operators reach, None without a token.

        A page of another site must neither act nor read through an operator's browser, as no token
        protects this port. Errors: ApiError for a bad token, or such a page.
        """
        headers = Headers(scope=scope)
        if method != "GET" and not is_of_own_page(headers):
            message = "a page of another site may not do this; a proxy must pass `Host` on as it is"
            self._refused.log(FORBIDDEN.code, message, address=self.address(scope))
            raise ApiError(FORBIDDEN, message)
        # A proxy before this port may ask for a password, which browsers send as `Basic`.
        token = bearer_token(headers.get("authorization", ""))
        identity = None if token is None else self.admit(scope, USER)
        # A page of a foreign name cannot have an administrator's token.
        is_admin = identity is not None and identity.role == ADMIN
        if not is_admin and not self.has_known_name(scope):
            message = (
                f"this port does not have the name {headers['host'][:SHOWN_NAME]!r}: use its address, "
                "or add the name to OPS_ALLOWED_HOSTS"
            )
            self._refused.log(MISDIRECTED.code, message, address=self.address(scope))
            raise ApiError(MISDIRECTED, message)
        return identity

    def has_known_name(self, scope: Scope) -> bool:
        """Return whether a request to the operators' port gives one of its names."""
        return self.names.know(Headers(scope=scope).get("host"))

    def charge_failure(self, peer: str, forwarded: str) -> str:
        """Charge the client of a request that was refused before its user was known. Return the
        client's address.
        """
        address = self.proxies.client(peer, forwarded)
        self.budgets.failures.charge(budget_key(address))
        return address

    def charge_symbols(self, identity: Identity, symbols: int) -> None:
        """Charge the user for the symbols of a request, as for the symbols of a command."""
        self.budgets.commands.add_debt(identity.user, symbols // SYMBOLS_A_COMMAND)

    def refuse_anonymous(self, scope: Scope) -> ApiError | None:
        """Charge the address of a request without a token. Return a refusal if its budget is spent."""
        address = self.address(scope)
        wait = self.budgets.requests.take(budget_key(address))
        return self._refuse("requests", TOO_OFTEN, wait, address) if wait else None

    def _verify(self, authorization: str) -> Identity:
        """Errors: BadToken."""
        token = bearer_token(authorization)
        if not token:
            raise BadToken("a token is required: Authorization: Bearer <JWT>")
        return self.authenticator.verify(token)

    def address(self, scope: Scope) -> str:
        """Return the address of a request's client, as TRUSTED_PROXIES says."""
        peer, _ = scope.get("client") or ("", 0)
        forwarded = ",".join(Headers(scope=scope).getlist("x-forwarded-for"))
        return self.proxies.client(peer, forwarded)

    def _refuse(
        self, budget: str, message: str, wait: float, address: str, user: str = ""
    ) -> ApiError:
        details = {"user": user} if user else {}
        self._refused.log(budget, message, address=address, **details)
        return ApiError(RATE_LIMITED, message, wait)


class LimitAnonymous:
    """ASGI middleware that bounds requests without a user. The routes of users charge the user."""

    def __init__(self, app: ASGIApp, gate: Gate, users: Sequence[BaseRoute]) -> None:
        self._app = app
        self._gate = gate
        self._users = users

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Errors: ApiError if its address sent too many."""
        if scope["type"] == "http" and self._is_anonymous(scope):
            refused = self._gate.refuse_anonymous(scope)
            if refused is not None:
                raise refused
        await self._app(scope, receive, send)

    def _is_anonymous(self, scope: Scope) -> bool:
        if scope["path"] in PROBES:
            return False
        return all(route.matches(scope)[0] is not Match.FULL for route in self._users)
