"""`/readyz` is 503 with reasons while clients would be refused, and 200 while they are served."""

import json

from tests.cli.command import run
from tests.gateway.wire import Client, refusal
from tests.processes import ServerProcess, eventually

NOTICE_TIMEOUT = 30.0
"""Seconds to notice a database's start or stop: it is asked every two, and the machine may be busy."""


def readiness(server: ServerProcess) -> tuple[int, list[str]]:
    """Return status and reasons."""
    status, body = server.get("/readyz")
    return status, json.loads(body)["reasons"]


def test_red_until_the_database_has_answered_once(tmp_path, postgres):
    """Until then, handshakes that name symbols are refused. Symbols in memory are served."""
    assert run(tmp_path, "import", DATABASE_URL=postgres.url()).returncode == 0
    postgres.kill()
    with ServerProcess(tmp_path, DATABASE_URL=postgres.url()) as server:
        assert readiness(server) == (503, ["the catalogue (postgres) has not answered yet"])
        assert refusal(server.url("AAPL")).verdict == (503, "store_unavailable")
        assert server.get("/healthz")[0] == 200
        postgres.start()
        eventually(lambda: readiness(server) == (200, []), NOTICE_TIMEOUT)
        with Client(server, "AAPL") as client:
            client.receive()
        postgres.kill()
        eventually(lambda: is_down(server), NOTICE_TIMEOUT)
        assert readiness(server) == (200, [])
        with Client(server, "AAPL") as client:
            client.receive()


def test_red_while_nothing_is_in_memory_and_the_database_is_away(tmp_path, postgres):
    """The database answered once, but no symbol is in memory: all handshakes would be refused."""
    assert run(tmp_path, "import", DATABASE_URL=postgres.url()).returncode == 0
    with ServerProcess(tmp_path, DATABASE_URL=postgres.url()) as server:
        assert readiness(server) == (200, [])
        postgres.kill()
        eventually(lambda: is_down(server), NOTICE_TIMEOUT)
        assert readiness(server) == (503, ["the catalogue (postgres) does not answer"])
        assert refusal(server.url("AAPL")).verdict == (503, "store_unavailable")
        postgres.start()
        eventually(lambda: readiness(server) == (200, []), NOTICE_TIMEOUT)


def test_full_pool_is_no_reason(tmp_path):
    """The server refuses a client with `Retry-After`, which a load balancer would not send."""
    with ServerProcess(tmp_path, WS_MAX_CONNECTIONS="1") as server, Client(server, "AAPL"):
        assert refusal(server.url("AAPL")).verdict == (503, "at_capacity")
        assert readiness(server) == (200, [])


def is_down(server: ServerProcess) -> bool:
    """Return whether the database's breaker is open."""
    return not server.metric('market_data_store_breaker{component="catalogue",state="closed"}')
