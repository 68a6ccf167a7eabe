"""Requests of an administrator, and the clients that they tell of."""

import json
import urllib.error
import urllib.request
from typing import Any

from tests.processes import ServerProcess, eventually, make_token


def ask(
    server: ServerProcess, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    """Return the status and the decoded answer of an administrator's request."""
    request = urllib.request.Request(server.http_url + path, data=body, method=method)
    token = make_token("olivia", role="admin")
    for name, value in {"Authorization": f"Bearer {token}", **headers}.items():
        request.add_header(name.replace("_", "-"), value)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def clients(server: ServerProcess, query: str = "") -> list[dict[str, Any]]:
    status, body = ask(server, "GET", f"/ops/clients{query}")
    assert status == 200
    found: list[dict[str, Any]] = body["clients"]
    return found


def client_of(server: ServerProcess, user: str) -> dict[str, Any]:
    """Wait until a user has one client that is known to be open, and return it."""
    eventually(lambda: len(clients(server, f"?query={user}")) == 1)
    return clients(server, f"?query={user}")[0]
