"""The operators' routes: overview, clients that are behind, drain and disconnect."""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.sync.client import connect

from tests.faults.test_slow_clients import MuteClient
from tests.gateway.wire import Client
from tests.ops.as_operator import ask, client_of, clients
from tests.processes import WITHOUT_BUDGETS, ServerProcess, eventually, make_token

ROUTES = (
    ("GET", "/ops/overview"),
    ("GET", "/ops/clients"),
    ("POST", "/ops/clients/0-1/drain"),
    ("POST", "/ops/clients/0-1/disconnect"),
    ("GET", "/ops/instruments?query=a"),
    ("POST", "/ops/import?dry_run=true"),
    ("DELETE", "/ops/instruments/NONE"),
    ("POST", "/ops/prices?price=1"),
)


@pytest.fixture(scope="module")
def moving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server whose prices move often, and that keeps clients that do not read."""
    with ServerProcess(
        tmp_path_factory.mktemp("moving"),
        PRICE_UPDATE_INTERVAL="10ms",
        WS_CIRCUIT_BREAKER_THRESHOLD="1000",
        **WITHOUT_BUDGETS,
    ) as process:
        yield process


def rest(client: Client) -> tuple[list[dict[str, Any]], Close]:
    """Return the messages until the server closes the connection, and its close frame."""
    messages = []
    try:
        while True:
            messages.append(client.receive())
    except ConnectionClosed:
        close = client.connection.protocol.close_rcvd
    assert close
    return messages, close


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_operators_routes_are_for_administrators(pushed, method, path):
    """Others get 403 with any other role, and 401 without a token."""
    for role in ("user", "publisher"):
        status, body = pushed.ask(path, method, role=role)
        assert (status, body["error"]["code"]) == (403, "forbidden")
    status, text = pushed.request(method, path)
    assert (status, json.loads(text)["error"]["code"]) == (401, "unauthorized")


def test_blocked_client_is_on_top_of_many(moving):
    """A client that does not read comes before those that do, with the reason."""
    with (
        Client(moving, "AAPL"),
        Client(moving, "*"),
        MuteClient(moving, "*", "molly"),
        Client(moving, "MSFT"),
    ):
        eventually(lambda: clients(moving)[0]["user"] == "molly")
        eventually(lambda: clients(moving)[0]["blocked_for"] > 0)
        first, *others = clients(moving)
        assert (first["state"], first["breaker"]) == ("blocked", "closed")
        assert first["owed"] > max(each["owed"] for each in others)
        assert first["unread"] > 0
        assert first["everything"]
        assert first["symbols"] > 10
        assert len(first["first_symbols"]) == 10
        assert len(others) == 3
        assert [each["user"] for each in clients(moving, "?limit=1")] == ["molly"]


def test_client_is_described(moving):
    """The view has what the client asked for, and the answers are bounded pages."""
    url = f"{moving.url('AAPL,MSFT', make_token('vera'))}&format=compact&fields=current_price"
    with connect(f"{url}&interval=2s") as websocket:
        websocket.recv(10)
        view = client_of(moving, "vera")
    assert view["first_symbols"] == ["AAPL", "MSFT"]
    assert (view["symbols"], view["everything"], view["bars"]) == (2, False, 0)
    assert (view["format"], view["fields"]) == ("compact", ["current_price"])
    assert (view["state"], view["interval"]) == ("throttled", 2.0)
    assert (view["worker"], view["address"], view["role"]) == (None, "127.0.0.1", None)
    assert view["bytes_received"] > 100
    assert 0 <= view["age"] < 60


def test_clients_are_told_in_pages(moving):
    """Each client is on one page, and the header names the next page until the last one."""
    with ExitStack() as stack:
        for number in range(5):
            stack.enter_context(Client(moving, "KO", token=make_token(f"page{number}")))
        eventually(lambda: len(clients(moving, "?query=page")) == 5)
        seen, token = [], "0"
        while token:
            request = urllib.request.Request(
                f"{moving.http_url}/ops/clients?query=page&limit=2&page_token={token}",
                headers={"Authorization": f"Bearer {make_token('olivia', role='admin')}"},
            )
            with urllib.request.urlopen(request, timeout=10) as response:
                body = json.loads(response.read())
                token = response.headers.get("Next-Page-Token")
            assert body["matching"] == 5
            seen.append([each["user"] for each in body["clients"]])
        assert [len(page) for page in seen] == [2, 2, 1]
        assert len({user for page in seen for user in page}) == 5


def test_address_is_the_one_that_a_trusted_proxy_tells(pushed):
    """A search finds it, too."""
    url = pushed.url("AAPL", make_token("peter"))
    with connect(url, additional_headers={"X-Forwarded-For": "198.51.100.7"}):
        assert client_of(pushed, "peter")["address"] == "198.51.100.7"
        assert [each["user"] for each in clients(pushed, "?query=198.51.100.7")] == ["peter"]
        assert clients(pushed, "?query=203.0.113.9") == []


def test_drained_client_is_told_to_come_back(pushed):
    """It gets `reconnect`, then the close of a drain, and the log has one line of who did it."""
    with Client(pushed, "AAPL", token=make_token("dora")) as client:
        view = client_of(pushed, "dora")
        status, body = ask(
            pushed, "POST", f"/ops/clients/{view['id']}/drain", X_Forwarded_For="192.0.2.44"
        )
        assert (status, body["client"]["user"]) == (200, "dora")
        messages, close = rest(client)
    assert messages[-1]["type"] == "reconnect"
    assert close.code == 1001
    line = pushed.await_event("admin", action="drain", client=view["id"])
    assert (line["level"], line["user"], line["address"]) == ("info", "olivia", "192.0.2.44")
    assert (line["client_user"], line["client_address"]) == ("dora", "127.0.0.1")
    eventually(lambda: not clients(pushed, "?query=dora"))
    status, body = ask(pushed, "POST", f"/ops/clients/{view['id']}/drain")
    assert (status, body["error"]["code"]) == (404, "unknown_client")
    assert "GET /ops/clients" in body["error"]["message"]


def test_disconnected_client_is_not_told_to_come_back(pushed):
    """It gets 1008 with a reason, and nothing else; the log has the line."""
    with Client(pushed, "AAPL", token=make_token("rolf")) as client:
        view = client_of(pushed, "rolf")
        assert ask(pushed, "POST", f"/ops/clients/{view['id']}/disconnect")[0] == 200
        messages, close = rest(client)
    assert "reconnect" not in {each["type"] for each in messages}
    assert (close.code, "operator" in close.reason) == (1008, True)
    pushed.await_event("admin", action="disconnect", client=view["id"], user="olivia")


def test_client_that_never_answers_can_be_closed_twice(moving):
    """The second request is not an error while the first close is under way."""
    with MuteClient(moving, "*", "mick"):
        path = f"/ops/clients/{client_of(moving, 'mick')['id']}/drain"
        eventually(lambda: clients(moving, "?query=mick")[0]["state"] == "blocked")
        assert [ask(moving, "POST", path)[0] for _ in range(2)] == [200, 200]
        assert clients(moving, "?query=mick")[0]["state"] == "closing"


def test_overview_has_the_numbers_of_the_metrics_page(pushed):
    """Both are made from one registry."""
    with Client(pushed, "AAPL", token=make_token("nora")):
        client_of(pushed, "nora")
        _, body = ask(pushed, "GET", "/ops/overview")
        (worker,) = body["workers"]
        for name in (
            'market_data_connections{state="active"}',
            "market_data_connections_total",
            "market_data_subscriptions",
            'market_data_circuit_breakers{state="closed"}',
            "market_data_leader",
        ):
            assert worker["metrics"][name] == pushed.metric(name), name
    assert worker["worker"] is None
    assert worker["health"]["components"]["pool"]["detail"]
    assert worker["health"]["checks"]
    assert (body["silent"], body["takes_prices"], body["interval"]) == ([], True, 10)
    names = [each["name"] for each in body["series"]]
    assert len(names) == len(set(names))
    assert {"connections", "messages", "bytes", "latency_p95", "lag", "refused"} <= set(names)


def test_recorder_adds_a_point_every_ten_seconds(pushed):
    """The newest point has the connections of now; a later request gets only what is new."""
    with Client(pushed, "AAPL", token=make_token("sam")):
        client_of(pushed, "sam")
        last = ask(pushed, "GET", "/ops/overview")[1]["last"]

        def newest() -> dict[str, Any]:
            body: dict[str, Any] = ask(pushed, "GET", f"/ops/overview?since={last}")[1]
            return body

        eventually(lambda: newest()["last"] > last, 30)
        series = {each["name"]: each for each in newest()["series"]}
        open_now = pushed.metric('market_data_connections{state="active"}')
    assert series["connections"]["points"][-1] == open_now
    assert len(series["connections"]["points"]) <= 2
    assert series["memory"]["points"][-1] > 1e6


@pytest.mark.parametrize("path", ["/ops/clients?limit=101", "/ops/clients?page_token=1001",
                                  "/ops/clients?query=" + "x" * 101, "/ops/overview?since=-1",
                                  "/ops/clients?limit=x"])  # a table # fmt: skip
def test_parameters_are_bounded(pushed, path):
    """A value beyond its limits is refused with its name."""
    status, body = ask(pushed, "GET", path)
    assert (status, body["error"]["code"]) == (400, "bad_request")
    assert body["error"]["message"].startswith(("limit", "page_token", "query", "since"))


def test_no_test_price_without_published_prices(moving):
    """A server whose prices come from elsewhere has no such route, and says so."""
    assert ask(moving, "POST", "/ops/prices?price=2.5")[0] == 404
    assert ask(moving, "GET", "/ops/overview")[1]["takes_prices"] is False


def test_own_port_takes_everybody_for_an_operator(tmp_path):
    """With OPS_PORT the routes are there only, and need no token. A bad token is refused all the
    same, and so is a page of another site.
    """
    with ServerProcess(tmp_path, OPS_PORT="0") as server:
        assert server.process.stdout is not None
        assert ask(server, "GET", "/ops/overview")[0] == 404
        server.http_url = server.process.stdout.readline().split()[1].removesuffix("/health")
        with Client(server, "AAPL", token=make_token("carl")):
            view = json.loads(server.get("/ops/clients?query=carl")[1])["clients"][0]
            path = f"/ops/clients/{view['id']}/disconnect"
            for headers in (
                {"Origin": "https://evil.example"},
                {"Origin": "null"},
                {"Sec_Fetch_Site": "cross-site"},
            ):
                status, text = server.request("POST", path, **headers)
                assert (status, json.loads(text)["error"]["code"]) == (403, "forbidden")
            assert server.request("POST", path, Authorization="Bearer x")[0] == 401
            assert server.request("POST", path, Origin=server.http_url)[0] == 200
        server.await_event("admin", action="disconnect", user=None, address="127.0.0.1")
        assert json.loads(server.get("/ops/instruments?query=AAPL")[1])[0]["symbol"] == "AAPL"
