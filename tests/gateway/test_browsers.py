"""Refusals and tokens in the ways that a browser's page can use, over raw sockets."""

import json
import re
from contextlib import ExitStack

import jwt
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from server.gateway.refusals import Refusal, Refused, close_frame
from tests.gateway.conftest import AUDIENCE, ISSUER, ORIGIN
from tests.gateway.wire import CLOSE, Client, RawClient, close, head, new_user
from tests.processes import TIMEOUT, ServerProcess, make_token

JSON = "quotestream.v1.json"
FORGED = jwt.encode({"sub": "a", "exp": 2e9}, "another secret, also of 32 bytes", "HS256")


def quotes(query: str = "", *, path: str = "/ws/quotes") -> str:
    """Return a target with `refuse=close` and without a token."""
    return f"{path}?refuse=close{query}"


def signed(query: str = "", user: str = "") -> str:
    """Return a target with `refuse=close` and a good token."""
    return quotes(f"{query}&token={make_token(user or new_user())}")


def closed(server: ServerProcess, data: bytes) -> tuple[int, str, str]:
    """Return code and reason of the close frame that follows the 101, and the head of the 101."""
    with RawClient(server, data) as client:
        answer = client.read_head()
        assert answer.startswith("HTTP/1.1 101 "), answer
        opcode, payload = client.read_frame()
        assert opcode == CLOSE
        assert len(payload) <= 125
        client.send(close(int.from_bytes(payload[:2])))
        assert client.is_over()
        assert client.received == b""
    return int.from_bytes(payload[:2]), payload[2:].decode(), answer


def rejected(server: ServerProcess, reason: str) -> float:
    """Return the number of connections that were refused for `reason`."""
    return server.metric(f'market_data_connections_rejected_total{{reason="{reason}"}}')


@pytest.mark.parametrize(
    ("query", "code", "reason"),
    [
        ("&symbols=NOPE", 4400, "no_valid_symbols: none of the symbols exists"),
        ("&symbols=", 4400, "no_valid_symbols: none of the symbols exists"),
        ("&interval=soon", 4400, "bad_request: interval: 'soon' is not a duration"),
        ("&resume=x", 4400, "bad_request: resume: does not start with an epoch and a colon"),
        ("&format=xml", 4400, "bad_request: format: a form is one of json, compact, msgpack"),
    ],
)
def test_wrong_request_is_closed_with_the_reason(server, query, code, reason):
    """A page reads code and reason. The server counts a refusal, and does not count a connection."""
    name = reason.partition(":")[0]
    refused = rejected(server, name)
    opened = server.metric("market_data_connections_opened_total")
    assert closed(server, head(signed(query)))[:2] == (code, reason)
    assert rejected(server, name) == refused + 1
    assert server.metric("market_data_connections_opened_total") == opened


@pytest.mark.parametrize(
    "path", ["/ws/quotes", "/ws/quotes?refuse=http", "/ws/quotes?Refuse=close"]
)
def test_others_are_refused_by_http(server, path):
    """Only `refuse=close` asks for the close frame."""
    with RawClient(server, head(path)) as client:
        assert client.answer().verdict == (401, "unauthorized")


def test_the_last_refuse_counts(server):
    """As with the other parameters."""
    with RawClient(server, head(quotes("&refuse=no"))) as client:
        assert client.answer().verdict == (401, "unauthorized")
    assert closed(server, head("/ws/quotes?refuse=no&refuse=close"))[0] == 4401


def test_long_reason_is_cut(server):
    """A close frame has room for 123 bytes of reason."""
    code, reason, _ = closed(server, head(signed("&fields=nothing")))
    assert (code, len(reason)) == (4400, 123)
    assert reason.startswith("bad_request: fields: the fields are ")


@pytest.mark.parametrize("letter", ["x", "é", "€", "😀"])
def test_reason_is_cut_at_a_character(letter):
    """The reason stays UTF-8, and as long as it can be."""
    frame = close_frame(Refusal(Refused.BAD_REQUEST, letter * 200))
    assert (frame[0], frame[1]) == (0x88, len(frame) - 2)
    reason = frame[4:].decode()
    assert reason == "bad_request: " + letter * ((123 - 13) // len(letter.encode()))


@pytest.mark.parametrize("message", ["slow down", "x" * 200, "€" * 200])
def test_known_wait_ends_the_reason(message):
    """A page reads how long to wait, also if the message is cut. It is at least the real time."""
    frame = close_frame(Refusal(Refused.RATE_LIMITED, message, 17.2))
    reason = frame[4:].decode()
    assert len(frame) <= 127
    start, _, end = reason.rpartition("; ")
    assert end == "retry after 18 s"
    assert f"rate_limited: {message}".startswith(start)
    assert b"retry" not in close_frame(Refusal(Refused.RATE_LIMITED, "slow down"))


def test_close_codes_are_the_protocols():
    """Each refusal has the code of the contract. Those of other requests have none."""
    codes = {refused.value.code: refused.value.close for refused in Refused}
    assert codes == {
        "bad_request": 4400,
        "no_valid_symbols": 4400,
        "too_many_symbols": 4400,
        "too_many_views": 4400,
        "unauthorized": 4401,
        "origin_not_allowed": 4403,
        "forbidden": 4403,
        "too_many_connections": 4409,
        "rate_limited": 4429,
        "at_capacity": 4503,
        "store_unavailable": 4503,
        "request_timeout": 0,
        "too_large": 0,
        "headers_too_large": 0,
        "not_found": 0,
        "upgrade_required": 0,
        "http_version_not_supported": 0,
    }


def test_too_many_symbols(server):
    """The server takes 20 of them."""
    with Client(server, "*") as client:
        assert client.is_answered()
        symbols = ",".join(list(client.quotes)[:21])
    assert closed(server, head(signed(f"&symbols={symbols}")))[:2] == (
        4400,
        "too_many_symbols: at most 20 symbols",
    )


def test_user_has_too_many_connections(server):
    """The five that the user has answer the server's pings."""
    token = make_token(new_user())
    with ExitStack() as clients:
        for _ in range(5):
            clients.enter_context(Client(server, token=token))
        code, reason, _ = closed(server, head(quotes(f"&token={token}")))
    assert (code, reason) == (4409, "too_many_connections: you already have 5 connections")


def test_place_and_origin(strict):
    """A refused client takes no place of the pool, however long it stays."""
    token = make_token(new_user(), aud=AUDIENCE, iss=ISSUER)
    strange = head(quotes(f"&token={token}"), Origin="https://evil.example")
    assert closed(strict, strange)[:2] == (4403, "origin_not_allowed: this origin may not connect")
    bad = head(quotes("&token=bad"), Origin=ORIGIN)
    with RawClient(strict, bad) as refused:
        assert refused.read_head().startswith("HTTP/1.1 101 ")
        with Client(strict, token=token) as client:
            assert client.is_answered()
            code, reason, _ = closed(strict, head(quotes(f"&token={token}")))
            assert (code, reason) == (4503, "at_capacity: all connections are taken")


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (head("/nothing?refuse=close"), 404, "not_found"),
        (head(quotes(path="/ws/prices")), 404, "not_found"),
        (head(quotes(), Upgrade=None), 426, "upgrade_required"),
        (head(quotes(), Sec_WebSocket_Version="8"), 426, "upgrade_required"),
        (head(quotes(), "POST"), 426, "upgrade_required"),
        (head(quotes(), Sec_WebSocket_Key="short"), 400, "bad_request"),
        (head(quotes(), Content_Length="1"), 400, "bad_request"),
        (head(quotes(), X="y" * 20_000), 431, "headers_too_large"),
    ],
)
def test_request_that_cannot_be_upgraded_gets_a_response(server, data, status, code):
    """The server answers by HTTP, as before."""
    with RawClient(server, data) as client:
        assert client.answer().verdict == (status, code)


def test_client_that_does_not_answer_is_dropped(server):
    """The server waits LINGER_TIMEOUT for the client to leave, and ignores its frames."""
    with RawClient(server, head(quotes()) + b"\x81\x80\0\0\0\0" * 100) as client:
        assert client.read_head().startswith("HTTP/1.1 101 ")
        assert client.read_frame()[0] == CLOSE
        client.socket.settimeout(TIMEOUT)
        assert client.is_over()
    assert server.get("/healthz")[0] == 200


@pytest.mark.parametrize(
    ("offered", "named"),
    [
        (JSON, JSON),
        (f"other, quotestream.v1.msgpack, {JSON}", "quotestream.v1.msgpack"),
        (f"bearer.bad, {JSON}", JSON),
        ("other, bearer.bad", "other"),
        ("bearer.bad", "bearer.bad"),
        ("b\xe9, other", "other"),
        ("b\xe9", None),
    ],
)
def test_refusal_names_an_offered_subprotocol(server, offered, named):
    """A browser drops the connection before it reads the close frame otherwise."""
    _, _, answer = closed(server, head(quotes(), Sec_WebSocket_Protocol=offered))
    lines = [line for line in answer.split("\r\n") if line.lower().startswith("sec-websocket-p")]
    assert lines == ([f"Sec-WebSocket-Protocol: {named}"] if named else [])


@pytest.mark.parametrize("form", ["json", "compact", "msgpack"])
@pytest.mark.parametrize("order", [1, -1])
def test_token_comes_as_a_subprotocol(server, form, order):
    """In any place of the list. The answer names the form."""
    offered = [f"quotestream.v1.{form}", f"bearer.{make_token(new_user())}"][::order]
    names = [Subprotocol(name) for name in offered]
    with connect(f"{server.quotes_url}?symbols=AAPL", subprotocols=names) as client:
        assert client.subprotocol == f"quotestream.v1.{form}"
        assert client.recv(TIMEOUT)


@pytest.mark.parametrize("query", ["", "?format=msgpack"])
def test_token_alone_is_named(server, query):
    """A browser needs one of those that it offered, and the token is the only one."""
    name = Subprotocol(f"bearer.{make_token(new_user())}")
    with connect(f"{server.quotes_url}{query}", subprotocols=[name]) as client:
        assert client.subprotocol == name


def test_header_wins_over_subprotocol_and_that_over_query(server):
    """Only the first of the three tokens counts, also if it is bad."""
    good, bad = make_token(new_user()), FORGED
    for header, offered, query, status in (
        (good, bad, bad, 101),
        (bad, good, good, 401),
        (None, good, bad, 101),
        (None, bad, good, 401),
        (None, "", good, 401),
        (None, None, good, 101),
    ):
        data = head(
            f"/ws/quotes?token={query}",
            Authorization=header and f"Bearer {header}",
            Sec_WebSocket_Protocol=None if offered is None else f"{JSON}, bearer.{offered}",
        )
        with RawClient(server, data) as client:
            answer = client.read_head()
            assert answer.startswith(f"HTTP/1.1 {status} "), (header, offered, query)
            assert "bearer." not in answer


def test_token_of_a_subprotocol_is_not_told(server):
    """Neither the log nor the reason has it, whatever it is."""
    for token in ("not-a-token-but-secret", FORGED):
        for query in ("", "&format=xml", "&symbols=NOPE"):
            offered = f"{JSON}, bearer.{token}"
            _, reason, _ = closed(server, head(quotes(query), Sec_WebSocket_Protocol=offered))
            assert token not in reason
        assert token not in json.dumps(server.log_lines())


def test_websocket_client_reads_the_reason(server):
    """A proper client sees an open connection that the server closes."""
    with connect(server.quotes_url + "?refuse=close") as client:
        with pytest.raises(ConnectionClosed):
            client.recv(TIMEOUT)
        assert client.protocol.close_rcvd is not None
        assert client.protocol.close_rcvd.code == 4401
        assert client.protocol.close_rcvd.reason == "unauthorized: a token is required"


def test_publishers_have_the_same_ways(tmp_path):
    """`/ws/prices` shares the rules, and names the form of JSON only."""
    with ServerProcess(tmp_path, FEED="push") as server:
        url = server.quotes_url.replace("/ws/quotes", "/ws/prices")
        press = f"bearer.{make_token('press', role='publisher')}"
        with connect(url, subprotocols=[Subprotocol(press), Subprotocol(JSON)]) as client:
            assert client.subprotocol == JSON
            client.send('{"symbol":"AAPL","price":175.92}')
            assert '"accepted":1' in str(client.recv(TIMEOUT))
        prices = quotes(path="/ws/prices")
        user = head(prices, Sec_WebSocket_Protocol=f"{JSON}, bearer.{make_token()}")
        assert closed(server, user)[:2] == (
            4403,
            "forbidden: this needs a token with the role publisher",
        )
        assert closed(server, head(prices))[:2] == (4401, "unauthorized: a token is required")


def test_flood_of_bad_tokens_is_closed_with_its_reason(tmp_path):
    """An address that spent its failures reads that. Another path of it stays a response."""
    with ServerProcess(tmp_path, ADDRESS_FAILURE_RATE="1") as server:
        codes = [closed(server, head(quotes()))[0] for _ in range(12)]
        assert codes[0] == 4401
        code, reason, _ = closed(server, head(quotes()))
        assert (code, reason.partition(":")[0]) == (4429, "rate_limited")
        assert re.search(r"; retry after [1-9]\d* s$", reason)
        with RawClient(server, head("/nothing?refuse=close")) as client:
            assert client.answer().verdict == (429, "rate_limited")
