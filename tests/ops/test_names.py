"""Names of the operators' port: a foreign site's name may point to it (DNS rebinding)."""

import http.client
import json
from collections.abc import Iterator
from socket import gethostname
from typing import Any, NamedTuple

import pytest

from server.config.environment import BadSetting
from server.config.loading import load_settings
from server.ops.names import Names
from tests.processes import TIMEOUT, ServerProcess, make_token

FOREIGN = "rebound.example:8082"

GUARDED = (
    ("GET", "/ops/overview"),
    ("GET", "/ops/clients"),
    ("GET", "/ops/instruments?query=a"),
    ("POST", "/ops/clients/0-1/drain"),
    ("POST", "/ops/clients/0-1/disconnect"),
    ("POST", "/ops/import?dry_run=true"),
    ("DELETE", "/ops/instruments/AAPL"),
)

PROBED = ("/healthz", "/readyz", "/metrics", "/health", "/version")


class OperatorsPort(NamedTuple):
    server: ServerProcess
    address: str

    def ask(self, method: str, path: str, host: str | None, **headers: str) -> tuple[int, str]:
        """Send a request with the header `Host` as given, or without it."""
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)
        try:
            connection.putrequest(method, path, skip_host=True)
            if host is not None:
                connection.putheader("Host", host)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders()
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def details(self, host: str) -> bool:
        """Return whether `/health` tells its reasons."""
        status, text = self.ask("GET", "/health", host)
        assert status == 200
        return "detail" in json.loads(text)["components"]["event_loop"]


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorsPort]:
    """Start a server with an operators' port that has a name."""
    folder = tmp_path_factory.mktemp("names")
    with ServerProcess(folder, OPS_PORT="0", OPS_ALLOWED_HOSTS="ops.example.com") as server:
        assert server.process.stdout is not None
        url = server.process.stdout.readline().split()[1].removesuffix("/health")
        yield OperatorsPort(server, url.removeprefix("http://"))


def error(text: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(text)["error"]
    return found


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_page_of_a_name_that_points_here_gets_nothing(own, method, path):
    """For a browser, the site's page is the port's own. The error names the setting."""
    for more in ({}, {"Origin": f"http://{FOREIGN}"}, {"Sec_Fetch_Site": "same-origin"}):
        status, text = own.ask(method, path, FOREIGN, **more)
        assert (status, error(text)["code"]) == (421, "misdirected_request")
        assert "rebound.example" in error(text)["message"]
        assert "OPS_ALLOWED_HOSTS" in error(text)["message"]
    own.server.await_event("request refused", reason="misdirected_request", address="127.0.0.1")


@pytest.mark.parametrize("host", [FOREIGN, "", "10.0.0.1.rebound.example", "127.0.0.1"])
@pytest.mark.parametrize("path", PROBED)
def test_probes_and_scrapes_need_no_name(own, path, host):
    """A container's probe or Prometheus asks under whatever name it found the port."""
    assert own.ask("GET", path, host)[0] == 200


@pytest.mark.parametrize(("role", "status"), [("admin", 200), ("user", 421)])
def test_administrators_need_no_name(own, role, status):
    """A page of a foreign site cannot have an administrator's token, but may have a user's."""
    token = f"Bearer {make_token(role=role)}"
    assert own.ask("GET", "/ops/clients", FOREIGN, Authorization=token)[0] == status


def test_foreign_name_reads_no_details(own):
    """They name addresses, roles and databases."""
    assert own.details(own.address)
    assert own.details("ops.example.com")
    assert not own.details(FOREIGN)


def test_operators_names_are_known(own):
    """Addresses, names of this machine, and those of the setting, with any number of a port."""
    for host in (own.address, "localhost:1", "ops.example.com", f"{gethostname()}:8082", "[::1]"):
        assert own.ask("GET", "/ops/clients", host)[0] == 200, host


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3:8082", True),
        ("[2001:db8::1]:8082", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST.:80", True),
        ("ops.localhost:80", True),
        ("Ops.Example:1", True),
        (gethostname(), True),
        (None, True),
        ("", False),
        (":8082", False),
        ("evil.example", False),
        ("ops.example.evil.example", False),
        ("evilops.example", False),
        ("notlocalhost", False),
        ("localhost.evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("127.0.0.1x", False),
        ("[evil.example]", False),
    ],
)
def test_name_is_known(host, known):
    """The whole name counts, without case, port number and a last dot. Browsers always send one."""
    assert Names(["ops.example"]).know(host) is known
    assert Names(["*"]).know(host)


@pytest.mark.parametrize(
    "value",
    ["https://ops.example", "ops.example:8082", "ops example", "*,ops.example", "*.example"],
)
def test_name_that_no_request_has_stops_the_start(value):
    """It would allow nothing, so the operator learns of it."""
    with pytest.raises(BadSetting, match="OPS_ALLOWED_HOSTS"):
        load_settings({"OPS_ALLOWED_HOSTS": value})


def test_names_are_read():
    """They are separated by commas, in any case."""
    assert load_settings({"OPS_ALLOWED_HOSTS": "Ops.Example, b."}).ops_allowed_hosts == (
        "ops.example",
        "b.",
    )
    assert load_settings({"OPS_ALLOWED_HOSTS": "*"}).ops_allowed_hosts == ("*",)


def test_password_of_a_proxy_is_not_a_token(own):
    """A proxy before the port asks for a password, and passes the header on."""
    assert own.ask("GET", "/ops/clients", "localhost", Authorization="Basic b3BzOm9wcw==")[0] == 200
    assert own.ask("GET", "/ops/clients", "localhost", Authorization="Bearer x")[0] == 401
