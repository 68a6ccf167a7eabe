"""Pages and their files: what a browser may load, reach and know."""

import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes import ServerProcess

HTML = "text/html,application/xhtml+xml,*/*;q=0.8"


@pytest.fixture(scope="module")
def development(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server without a secret."""
    with ServerProcess(
        tmp_path_factory.mktemp("development"), JWT_SECRET="", HTTP_ALLOWED_ORIGINS="*"
    ) as process:
        yield process


def fetch(server: ServerProcess, path: str, **headers: str) -> tuple[int, str, dict[str, str]]:
    """Ask for a path as it is. Return the status, the body and the headers."""
    connection = http.client.HTTPConnection(*server.http_address, timeout=10)
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): text for name, text in headers.items()}
        )
        response = connection.getresponse()
        headers = {name.lower(): text for name, text in response.getheaders()}
        return response.status, response.read().decode(), headers
    finally:
        connection.close()


def config(server: ServerProcess, query: str = "", **headers: str) -> dict[str, Any]:
    """Return a page's configuration."""
    status, body, answered = fetch(server, f"/web/config.json{query}", **headers)
    assert (status, answered["cache-control"]) == (200, "no-store")
    found: dict[str, Any] = json.loads(body)
    return found


@pytest.mark.parametrize("path", ["/", "/ops"])
def test_page_loads_and_reaches_only_this_server(server, path):
    """No other site, no inline code, no frame; the only other port is the streaming port."""
    status, body, headers = fetch(server, path, Accept=HTML)
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    policy = dict(each.split(maxsplit=1) for each in headers["content-security-policy"].split("; "))
    stream = f"ws://127.0.0.1:{server.address[1]}"
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "img-src": "'self' data:",
        "connect-src": f"'self' {stream}",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    assert headers["x-content-type-options"] == "nosniff"
    assert "http://" not in body.replace("http://www.w3.org/", "")
    assert "https://" not in body
    assert "<style" not in body
    assert " style=" not in body


@pytest.mark.parametrize(
    ("host", "stream"),
    [
        ("localhost:{}", "ws://localhost:{}/ws/quotes"),
        ("[::1]:{}", "ws://[::1]:{}/ws/quotes"),
        ("quotes.example", "/ws/quotes"),
        ("quotes.example:1", "/ws/quotes"),
        ("*:{}", "/ws/quotes"),
        ("a;script-src:{}", "/ws/quotes"),
    ],
)
def test_page_finds_the_stream(server, host, stream):
    """At this server's own port it is the streaming port; a proxy has both at one address."""
    name = host.format(server.http_address[1])
    expected = stream.format(server.address[1])
    assert config(server, Host=name)["stream"] == expected
    policy = fetch(server, "/", Accept=HTML, Host=name)[2]["content-security-policy"]
    origin = expected.removesuffix("/ws/quotes")
    assert f"connect-src 'self'{' ' + origin if origin else ''};" in policy
    assert policy.count("script-src") == 1


def test_development_page_gets_a_token(development):
    """Only under a name of this machine. With `role=admin` it opens the operators' page."""
    port = development.http_address[1]
    for query, path in (("", "/quotes?symbols=AAPL"), ("?role=admin", "/health")):
        token = config(development, query)["token"]
        assert fetch(development, path, Authorization=f"Bearer {token}")[0] == 200
    admin = config(development, "?role=admin")["token"]
    report = fetch(development, "/health", Authorization=f"Bearer {admin}")[1]
    assert "detail" in json.loads(report)["components"]["event_loop"]
    for host in (f"evil.example:{port}", "evil.example", f"127.0.0.1.evil.example:{port}"):
        assert config(development, Host=host)["token"] is None


@pytest.mark.parametrize(
    ("headers", "is_given"),
    [
        ({"Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Site": "none"}, True),
        ({"Origin": "http://{}"}, True),
        ({"X_Forwarded_For": "127.0.0.1"}, True),
        ({"X_Forwarded_For": "127.0.0.1, ::1"}, True),
        ({"Sec_Fetch_Site": "cross-site"}, False),
        # A page of another port of this machine is another page.
        ({"Sec_Fetch_Site": "same-site", "Origin": "http://localhost:3000"}, False),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"X_Forwarded_For": "192.0.2.7"}, False),
        ({"X_Forwarded_For": "127.0.0.1, 192.0.2.7"}, False),
        ({"X_Forwarded_For": ""}, False),
        ({"X_Real_IP": "2001:db8::7"}, False),
        ({"Forwarded": "for=192.0.2.7"}, False),
        ({"Via": "1.1 proxy.example"}, False),
    ],
)
def test_development_token_is_for_the_own_page_on_this_machine(development, headers, is_given):
    """Other sites' pages get none, though CORS lets them read; others behind a proxy get none."""
    host = "{}:{}".format(*development.http_address)
    given = {name: text.format(host) for name, text in headers.items()}
    assert (config(development, "?role=admin", **given)["token"] is not None) == is_given


def test_proxy_that_hides_itself_gets_no_development_token(development):
    """By default, nginx sends HTTP/1.0 and its target's name, and not the client's address."""
    host, port = development.http_address
    with socket.create_connection((host, port), 10) as client:
        client.sendall(f"GET /web/config.json HTTP/1.0\r\nHost: localhost:{port}\r\n\r\n".encode())
        answer = b""
        while data := client.recv(4096):
            answer += data
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["token"] is None


def test_page_with_a_secret_gets_no_token(server):
    """The visitor must have one."""
    assert config(server)["token"] is None
    assert config(server, "?role=admin")["token"] is None


@pytest.mark.parametrize(
    "path",
    [
        "/web/",
        "/web/__init__.py",
        "/web/../auth.py",
        "/web/%2e%2e/auth.py",
        "/web//quotes.js",
        "/web/x.js",
        "/web/index.html",
        "/web/ops.html",
    ],
)
def test_nothing_else_is_served(server, path):
    """Only files of `server/web` with a known ending, and a page only with its policy."""
    assert fetch(server, path)[0] == 404


def test_file_is_loaded_once(server):
    """A browser asks whether its copy is still right."""
    status, _, headers = fetch(server, "/quotes.js")
    assert (status, headers["content-type"]) == (200, "text/javascript; charset=utf-8")
    assert fetch(server, "/web/quotes.js", If_None_Match=headers["etag"])[:2] == (304, "")


def test_operators_have_the_page_on_their_port(tmp_path):
    """With OPS_PORT, `/ops` and its files are there, and the public port has no `/ops`."""
    with ServerProcess(tmp_path, OPS_PORT="0") as server:
        assert server.process.stdout is not None
        address = server.process.stdout.readline().split()[1].removesuffix("/health")
        assert fetch(server, "/ops", Accept=HTML)[0] == 404
        connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=10)
        for path in ("/ops", "/web/config.json", "/quotes.js"):
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            assert response.status == 200, path
        connection.close()


def test_page_knows_where_prices_come_from(tmp_path, development):
    """The page says if prices are not today's. It learns the names of feeds, and no file."""
    assert config(development)["prices"] == ["simulator"]
    trades = tmp_path / "trades.csv"
    trades.write_text("timestamp_ms,symbol,price,size\n1381132800614,AAPL,13.94,500\n")
    with ServerProcess(tmp_path, FEED=f"replay:{trades}") as replay:
        assert config(replay)["prices"] == ["replay"]
    with ServerProcess(tmp_path, FEED="push+simulator:TEST1") as both:
        assert config(both)["prices"] == ["push", "simulator"]
