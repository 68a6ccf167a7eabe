"""A publisher for tests: over HTTP, and over a WebSocket."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from websockets.sync.client import ClientConnection, connect

from tests.processes import TIMEOUT, ServerProcess, make_token


class Posted(NamedTuple):
    """The answer to a batch."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def counts(self) -> tuple[int, int, int, int, list[str]]:
        """The numbers of accepted, duplicate, late and held objects; the codes of the others."""
        names = ("accepted", "duplicate", "late", "held")
        accepted, duplicate, late, held = (self.body[name] for name in names)
        return accepted, duplicate, late, held, [each["code"] for each in self.body["rejected"]]

    @property
    def code(self) -> str:
        """The code of an error."""
        code: str = self.body["error"]["code"]
        return code


def publisher_token(**claims: Any) -> str:
    """Return the token of a publisher."""
    return make_token("press", role="publisher", **claims)


def post(
    server: ServerProcess,
    content: bytes | list[dict[str, Any]] | dict[str, Any],
    token: str | None = None,
    **headers: str,
) -> Posted:
    """Publish a body, or objects as one. Header names are given with `_` for `-`."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    connection = http.client.HTTPConnection(*server.http_address, timeout=TIMEOUT)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    sent |= {} if token == "" else {"Authorization": f"Bearer {token or publisher_token()}"}
    try:
        connection.request("POST", "/prices", body, sent)
        response = connection.getresponse()
        answer = json.loads(response.read())
    finally:
        connection.close()
    return Posted(response.status, answer, dict(response.getheaders()))


@contextmanager
def publishing(
    server: ServerProcess, token: str | None = None, **parameters: str
) -> Iterator[ClientConnection]:
    """Connect as a publisher."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    url = server.quotes_url.replace("/ws/quotes", "/ws/prices")
    url = f"{url}?token={token or publisher_token()}&{query}"
    with connect(url, open_timeout=TIMEOUT, ping_interval=None, compression=None) as connection:
        yield connection


def receive(connection: ClientConnection) -> dict[str, Any]:
    """Return the next message."""
    message: dict[str, Any] = json.loads(connection.recv(TIMEOUT))
    return message
