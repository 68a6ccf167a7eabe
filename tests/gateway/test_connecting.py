"""Requests that are let in, and the answers to the others."""

import json
import time
from contextlib import ExitStack
from typing import Any

import jwt
import pytest
import trio
from trio_websocket import open_websocket_url

from tests.gateway.conftest import AUDIENCE, ISSUER, ORIGIN
from tests.gateway.wire import Client, RawClient, head, new_user, paths, refusal, target
from tests.processes import SECRET, TIMEOUT, ServerProcess, make_token

LIMIT = 20
"""Symbols of one connection to the shared server."""

PLACES = 5
"""Connections of one user to the shared server."""


@pytest.fixture(scope="module")
def symbols(server: ServerProcess) -> list[str]:
    """All symbols of the server."""
    with Client(server, "*") as client:
        assert client.is_answered()
        return list(client.quotes)


def strict_token(**claims: Any) -> str:
    """Return a token for the strict server, changed by `claims`; None leaves one out."""
    claims = {"aud": AUDIENCE, "iss": ISSUER, **claims}
    return make_token(new_user(), **{name: value for name, value in claims.items() if value})


def bearer(token: str, scheme: str = "Bearer") -> dict[str, str]:
    """Return the header with a token."""
    return {"Authorization": f"{scheme} {token}"}


BAD_TOKENS = {
    "empty": "",
    "garbage": "garbage",
    "not ASCII": "%C3%A9.%FF.%00",
    "three empty parts": "..",
    "another key's": jwt.encode(
        {"sub": "a", "exp": 2e9}, "another secret, also of 32 bytes", "HS256"
    ),
    "unsigned": jwt.encode({"sub": "a", "exp": 2e9}, "", "none"),
    "HS512": jwt.encode({"sub": "a", "exp": 2e9}, SECRET * 2, "HS512"),
    "expired": make_token(lifetime=-1),
    "without end": jwt.encode({"sub": "a"}, SECRET, "HS256"),
    "with an endless number as end": jwt.encode({"sub": "a", "exp": 10**400}, SECRET, "HS256"),
    "not yet good": make_token(nbf=time.time() + 1800),
    "nobody's": jwt.encode({"exp": 2e9}, SECRET, "HS256"),
}


def test_snapshot_comes_first_and_names_every_field(server):
    """A client's first message adds the full quotes of all symbols it asked for."""
    with Client(server, "aapl,MSFT,aapl") as client:
        message = client.receive()
    assert list(message)[:2] == ["type", "ts"]
    assert paths(message, "add") == ["/quotes/AAPL", "/quotes/MSFT"]
    assert set(message["versions"]) == {"AAPL", "MSFT"}
    assert " ".join(client.quotes["AAPL"]) == (
        "symbol name type current_price base_price change change_percent last_updated volume "
        "market_cap currency open high low previous_close bid ask bid_size ask_size"
    )


async def test_a_second_client_gets_the_same(server):
    """trio-websocket's client is let in by its header, and gets a snapshot as well."""
    headers = [(b"Authorization", f"Bearer {make_token(new_user())}".encode())]
    with trio.fail_after(TIMEOUT):
        url = server.url("AAPL", token="")
        async with open_websocket_url(url, extra_headers=headers) as client:
            message = json.loads(await client.get_message())
    assert paths(message, "add") == ["/quotes/AAPL"]


def test_another_path_is_not_found(server):
    """Only one path is served. For any other, it does not matter whether WebSocket is asked for."""
    url = server.quotes_url.replace("/ws/quotes", "/ws")
    assert refusal(url).verdict == (404, "not_found")
    with RawClient(server, head("/", "POST", Upgrade=None)) as client:
        assert client.answer().verdict == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {"Upgrade": None, "Connection": None}),
        ("GET", {"Upgrade": "h2c"}),
        ("GET", {"Connection": "keep-alive"}),
        ("GET", {"Sec_WebSocket_Version": "8"}),
        ("GET", {"Sec_WebSocket_Version": None}),
        ("POST", {"Content_Length": "2"}),
    ],
)
def test_no_websocket_request_is_told_to_upgrade(server, method, headers):
    """Plain HTTP, other methods and other versions get 426, with the version that is served."""
    body = b"{}" if method == "POST" else b""
    with RawClient(server, head(target(), method, **headers) + body) as client:
        answer = client.answer()
    assert answer.verdict == (426, "upgrade_required")
    assert answer.headers["Upgrade"] == "websocket"
    assert answer.headers["Sec-Websocket-Version"] == "13"


def test_head_is_told_to_upgrade_without_a_body(server):
    """HEAD gets the status that GET would, and no body (RFC 9110 §9.3.2)."""
    with RawClient(server, head(target(), "HEAD", Upgrade=None)) as client:
        answer = client.answer()
    assert (answer.status, answer.body) == (426, b"")


def test_only_allowed_origins_may_connect(strict):
    """A page of another origin is refused before its token is looked at. No origin is allowed."""
    assert refusal(strict.url(token=""), origin="https://evil.example").verdict == (
        403,
        "origin_not_allowed",
    )
    for origin in (ORIGIN, None):
        with Client(strict, token=strict_token(), origin=origin) as client:
            assert client.is_answered()


def test_full_pool_asks_to_retry_whoever_comes(strict):
    """Without a place it is 503 with a time to wait, token or not. A place that was freed is usable."""
    before = strict.metric('market_data_connections_rejected_total{reason="at_capacity"}')
    with Client(strict, token=strict_token()):
        for token in (strict_token(), "garbage", ""):
            answer = refusal(strict.url("NOPE", token))
            assert answer.verdict == (503, "at_capacity")
            assert int(answer.headers["Retry-After"]) >= 1
        assert refusal(strict.url(), origin="https://evil.example").status == 403
    with Client(strict, token=strict_token()) as client:
        assert client.is_answered()
    after = strict.metric('market_data_connections_rejected_total{reason="at_capacity"}')
    assert after == before + 3


@pytest.mark.parametrize("token", BAD_TOKENS.values(), ids=BAD_TOKENS)
def test_bad_token_is_unauthorized(server, token):
    """A bad token is refused with the expected scheme, for any symbols."""
    answer = refusal(server.url("NOPE", token))
    assert answer.verdict == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("claims", [{"aud": "other"}, {"iss": "https://other.example"}])
def test_token_for_others_is_unauthorized(strict, claims):
    """A token must name the configured audience and issuer."""
    assert refusal(strict.url(None, strict_token(**claims))).verdict == (401, "unauthorized")
    without = strict_token(**dict.fromkeys(claims))
    assert refusal(strict.url(None, without)).verdict == (401, "unauthorized")


def test_header_wins_over_query(server):
    """The header's token wins, in any spelling of its scheme. Another scheme is ignored."""
    good = make_token(new_user())
    for scheme in ("Bearer", "bearer", "BEARER"):
        with Client(server, token="garbage", additional_headers=bearer(good, scheme)) as client:
            assert client.is_answered()
    answer = refusal(server.url(None, good), additional_headers=bearer("garbage"))
    assert answer.verdict == (401, "unauthorized")
    with Client(server, token=good, additional_headers=bearer("YTpi", "Basic")) as client:
        assert client.is_answered()


def test_each_user_has_so_many_places(server):
    """A user's sixth connection is refused before its symbols are looked at. Others get in."""
    token = make_token(new_user())
    with ExitStack() as clients:
        first, *_ = [clients.enter_context(Client(server, token=token)) for _ in range(PLACES)]
        assert refusal(server.url("NOPE", token)).verdict == (429, "too_many_connections")
        assert refusal(server.url(None, token)).verdict == (429, "too_many_connections")
        with Client(server) as other:
            assert other.is_answered()
        first.connection.close()
        with Client(server, token=token) as again:
            assert again.is_answered()


def test_refused_requests_keep_no_place(server):
    """A user who was refused for its symbols more often than it has places can still connect."""
    token = make_token(new_user())
    for _ in range(PLACES + 1):
        assert refusal(server.url("NOPE", token)).status == 400
    with Client(server, "AAPL", token=token) as client:
        assert paths(client.receive(), "add") == ["/quotes/AAPL"]


@pytest.mark.parametrize("given", ["NOPE", "", ",,%20,", "NOPE,NOR,%C3%A9", "%FF%00"])
def test_no_valid_symbol_is_refused(server, given):
    """`symbols` without an existing one are refused, also if they are empty."""
    assert refusal(server.url(given)).verdict == (400, "no_valid_symbols")


def test_limit_counts_each_known_symbol_once(server, symbols):
    """As many symbols as the limit are accepted, however often named. One more is refused."""
    fine = symbols[:LIMIT]
    with Client(server, ",".join([*fine, "NOPE", *fine])) as client:
        assert len(paths(client.receive(), "add")) == LIMIT
    answer = refusal(server.url(",".join(symbols[: LIMIT + 1])))
    assert answer.verdict == (400, "too_many_symbols")


def test_everything_is_not_counted(server, symbols):
    """`*` brings all symbols, far more than the limit, also beside other names."""
    with Client(server, ",".join(["AAPL", "*", "NOPE", *symbols[:30]])) as client:
        message = client.receive()
        assert len(paths(message, "add")) == len(symbols) > 500
        assert set(message["versions"]) == set(client.quotes) == set(symbols)
        answer = client.answer()
        assert (answer["code"], answer["symbols"]) == ("unknown_symbol", ["NOPE"])
        assert client.is_answered()


@pytest.mark.parametrize(
    ("given", "known", "unknown"),
    [
        ("NOPE,AAPL,nor", ["AAPL"], ["NOPE", "NOR"]),
        ("AAPL,%C3%A9", ["AAPL"], ["É"]),
        ("%61apl%2CBRK%2eB,%20msft%20", ["AAPL", "BRK.B", "MSFT"], []),
        ("AAPL&symbols=MSFT", ["AAPL", "MSFT"], []),
    ],
)
def test_unknown_symbols_are_named_after_the_snapshot(server, given, known, unknown):
    """One valid symbol lets a client in, in any spelling that a URL allows. The others are named."""
    with Client(server, given) as client:
        assert paths(client.receive(), "add") == [f"/quotes/{symbol}" for symbol in known]
        answer = client.ask("ping")
        if unknown:
            assert (answer["type"], answer["code"]) == ("error", "unknown_symbol")
            assert answer["symbols"] == unknown
            assert "id" not in answer
            answer = client.answer()
        assert answer["type"] == "pong"


def test_without_symbols_there_is_no_snapshot(server):
    """A client that asks for nothing gets nothing until it subscribes."""
    with Client(server) as client:
        client.send("ping")
        assert client.receive()["type"] == "pong"
        client.send("subscribe", symbols=["AAPL"])
        assert client.receive()["type"] == "ack"
        assert paths(client.receive(), "add") == ["/quotes/AAPL"]
