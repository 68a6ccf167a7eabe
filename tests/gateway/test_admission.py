"""Which requests become connections, decided from their bytes, without a server."""

import socket
from contextlib import ExitStack
from typing import Any, NamedTuple, cast

import h11
import pytest
import trio

from server.fanout.hub import Hub
from server.gateway.auth import Authenticator
from server.gateway.budgets import ADDRESS_SPENT, HANDSHAKE, USER_SPENT, Budget, Budgets
from server.gateway.commands import ClientContext
from server.gateway.dead_connections import DeadConnections
from server.gateway.handshake import Admission, HandshakePolicy, accept_websocket
from server.gateway.limits import SYMBOLS_A_COMMAND, TokenBucket
from server.gateway.pool import Pool
from server.gateway.refusals import Refusal, Refused
from server.gateway.request import Request, parse_head, read_request
from server.gateway.selection import STORE_UNAVAILABLE, Selector
from server.gateway.views import chosen_form
from server.quotes.position import Position
from server.store.loader import TooManyLookups
from tests.fanout.peer import instruments
from tests.gateway.test_selection import Store
from tests.gateway.wire import head
from tests.processes import SECRET, make_token

ADDRESS = "192.0.2.1"
ORIGIN = "https://quotes.example"
MAX_SYMBOLS = 3


class Door(NamedTuple):
    """A policy with two places, one for each user. Its clocks stand."""

    policy: HandshakePolicy
    pool: Pool
    budgets: Budgets
    handshakes: TokenBucket

    async def admit(self, target: str, **headers: str | None) -> Admission:
        """Decide about a request of `target`, and give its places back."""
        with ExitStack() as undo:
            request = read(head(target, "GET", **headers))
            return await self.policy.admit(request, ADDRESS, undo)

    async def refusal(self, target: str, **headers: str | None) -> tuple[Refused, str]:
        """Return why a request of `target` is refused."""
        with pytest.raises(Refusal) as refused:
            await self.admit(target, **headers)
        return refused.value.refused, str(refused.value)


def door(
    *listed: str,
    origins: tuple[str, ...] = (),
    budget: float = 1000.0,
    handshakes: int = 100,
    error: Exception | None = None,
) -> Door:
    """Return a door to a hub with the symbols `listed`. `budget`: the commands that a user has."""
    hub = Hub(instruments(*listed))
    budgets = Budgets(
        commands=Budget(1.0, burst=budget, clock=lambda: 0.0),
        failures=Budget(1.0, burst=1.0, clock=lambda: 0.0),
    )
    pool = Pool(2, 1)
    bucket = TokenBucket(1, handshakes, clock=lambda: 0.0)
    store = cast("Any", Store(hub, "COLD", error=error))
    selector = Selector(hub.topics, store, budgets)
    context = ClientContext(
        selector, Authenticator(secret=SECRET), budgets, MAX_SYMBOLS, 50, pool.commands
    )
    policy = HandshakePolicy(context, pool, bucket, DeadConnections(pool), origins)
    return Door(policy, pool, budgets, bucket)


def read(data: bytes) -> Request:
    return read_request(parse_head(data, h11.Connection(h11.SERVER)), b"")


def url(query: str = "", user: str = "ann") -> str:
    """Return a target with the parameters `query` and a good token."""
    return f"/ws/quotes?{query}&token={make_token(user)}"


@pytest.mark.parametrize(
    ("query", "symbols"),
    [
        ("", []),
        ("symbols=A", ["A"]),
        ("symbols=b,A", ["B", "A"]),
        ("symbols=A&symbols=B", ["A", "B"]),
        ("symbols=,A,%20,,B%20", ["A", "B"]),
        ("symbols=A,NOPE", ["A"]),
        ("symbols=A,ODD", ["A"]),
        ("symbols=A,B,C", ["A", "B", "C"]),
        ("symbols=COLD", ["COLD"]),
        ("SYMBOLS=A", []),
    ],
)
async def test_symbols_are_named_in_the_query(query, symbols):
    """In any spelling, also after several names of the parameter. One that exists is enough."""
    admission = await door("A", "B", "C", "D").admit(url(query))
    assert [topic.symbol for topic in admission.selection.topics] == symbols
    assert not admission.selection.everything
    assert (admission.identity.user, admission.interval, admission.position) == ("ann", None, None)


@pytest.mark.parametrize(
    ("query", "refused", "message"),
    [
        ("symbols=", Refused.NO_VALID_SYMBOLS, "none of the symbols exists"),
        ("symbols=NOPE", Refused.NO_VALID_SYMBOLS, "none of the symbols exists"),
        ("symbols=NOPE,ODD", Refused.STORE_UNAVAILABLE, STORE_UNAVAILABLE),
        ("symbols=A,B,C,D", Refused.TOO_MANY_SYMBOLS, "at most 3 symbols"),
        ("interval=soon", Refused.BAD_REQUEST, "interval: 'soon' is not a duration"),
        ("interval=1s&interval=", Refused.BAD_REQUEST, "interval: '' is not a duration"),
        ("resume=x", Refused.BAD_REQUEST, "resume: does not start with an epoch and a colon"),
    ],
)
async def test_wrong_parameter_is_refused(query, refused, message):
    """The message tells what is wrong with which one, and no place is kept."""
    entry = door("A", "B", "C", "D")
    for _ in range(3):
        assert await entry.refusal(url(query)) == (refused, message)
    assert entry.pool.places == 0


async def test_client_may_ask_for_fewer_updates_and_resume():
    """If a parameter comes twice, the last one counts. In capitals it is another parameter."""
    query = "interval=9s&interval=250ms&resume=old:A=1&resume=new:A=7,B=8&INTERVAL=1&RESUME=x:"
    admission = await door().admit(url(query))
    assert admission.interval == 0.25
    assert admission.position == Position("new", {"A": 7, "B": 8})


async def test_spent_lookups_are_refused_for_as_long_as_they_last():
    """In the loader's words."""
    error = TooManyLookups(2.5)
    with pytest.raises(Refusal) as refused:
        await door("A", error=error).admit(url("symbols=A,NOPE"))
    assert refused.value.refused is Refused.RATE_LIMITED
    assert (str(refused.value), refused.value.wait) == (str(error), 2.5)


@pytest.mark.parametrize(
    ("query", "authorization", "verdict"),
    [
        ("token=GOOD", None, "ann"),
        ("token=bad&token=%20GOOD%20", None, "ann"),
        ("", "Bearer GOOD", "ann"),
        ("token=bad", "Bearer GOOD", "ann"),
        ("token=GOOD", "Basic x", "ann"),
        ("token=GOOD&token=bad", None, "the token is malformed"),
        ("token=GOOD", "Bearer bad", "the token is malformed"),
        ("", None, "a token is required"),
        ("token=%20", None, "a token is required"),
        ("TOKEN=GOOD", None, "a token is required"),
        ("token=GOOD", "Bearer ", "a token is required"),
    ],
)
async def test_token_proves_the_user(query, authorization, verdict):
    """From the header `Authorization`, else from the query, the last one of several."""
    token = make_token("ann")
    if authorization is not None:
        authorization = authorization.replace("GOOD", token)
    target = f"/ws/quotes?{query}".replace("GOOD", token)
    if verdict == "ann":
        admission = await door().admit(target, Authorization=authorization)
        assert admission.identity.user == "ann"
    else:
        refusal = await door().refusal(target, Authorization=authorization)
        assert refusal == (Refused.UNAUTHORIZED, verdict)


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        ((), None, True),
        ((), "https://any.example", True),
        ((ORIGIN,), None, True),
        ((ORIGIN,), ORIGIN, True),
        ((ORIGIN,), "https://any.example", False),
    ],
)
async def test_pages_of_other_origins_may_be_kept_out(origins, origin, allowed):
    """A client that is not a browser has no origin."""
    entry = door(origins=origins)
    if allowed:
        await entry.admit(url(), Origin=origin)
    else:
        refused = Refused.ORIGIN_NOT_ALLOWED, "this origin may not connect"
        assert await entry.refusal(url(), Origin=origin) == refused


async def test_order_of_the_decisions():
    """Each request has all faults of the ones after it, too. The client learns of the first one."""
    entry = door(origins=(ORIGIN,), handshakes=0)
    query = "token=bad&symbols=NOPE"
    full, fast = "all connections are taken", "connections come too fast"
    path = await entry.refusal(f"/x?{query}", Upgrade=None, Origin="x")
    assert path == (Refused.NOT_FOUND, "nothing here but /ws/quotes")
    upgrade, _ = await entry.refusal(f"/ws/quotes?{query}", Upgrade=None, Origin="x")
    assert upgrade is Refused.UPGRADE_REQUIRED
    origin, _ = await entry.refusal(f"/ws/quotes?{query}", Origin="x")
    assert origin is Refused.ORIGIN_NOT_ALLOWED
    rate = await entry.refusal(f"/ws/quotes?{query}", Origin=ORIGIN)
    assert rate == (Refused.AT_CAPACITY, fast)
    for _ in range(2):
        entry.pool.reserve()
    place = await entry.refusal(f"/ws/quotes?{query}", Origin=ORIGIN)
    assert place == (Refused.AT_CAPACITY, full)


async def test_user_pays_for_handshakes_and_for_symbols():
    """A refused user leaves the handshake to others. A symbol costs a fiftieth of a command, `*` as
    much as all symbols.
    """
    names = [f"S{number:03}" for number in range(2 * SYMBOLS_A_COMMAND - 1)]
    entry = door(*names, budget=3 * HANDSHAKE, handshakes=4)
    await entry.admit(url("symbols=S001,S002"))
    assert entry.budgets.commands.wait("ann", 3 * HANDSHAKE) == HANDSHAKE
    # The store's symbol makes them a hundred.
    await entry.admit(url("symbols=*"))
    assert entry.budgets.commands.wait("ann", 3 * HANDSHAKE) == 2 * HANDSHAKE + 2
    for _ in range(5):
        with pytest.raises(Refusal) as refused:
            await entry.admit(url())
        assert refused.value.refused is Refused.RATE_LIMITED
        assert (str(refused.value), refused.value.wait) == (USER_SPENT, 2)
    assert [entry.handshakes.take() for _ in range(3)] == [True, True, False]


async def test_user_with_all_places_waits_for_an_answer_of_its_connections(autojump_clock):
    """They are asked whether they are alive, and none of them is dead here."""
    entry = door()
    entry.pool.reserve_for("ann")
    begun = trio.current_time()
    refusal = await entry.refusal(url())
    assert refusal == (Refused.TOO_MANY_CONNECTIONS, "you already have 1 connections")
    assert trio.current_time() > begun
    await entry.admit(url(user="bob"))


async def test_spent_address_needs_a_good_token_first():
    """Whatever else is wrong with a request, and before it takes a place."""
    entry = door()
    entry.budgets.failures.charge(ADDRESS)
    for count in (1, 2):
        with pytest.raises(Refusal) as refused:
            await entry.admit("/nowhere?token=bad")
        assert refused.value.refused is Refused.RATE_LIMITED
        assert (str(refused.value), refused.value.wait) == (ADDRESS_SPENT, 1.0)
        assert entry.budgets.failures.refused == count
    assert (await entry.admit(url())).identity.user == "ann"
    assert entry.budgets.failures.refused == 2


@pytest.mark.parametrize("extension", [None, "permessage-deflate; server_no_context_takeover"])
@pytest.mark.parametrize("offered", [None, "other,quotestream.v1.json"])
async def test_answer_is_the_one_of_rfc_6455(extension, offered):
    """§1.3, to the letter: some clients compare the words with their case."""
    data = head("/ws/quotes", Sec_WebSocket_Protocol=offered)
    connection = h11.Connection(h11.SERVER)
    request = read_request(parse_head(data, connection), b"")
    _, subprotocol = chosen_form(None, offered or "")
    sock, client = socket.socketpair()
    with sock, client:
        sock.setblocking(False)
        await accept_websocket(sock, connection, request, subprotocol, extension)
        lines = client.recv(4096).decode().removesuffix("\r\n\r\n").split("\r\n")
    assert lines[0].startswith("HTTP/1.1 101 ")
    expected = [
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
    ]
    if offered:
        expected.append("Sec-WebSocket-Protocol: quotestream.v1.json")
    if extension:
        expected.append(f"Sec-WebSocket-Extensions: {extension}")
    assert lines[1:] == expected
