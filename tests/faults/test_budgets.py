"""A user or an address that asks for all it can get is told to wait, and no other is."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import pytest

from server.gateway.budgets import ADDRESS_BURST_SECONDS
from tests.gateway.wire import (
    TEXT,
    Answer,
    Client,
    RawClient,
    frame,
    head,
    new_user,
    refusal,
    target,
)
from tests.processes import ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

CONNECTIONS = 100
"""Connections a user may have by default."""

UNKNOWN = 1600
"""Symbols in one command of 16 KiB."""

ROUNDS = 3

COLD = ("ZTS", "MMM", "IBM", "XOM")
"""Symbols that exist, and that no client has asked for."""


def http(server: ServerProcess, path: str, token: str = "", **headers: str) -> Answer:
    """Return the answer to a request to the HTTP port."""
    request = urllib.request.Request(server.http_url + path)
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    for name, value in headers.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return Answer(
                response.status,
                {name.title(): value for name, value in response.headers.items()},
                response.read(),
            )
    except urllib.error.HTTPError as error:
        with error:
            return Answer(
                error.code,
                {name.title(): value for name, value in error.headers.items()},
                error.read(),
            )


def handshake(
    server: ServerProcess, token: str, symbols: str | None = None, **headers: str
) -> Answer:
    """Return the refusal of a handshake."""
    with RawClient(server, head(target(symbols, token), **headers)) as client:
        return client.answer()


def get_nowhere(server: ServerProcess) -> Answer:
    """Return the refusal of a request for a path that does not exist."""
    with RawClient(server, head("/nowhere")) as client:
        return client.answer()


def assert_limited(answer: Answer) -> None:
    """Check for the protocol's 429, which tells when to come back."""
    assert answer.verdict == (429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60


@contextmanager
def attack(server: ServerProcess, token: str) -> Iterator[None]:
    """Open all connections of one user, each of which asks for unknown symbols again and again."""
    with ExitStack() as clients:
        hostile = [
            clients.enter_context(RawClient(server, head(target(token=token))))
            for _ in range(CONNECTIONS)
        ]
        for client in hostile:
            assert client.read_head().startswith("HTTP/1.1 101 ")
        for wave in range(ROUNDS):
            for number, client in enumerate(hostile):
                first = (wave * CONNECTIONS + number) * UNKNOWN
                names = [f"U{first + i:06}" for i in range(UNKNOWN)]
                command = json.dumps({"action": "subscribe", "symbols": names})
                client.send(frame(TEXT, command.replace(" ", "").encode()))
        yield


def test_one_user_s_unknown_symbols_hinder_nobody(tmp_path):
    """One user asks for 480,000 unknown symbols on 100 connections, and is told to wait. Another
    user's new symbols are found, its pings are answered, and nothing is conflated.
    """
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="100ms") as server:
        token = make_token(new_user())
        watch = Stopwatch(server.process.pid)
        with Client(server, "AAPL") as witness, attack(server, token):
            for symbol in COLD:
                answer = witness.ask("subscribe", symbols=[symbol])
                assert (answer["type"], answer["symbols"]) == ("ack", [symbol])
                assert witness.is_answered()
            with Client(server, "VZ") as newcomer:
                assert newcomer.receive()["versions"].keys() == {"VZ"}
            limited = 'market_data_rate_limited_total{budget="lookups"}'
            eventually(lambda: server.metric(limited) > 0)
            assert server.ask("/quotes?symbols=PFE")[0] == 200
            interval = server.metric("market_data_conflation_interval_seconds")
            assert interval == 0 or watch.is_starved
            assert witness.is_answered()
        assert not server.events("conflation changed") or watch.is_starved


def test_all_connections_of_a_user_open_and_come_back(tmp_path):
    """A user opens a hundred connections with symbols at once, and again as after a deploy."""
    with ServerProcess(tmp_path) as server:
        token = make_token(new_user())
        for _ in range(2):
            with ExitStack() as clients:
                request = head(target("AAPL,MSFT,IBM", token))
                opened = [
                    clients.enter_context(RawClient(server, request)) for _ in range(CONNECTIONS)
                ]
                for client in opened:
                    assert client.read_head().startswith("HTTP/1.1 101 ")
            eventually(lambda: server.metric('market_data_connections{state="active"}') == 0)


def test_both_ports_share_a_user_s_budget(tmp_path):
    """Commands on two connections use up the budget of requests and handshakes on both ports.
    Another user has a budget of its own.
    """
    with ServerProcess(tmp_path, USER_COMMAND_RATE="6") as server:
        token = make_token(new_user())
        with Client(server, token=token) as first, Client(server, token=token) as second:
            answers = [client.ask("ping")["type"] for client in (first, second) * 20]
            assert 10 <= answers.count("pong") < 20
            assert first.ask("ping", id=7) | {"message": ""} == {
                "type": "error",
                "code": "rate_limited",
                "message": "",
                "id": 7,
            }
            pong = first.connection.ping()
            assert pong.wait(5), "a library's ping is answered all the same"
            assert_limited(http(server, "/quotes?symbols=AAPL", token))
            assert_limited(http(server, "/instruments?query=a", token))
            assert_limited(handshake(server, token, "AAPL"))
            assert server.ask("/quotes?symbols=AAPL")[0] == 200
            with Client(server, "AAPL") as other:
                assert other.is_answered()
            eventually(lambda: first.ask("ping")["type"] == "pong")


def test_requests_use_up_what_commands_need(tmp_path):
    """Requests use up the budget of commands as well."""
    with ServerProcess(tmp_path, USER_COMMAND_RATE="6") as server:
        token = make_token(new_user())
        with Client(server, token=token) as client:
            statuses = [http(server, "/quotes?symbols=AAPL", token).status for _ in range(20)]
            assert statuses[0] == 200
            assert statuses[-1] == 429
            while client.ask("ping")["type"] == "pong":
                pass


def test_every_way_to_a_lookup_is_charged(tmp_path):
    """Symbols that are not in memory cost lookups in the handshake, in `subscribe`, over HTTP and
    in a search. Symbols in memory cost nothing.
    """
    with ServerProcess(tmp_path, USER_LOOKUP_RATE="1") as server:
        token = make_token(new_user(), role="admin")
        with Client(server, "AAPL"), Client(server, "NO1,NO2,NO3,NO4,AAPL", token=token) as client:
            assert client.receive()["type"] == "quotes_patch"
            assert client.answer()["code"] == "unknown_symbol"
            assert_limited(handshake(server, token, "AAPL,NO5,NO6,NO7,NO8"))
            for path in (
                "/quotes?symbols=AAPL,NO5,NO6,NO7,NO8",
                "/market-data?symbols=ZTS,MMM,IBM,XOM",
                "/instruments?query=micro",
            ):
                assert_limited(http(server, path, token))
            assert http(server, "/quotes?symbols=AAPL", token).status == 200
            client.send("subscribe", symbols=["AAPL", "ZTS", "MMM", "IBM", "XOM"], id=1)
            ack, error = client.answer(), client.answer()
            assert (ack["type"], ack["symbols"]) == ("ack", ["AAPL"])
            assert error["code"] == "rate_limited"
            assert error["symbols"] == ["ZTS", "MMM", "IBM", "XOM"]
            eventually(lambda: client.ask("subscribe", symbols=["ZTS"])["type"] == "ack")


def test_every_request_passes_with_a_full_budget(tmp_path):
    """A request may cost more than a burst, and in two parts: its symbols and its bars. A user that
    waits gets it all the same.
    """
    names = ",".join(f"NO{number}" for number in range(500))
    paths = (
        "/bars?symbols=ZTS,MMM&timeframe=1m&limit=10000",
        "/udf/history?symbol=IBM&resolution=1&from=0&to=1795000000",
        "/udf/search?query=micro",
        "/instruments?query=micro",
        f"/quotes?symbols={names}",
        f"/market-data?symbols={names}",
    )
    with ServerProcess(tmp_path, USER_LOOKUP_RATE="1") as server:
        for path in paths:
            answer = http(server, path, make_token(new_user()))
            assert answer.status == 200, f"{path}: {answer}"


def test_failed_tokens_are_charged_to_the_address_on_both_ports(tmp_path):
    """After ten failures, requests without a good token are told to wait on every path. Good tokens
    from the same address are let in, and the failures use up none of their handshakes.
    """
    variables = {"ADDRESS_FAILURE_RATE": "1", "WS_HANDSHAKE_RATE": "2"}
    with ServerProcess(tmp_path, **variables) as server:
        start, extra = time.monotonic(), 0
        verdicts = []
        for number in range(20):
            token = make_token() + "x"
            bad = handshake(server, token) if number % 2 else http(server, "/quotes", token)
            verdicts.append(bad.verdict)
        assert verdicts[:5] == [(401, "unauthorized")] * 5
        assert (429, "rate_limited") in verdicts
        for ask in (
            partial(handshake, server, "x.y.z"),
            partial(http, server, "/market-data?symbols=AAPL"),
            partial(get_nowhere, server),
        ):
            # A second that has passed allows one more failure, which this uses up.
            while handshake(server, "x").status == 401:
                extra += 1
            assert_limited(ask())
        verdicts += [handshake(server, "x").verdict for _ in range(100)]
        assert {*verdicts} == {(401, "unauthorized"), (429, "rate_limited")}
        failures = verdicts.count((401, "unauthorized")) + extra
        assert failures <= ADDRESS_BURST_SECONDS + time.monotonic() - start
        with Client(server, "AAPL") as neighbour:
            assert neighbour.is_answered()
        assert server.ask("/quotes?symbols=AAPL")[0] == 200
        refused = server.await_event("connection refused", reason="rate_limited")
        assert refused["address"] == "127.0.0.1"


def test_forwarded_addresses_are_believed_of_trusted_proxies(tmp_path):
    """Each client behind a trusted proxy has its own budget on both ports; IPv6 has one for each
    site.
    """
    variables = {"ADDRESS_FAILURE_RATE": "1", "ADDRESS_REQUEST_RATE": "1"}
    with ServerProcess(tmp_path, TRUSTED_PROXIES="::1, 127.0.0.0/8", **variables) as server:
        for number in range(15):
            forwarded = f"192.0.2.{number}, 2001:db8::{number:x}"
            last = handshake(server, "x", X_Forwarded_For=forwarded)
        assert_limited(last)
        assert http(server, "/quotes", X_Forwarded_For="2001:db8::ffff").status == 429
        for other in ("2001:db8:0:1::1", "198.51.100.1", "2001:db8::1, 198.51.100.2"):
            assert handshake(server, "x", X_Forwarded_For=other).status == 401
            assert http(server, "/quotes", X_Forwarded_For=other).status == 401
        statuses = {http(server, "/health", X_Forwarded_For="192.0.2.7").status for _ in range(15)}
        assert statuses == {200, 429}
        assert http(server, "/health", X_Forwarded_For="192.0.2.8").status == 200
        assert server.await_event("connection refused")["address"] == "2001:db8::"


def test_forwarded_addresses_of_anybody_else_mean_nothing(tmp_path):
    """A client that invents a new address for each request is counted by its own."""
    with ServerProcess(tmp_path, ADDRESS_FAILURE_RATE="1", TRUSTED_PROXIES="10.0.0.0/8") as server:
        answers = [
            handshake(server, "x", X_Forwarded_For=f"198.51.100.{number}") for number in range(20)
        ]
        assert_limited(answers[-1])
        refused = server.await_event("connection refused", reason="rate_limited")
        assert refused["address"] == "127.0.0.1"


def test_strangers_requests_are_bounded_but_probes(tmp_path):
    """Pages that need no token are refused beyond the rate. Load balancers' probes and users'
    requests never are.
    """
    with ServerProcess(tmp_path, ADDRESS_REQUEST_RATE="1") as server:
        statuses = [http(server, "/health").status for _ in range(15)]
        assert statuses[:9] == [200] * 9
        assert statuses[-1] == 429
        for path in ("/metrics", "/docs", "/openapi.json", "/nowhere"):
            assert_limited(http(server, path))
        for path in ("/healthz", "/readyz"):
            assert [http(server, path).status for _ in range(30)] == [200] * 30
        assert server.ask("/quotes?symbols=AAPL")[0] == 200


@pytest.mark.parametrize("options", [{"token": "x"}, {"symbols": "NOPE"}])
def test_many_refusals_within_the_default_budgets(server: ServerProcess, options: dict[str, Any]):
    """A client that is wrong a few hundred times is told what is wrong, and not to slow down."""
    for _ in range(50):
        assert refusal(server.url(**options)).status in (400, 401)
