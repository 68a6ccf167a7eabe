"""The opening handshake: whether a request becomes a connection, and the answer (RFC 6455 §4.2).

h11 reads and writes the HTTP, and wsproto makes the accept token. trio-websocket's handshake has the
same parts. It also makes a nursery, a task and a connection object for each client. These cost more
than all other work for a new client (docs/performance.md).
"""

import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import NamedTuple, TypeVar

import h11
from wsproto.utilities import generate_accept_token

from server.gateway.addresses import budget_key
from server.gateway.auth import PUBLISHER, BadToken, Identity, bearer_token
from server.gateway.budgets import ADDRESS_SPENT, HANDSHAKE, USER_SPENT
from server.gateway.commands import ClientContext
from server.gateway.dead_connections import DeadConnections
from server.gateway.limits import SYMBOLS_A_COMMAND, TokenBucket
from server.gateway.pool import Pool
from server.gateway.refusals import Refusal, Refused, close_frame
from server.gateway.request import Request, require_websocket
from server.gateway.selection import STORE_UNAVAILABLE, Selection
from server.gateway.sockets import send_all
from server.gateway.views import (
    JSON_ONLY,
    chosen_form,
    named_if_refused,
    offered_token,
    parse_fields,
)
from server.intake.batch import MAX_NAME_LENGTH
from server.quotes.duration import parse_duration
from server.quotes.position import Position, parse_position
from server.quotes.view import JSON, Form, View

T = TypeVar("T")

PATH = "/ws/quotes"

PRICES_PATH = "/ws/prices"
NO_PRICES = "this server takes no prices: start it with FEED=push"
"""The path for publishers, if prices come from them."""

PATHS = PATH, PRICES_PATH
"""All paths of this port that may be upgraded."""


class Publisher(NamedTuple):
    """The names that `seq` of a publisher's objects belongs to."""

    source: str
    epoch: str


class Admission(NamedTuple):
    """An admitted client and its wishes. `interval`: seconds between two updates of a symbol, if it
    wants fewer updates. `position`: the versions that it has, if it resumes. `publisher`: it publishes
    prices and gets none. `subprotocol`: the one that the answer names.
    """

    identity: Identity
    selection: Selection
    interval: float | None = None
    position: Position | None = None
    publisher: Publisher | None = None
    view: View = JSON
    subprotocol: str | None = None


class HandshakePolicy(NamedTuple):
    """Decides whether a request becomes a connection. `handshakes` limits the rate of all of them.

    `publishes`: prices come from publishers.
    """

    context: ClientContext
    pool: Pool
    handshakes: TokenBucket
    dead_connections: DeadConnections
    allowed_origins: Sequence[str]
    publishes: bool = False

    async def admit(self, request: Request, address: str, undo: ExitStack) -> Admission:
        """Decide in the protocol's order. `undo` gives back the places that are taken on the way.

        Errors: Refusal.
        """
        verified = self._verify_early(request, address)
        paths = PATHS if self.publishes else (PATH,)
        if request.path not in paths:
            known = f"nothing here but {' and '.join(paths)}"
            problem = NO_PRICES if request.path == PRICES_PATH else known
            raise Refusal(Refused.NOT_FOUND, problem)
        require_websocket(request)
        self._check_origin(request.headers.get("origin"))
        self.pool.reserve()
        undo.callback(self.pool.release)
        if not self.handshakes.take():
            raise Refusal(Refused.AT_CAPACITY, "connections come too fast")
        identity = verified or self._identify(request)
        self._charge(identity.user)
        publisher = _publisher(request, identity) if request.path == PRICES_PATH else None
        if self.pool.is_full_for(identity.user):
            await self.dead_connections.evict(identity.user)
        self.pool.reserve_for(identity.user)
        undo.callback(self.pool.release_for, identity.user)
        if publisher:
            _, subprotocol = chosen_form(None, _offered(request), JSON_ONLY)
            view = self._take_view("json", None, undo)
            nothing = Selection([], [])
            return Admission(identity, nothing, None, None, publisher, view, subprotocol)
        selection = await self._select(request, identity.user)
        topics = self.context.selector.topics if selection.everything else selection.topics
        self.context.budgets.commands.add_debt(identity.user, len(topics) // SYMBOLS_A_COMMAND)
        interval = _parameter(request, "interval", parse_duration)
        position = _parameter(request, "resume", parse_position)
        form, subprotocol = _parameter(
            request, "format", lambda given: chosen_form(given, _offered(request))
        ) or chosen_form(None, _offered(request))
        view = self._take_view(form, _parameter(request, "fields", parse_fields), undo)
        return Admission(identity, selection, interval, position, None, view, subprotocol)

    def _take_view(self, form: Form, fields: tuple[str, ...] | None, undo: ExitStack) -> View:
        """Count a connection for its view. Errors: Refusal."""
        view = self.pool.views.take(form, fields)
        undo.callback(self.pool.views.release, view)
        return view

    def _verify_early(self, request: Request, address: str) -> Identity | None:
        """If the address has spent its failures, verify the token before the request takes any place.

        All users behind one proxy have the same address. So a good token passes, whatever failures the
        user's neighbours had. Errors: Refusal, without a good token.
        """
        failures = self.context.budgets.failures
        wait = failures.wait(budget_key(address))
        if not wait:
            return None
        try:
            return self._identify(request)
        except Refusal:
            failures.refused += 1
            raise Refusal(Refused.RATE_LIMITED, ADDRESS_SPENT, wait) from None

    def _charge(self, user: str) -> None:
        """Charge the user for a handshake. Errors: Refusal, which leaves its handshake to other
        clients.
        """
        if wait := self.context.budgets.commands.take(user, HANDSHAKE):
            self.handshakes.give_back()
            raise Refusal(Refused.RATE_LIMITED, USER_SPENT, wait)

    def _check_origin(self, origin: str | None) -> None:
        if origin is not None and self.allowed_origins and origin not in self.allowed_origins:
            raise Refusal(Refused.ORIGIN_NOT_ALLOWED, "this origin may not connect")

    def _identify(self, request: Request) -> Identity:
        token = bearer_token(request.headers.get("authorization", ""))
        if token is None:
            token = offered_token(_offered(request))
        if token is None:
            token = request.query.get("token", [""])[-1].strip()
        if not token:
            raise Refusal(Refused.UNAUTHORIZED, "a token is required")
        try:
            return self.context.authenticator.verify(token)
        except BadToken as error:
            raise Refusal(Refused.UNAUTHORIZED, str(error)) from None

    async def _select(self, request: Request, user: str) -> Selection:
        given = request.query.get("symbols")
        if given is None:
            return Selection([], [])
        names = [name for name in ",".join(given).split(",") if name.strip()]
        selection = await self.context.selector.resolve(names, user)
        if selection.everything:
            return selection
        if (refused := selection.refused) is not None:
            raise Refusal(Refused.RATE_LIMITED, str(refused), refused.wait)
        if selection.unavailable and not selection.topics:
            raise Refusal(Refused.STORE_UNAVAILABLE, STORE_UNAVAILABLE)
        if not selection.topics:
            raise Refusal(Refused.NO_VALID_SYMBOLS, "none of the symbols exists")
        if len(selection.topics) > self.context.max_symbols:
            raise Refusal(Refused.TOO_MANY_SYMBOLS, f"at most {self.context.max_symbols} symbols")
        return selection


def _publisher(request: Request, identity: Identity) -> Publisher:
    """Return the names of an admitted publisher. Errors: Refusal."""
    if identity.role != PUBLISHER:
        raise Refusal(Refused.FORBIDDEN, f"this needs a token with the role {PUBLISHER}")
    names = []
    for name in ("source", "source-epoch"):
        given = request.query.get(name.replace("-", "_"), [""])
        if len(given) > 1:
            raise Refusal(Refused.BAD_REQUEST, f"{name}: send it once")
        text = request.headers.get(name, given[0])
        if len(text) > MAX_NAME_LENGTH or not (text.isprintable() and text.isascii()):
            raise Refusal(
                Refused.BAD_REQUEST, f"{name} has at most {MAX_NAME_LENGTH} ASCII characters"
            )
        names.append(text)
    source, epoch = names
    return Publisher(source or identity.user, epoch)


def _offered(request: Request) -> str:
    return request.headers.get("sec-websocket-protocol", "")


def _parameter(request: Request, name: str, parse: Callable[[str], T]) -> T | None:
    given = request.query.get(name)
    try:
        return parse(given[-1]) if given else None
    except ValueError as error:
        raise Refusal(Refused.BAD_REQUEST, f"{name}: {error}") from None


def closes_refused(request: Request) -> bool:
    """Whether the client of a refused request wants an upgrade and a close frame (`refuse=close`).

    A browser hides the response to a refused handshake from its page. A request that is not a
    well-formed handshake cannot be upgraded.
    """
    if request.query.get("refuse", [""])[-1] != "close" or request.path not in PATHS:
        return False
    try:
        require_websocket(request)
    except Refusal:
        return False
    return True


def accept_and_close(connection: h11.Connection, request: Request, refusal: Refusal) -> bytes:
    """Return the 101 and the close frame of a refused request, to be written at once."""
    named = named_if_refused(_offered(request))
    return _switching(connection, request, named, None) + close_frame(refusal)


async def accept_websocket(
    sock: socket.socket,
    connection: h11.Connection,
    request: Request,
    subprotocol: str | None = None,
    extension: str | None = None,
) -> None:
    """Answer with 101 a request that `require_websocket` let pass, and accept `subprotocol` and
    `extension`.

    Errors: OSError.
    """
    await send_all(sock, _switching(connection, request, subprotocol, extension))


def _switching(
    connection: h11.Connection, request: Request, subprotocol: str | None, extension: str | None
) -> bytes:
    headers = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (
            b"Sec-WebSocket-Accept",
            generate_accept_token(request.headers["sec-websocket-key"].encode()),
        ),
    ]
    if subprotocol:
        headers.append((b"Sec-WebSocket-Protocol", subprotocol.encode()))
    if extension:
        headers.append((b"Sec-WebSocket-Extensions", extension.encode()))
    response = connection.send(h11.InformationalResponse(status_code=101, headers=headers))
    # h11 gives bytes for every event but the end of a connection.
    assert response is not None
    return response
