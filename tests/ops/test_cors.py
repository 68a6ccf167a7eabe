"""Pages of the allowed origins use the API, and read every answer of it; other pages read none."""

import http.client
import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.processes import TIMEOUT, ServerProcess, make_token

ORIGIN = "https://charts.example"

ALLOWED = f"http://localhost:3000, {ORIGIN}"

PUBLISHING = {"Source", "Source-Epoch", "Idempotency-Key", "Content-Encoding"}


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def names(self, header: str) -> set[str]:
        """Return the parts of a header with a list of names."""
        return {each.strip() for each in self.headers.get(header, "").split(",")}

    @property
    def readable(self) -> str | None:
        """Return the origin whose pages may read the answer."""
        return self.headers["Access-Control-Allow-Origin"]


def ask(server: ServerProcess, path: str, method: str = "GET", **headers: str) -> Answer:
    """Send a request. Header names are given with `_` for `-`."""
    connection = http.client.HTTPConnection(*server.http_address, timeout=TIMEOUT)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, headers=named)
    response = connection.getresponse()
    answer = Answer(response.status, response.headers, response.read())
    connection.close()
    return answer


def preflight(server: ServerProcess, path: str, method: str, *wanted: str, origin=ORIGIN) -> Answer:
    """Ask as a browser does before a page's request."""
    headers = {"Access_Control_Request_Method": method}
    if wanted:
        # Browsers send these names in lower case.
        headers["Access_Control_Request_Headers"] = ",".join(wanted).lower()
    return ask(server, path, "OPTIONS", Origin=origin, **headers)


@pytest.fixture(scope="module")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server that takes prices, for pages of two origins."""
    folder = tmp_path_factory.mktemp("cors")
    with ServerProcess(folder, FEED="push", HTTP_ALLOWED_ORIGINS=ALLOWED) as process:
        yield process


def routes(server: ServerProcess) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Return path, method and description of every route of the API."""
    document = json.loads(ask(server, "/openapi.json").body)
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield path.replace("{symbol}", "AAPL"), method.upper(), described


def test_every_route_answers_a_preflight(open_server):
    """It takes the route's method and header parameters, and those of tokens and bodies."""
    for path, method, described in routes(open_server):
        parameters = [each["name"] for each in described["parameters"] if each["in"] == "header"]
        answer = preflight(
            open_server, path, method, "Authorization", "Content-Type", "If-None-Match", *parameters
        )
        assert answer.status == 200, (path, method)
        assert answer.readable == ORIGIN
        assert method in answer.names("Access-Control-Allow-Methods")
        assert "Origin" in answer.names("Vary")
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert preflight(open_server, "/prices", "POST", *PUBLISHING).status == 200


def test_every_described_header_can_be_read(open_server):
    """A page reads the headers that the API's description names, and the entity's tag."""
    described = {
        name
        for _, _, route in routes(open_server)
        for response in route["responses"].values()
        for name in response.get("headers", ())
    }
    exposed = ask(open_server, "/healthz", Origin=ORIGIN).names("Access-Control-Expose-Headers")
    wanted = {"ETag", "Retry-After", "Next-Page-Token", "Unavailable-Symbols", "WWW-Authenticate"}
    assert exposed >= wanted | described
    page = ask(
        open_server,
        "/instruments?limit=2",
        Origin=ORIGIN,
        Authorization=f"Bearer {make_token()}",
    )
    assert page.headers["Next-Page-Token"]
    assert page.readable == ORIGIN


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/quotes?symbols=AAPL", "GET", {}, 401),
        ("/admin/market-data/cache/warm?symbols=AAPL", "POST", {"Authorization": "user"}, 403),
        ("/instruments/NOSUCH", "GET", {"Authorization": "user"}, 404),
        ("/nowhere", "GET", {}, 404),
        ("/%zz", "GET", {}, 404),
        ("/quotes", "PUT", {}, 405),
        ("/quotes", "GET", {"Authorization": "user"}, 400),
        ("/prices", "POST", {"Content_Length": "9999999"}, 413),
        ("/quotes", "get", {}, 400),
        ("/quotes", "GET", {"Upgrade": "websocket", "Connection": "Upgrade"}, 404),
    ],
)
def test_errors_can_be_read(open_server, path, method, headers, status):
    """Whether a route, the admission or the port itself refuses the request."""
    if headers.get("Authorization"):
        headers = headers | {"Authorization": f"Bearer {make_token()}"}
    for origin in (ORIGIN, "https://other.example"):
        answer = ask(open_server, path, method, Origin=origin, **headers)
        assert answer.status == status
        assert json.loads(answer.body)["error"]["code"]
        assert answer.readable == (ORIGIN if origin == ORIGIN else None)
        assert "Origin" in answer.names("Vary")


def test_spent_budgets_can_be_read(tmp_path):
    """A page learns from a 429 when to try again, with a token and without one."""
    rates = {"ADDRESS_REQUEST_RATE": "1", "ADDRESS_FAILURE_RATE": "1"}
    with ServerProcess(tmp_path, HTTP_ALLOWED_ORIGINS="*", **rates) as server:
        for path in ("/version", "/quotes?symbols=AAPL"):
            answers = [ask(server, path, Origin=ORIGIN) for _ in range(15)]
            assert answers[-1].status == 429
            assert answers[-1].headers["Retry-After"]
            for answer in answers:
                assert answer.readable == "*"
                assert "Retry-After" in answer.names("Access-Control-Expose-Headers")
                assert "Access-Control-Allow-Credentials" not in answer.headers
        # A preflight costs the page no part of its budget.
        assert preflight(server, "/quotes", "GET", "Authorization").status == 200


@pytest.mark.parametrize(
    ("origin", "method", "wanted", "status", "code"),
    [
        ("https://other.example", "GET", "Authorization", 403, "origin_not_allowed"),
        (f"{ORIGIN}.other.example", "GET", "Authorization", 403, "origin_not_allowed"),
        ("null", "GET", "Authorization", 403, "origin_not_allowed"),
        (ORIGIN, "PATCH", "Authorization", 400, "bad_request"),
        (ORIGIN, "GET", "X-Unknown", 400, "bad_request"),
    ],
)
def test_refused_preflight_has_the_form_of_all_errors(
    open_server, origin, method, wanted, status, code
):
    """The origin, the method or a header is not allowed."""
    answer = preflight(open_server, "/quotes", method, wanted, origin=origin)
    assert (answer.status, json.loads(answer.body)["error"]["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.readable == (ORIGIN if origin == ORIGIN else None)
    assert "Origin" in answer.names("Vary")


def test_cached_answer_names_its_origin(open_server):
    """A shared cache keeps answers for different origins apart, also one that says 304."""
    authorization = {"Authorization": f"Bearer {make_token()}"}
    first = ask(open_server, "/instruments/AAPL", Origin=ORIGIN, **authorization)
    again = ask(
        open_server,
        "/instruments/AAPL",
        Origin=ORIGIN,
        If_None_Match=first.headers["ETag"],
        **authorization,
    )
    assert (first.status, again.status) == (200, 304)
    for answer in (first, again, ask(open_server, "/instruments/AAPL", **authorization)):
        assert answer.names("Vary") == {"Authorization", "Origin"}
    assert again.readable == ORIGIN


def test_without_the_setting_no_header_is_sent(server):
    """Pages of other origins read nothing, as before."""
    for answer in (
        ask(server, "/version", Origin=ORIGIN),
        ask(server, "/quotes", Origin=ORIGIN),
        ask(server, "/prices", "POST", Origin=ORIGIN, Content_Length="9999999"),
        preflight(server, "/quotes", "GET"),
    ):
        names = {name.lower() for name in answer.headers}
        assert not {name for name in names if name.startswith("access-control-")}
        assert "Origin" not in answer.names("Vary")


def test_operators_port_shares_nothing(tmp_path):
    """The setting is for the API, which a port of the operators' own does not have."""
    with ServerProcess(tmp_path, OPS_PORT="0", HTTP_ALLOWED_ORIGINS="*") as server:
        assert ask(server, "/version", Origin=ORIGIN).readable == "*"
        assert server.process.stdout is not None
        address = server.process.stdout.readline().split()[1].removesuffix("/health")
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=TIMEOUT)
        connection.request("GET", "/health", headers={"Origin": ORIGIN})
        response = connection.getresponse()
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers
        connection.close()
