"""The operators' routes of a host with workers: each worker answers for all."""

import http.client
import json
import signal
from contextlib import ExitStack
from typing import Any

from tests.gateway.wire import Client
from tests.ops.as_operator import ask, clients
from tests.processes import eventually, make_token
from tests.workers.host import Host

CROWD = 16
"""Clients: that all of them come to one of two workers happens once in 30,000 runs."""


def test_operators_see_and_send_away_the_clients_of_all_workers(tmp_path, redis):
    """Whichever worker the kernel chooses, the answer has all clients, and reaches any of them."""
    with Host(tmp_path, redis, 2) as host, ExitStack() as stack:
        for number in range(CROWD):
            stack.enter_context(Client(host, "AAPL", token=make_token(f"crowd{number}")))
        eventually(lambda: len(clients(host)) == CROWD)
        found = clients(host)
        assert {each["worker"] for each in found} == {1, 2}
        assert len({each["id"] for each in found}) == CROWD

        # One worker answers all of them once in 2,000 runs.
        for _ in range(12):
            overview = ask(host, "GET", "/ops/overview")[1]
            assert [each["worker"] for each in overview["workers"]] == [1, 2]
            opened = [
                each["metrics"]["market_data_connections_total"] for each in overview["workers"]
            ]
            assert (min(opened) > 0, sum(opened)) == (True, CROWD)
            leaders = [each["metrics"]["market_data_leader"] for each in overview["workers"]]
            assert sum(leaders) == 1

        for each in found[:6]:
            status, _ = ask(host, "POST", f"/ops/clients/{each['id']}/disconnect")
            assert status == 200
            host.await_event("admin", action="disconnect", client=each["id"], user="olivia")
        eventually(lambda: len(clients(host)) == CROWD - 6)
        status, body = ask(host, "POST", "/ops/clients/3-1/drain")
        assert (status, body["error"]["code"]) == (404, "unknown_client")


def test_frozen_worker_is_named_and_does_not_hide_the_others(tmp_path, redis):
    """Its clients are missing, and the answers say so."""
    with Host(tmp_path, redis, 2, WORKER_TIMEOUT="60s") as host:
        host.kill(2, signal.SIGSTOP)
        try:
            # The frozen worker's port takes connections that it does not answer.
            body = None
            while body is None:
                body = overview_in_time(host)
            assert body["silent"] == [2]
            assert [each["worker"] for each in body["workers"]] == [1]
        finally:
            host.kill(2, signal.SIGCONT)


def overview_in_time(host: Host) -> dict[str, Any] | None:
    """Return an overview, None if the kernel chose a worker that does not answer."""
    token = make_token("olivia", role="admin")
    connection = http.client.HTTPConnection(*host.http_address, timeout=5)
    try:
        connection.request("GET", "/ops/overview", headers={"Authorization": f"Bearer {token}"})
        body: dict[str, Any] = json.loads(connection.getresponse().read())
    except TimeoutError:
        return None
    finally:
        connection.close()
    return body


def test_all_workers_recordings_are_added_up(tmp_path, redis):
    """The newest point of the connections counts those of both workers."""
    with Host(tmp_path, redis, 2) as host, ExitStack() as stack:
        for _ in range(CROWD):
            stack.enter_context(Client(host, "AAPL"))
        eventually(lambda: len(clients(host)) == CROWD)

        def newest() -> float | None:
            series = ask(host, "GET", "/ops/overview")[1]["series"]
            points = {each["name"]: each["points"] for each in series}["connections"]
            return points[-1] if points else None

        eventually(lambda: newest() == CROWD, 40)
