"""The modules that a server does without, by the list that Python prints of a real process."""

from tests.gateway.wire import Client
from tests.processes import ServerProcess

UNUSED = {
    *("redis", "trio_asyncio"),
    *("asyncpg", "server.store.catalogue_postgres", "server.store.writes_postgres"),
    "cryptography.hazmat.bindings",
    *("trio_websocket", "server.websocket_client", "server.app.venues", "server.feeds.live.feed"),
    *("jsonpatch", "server.client", "quotestream"),
    *("rich.console", "pygments", "greenlet._greenlet"),
    *("importlib.resources", "zipfile"),
    "hpack",
    *("server.workers.supervisor", "server.workers.host"),
}
"""Modules for Redis, Postgres, public keys, live venues, clients, terminals, archives,
HTTP/2 and workers.
"""


def test_server_imports_only_what_it_uses(tmp_path):
    """An empty server has no Redis, Postgres or public key. It pays for none of their modules, even
    once it has a client and has answered requests.
    """
    with ServerProcess(tmp_path, PYTHONPROFILEIMPORTTIME="1") as server:
        with Client(server, "AAPL") as client:
            assert client.is_answered()
        for path in ("/readyz", "/health", "/metrics", "/openapi.json"):
            assert server.get(path)[0] == 200
        server.stop()
    lines = server.log.read_text().splitlines()
    imported = {
        line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")
    }
    assert {"trio", "structlog.contextvars", "server.app.serve", "server.ops.openapi"} <= imported
    assert imported & UNUSED == set()
