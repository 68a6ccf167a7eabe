"""`/metrics` of a host with workers: each worker answers for all."""

import http.client
import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.gateway.wire import Client, is_move
from tests.processes import eventually
from tests.workers.host import Host

CROWD = 16
"""Clients: that all of them come to one of two workers happens once in 30,000 runs."""


@contextmanager
def crowd(host: Host) -> Iterator[None]:
    """Run clients that stay. Each has received a full quote and an update."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(host, "AAPL")) for _ in range(CROWD)]
        for client in clients:
            while not is_move(client.receive()):
                pass
        yield


def scrape(host: Host, query: str = "") -> list[Metric]:
    """Return the page as Prometheus reads it, over a connection of its own."""
    status, page = host.get(f"/metrics{query}")
    assert status == 200
    return list(text_string_to_metric_families(page))


def by_worker(families: list[Metric], name: str, **labels: str) -> dict[str | None, float]:
    """Return the samples of one name with these labels, by `worker`."""
    return {
        sample.labels.get("worker"): sample.value
        for family in families
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def test_every_scrape_counts_the_connections_of_all_workers(tmp_path, redis):
    """The page shows each client once, under its worker, whichever worker the kernel chooses."""
    with Host(tmp_path, redis, 2, PRICE_UPDATE_INTERVAL="100ms") as host, crowd(host):
        # One worker answers all of them once in 2,000 runs.
        for _ in range(12):
            families = scrape(host)
            opened = by_worker(families, "market_data_connections_total")
            assert set(opened) == {"1", "2"}
            assert min(opened.values()) > 0
            assert sum(opened.values()) == CROWD
            names = [(family.name, family.type) for family in families]
            assert len(names) == len(set(names)), "Prometheus refuses a family that comes twice"
        latencies = by_worker(families, "market_data_delivery_latency_seconds_count")
        assert min(latencies.values()) > 0
        assert by_worker(families, "market_data_leader") in ({"1": 0, "2": 1}, {"1": 1, "2": 0})


def test_page_tells_of_the_supervisor_and_its_workers(tmp_path, redis):
    """The page shows the workers, which of them answer, their restarts and rolls."""
    with Host(tmp_path, redis, 2) as host:
        host.kill(2)
        host.await_event("worker serves", 2, worker=2)
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolled")
        families = scrape(host)
        assert by_worker(families, "market_data_workers", state="serving") == {None: 2}
        assert set(by_worker(families, "market_data_worker_up").values()) == {1}
        assert by_worker(families, "market_data_worker_restarts_total") == {None: 1}
        assert by_worker(families, "market_data_rolls_total", result="done") == {None: 1}
        memory = by_worker(families, "process_resident_memory_bytes")
        assert len(memory) == 3
        assert memory["supervisor"] > 0


def test_one_worker_s_own_page(tmp_path, redis):
    """Each worker gives the page of each, as a server without workers has it."""
    with Host(tmp_path, redis, 2, PRICE_UPDATE_INTERVAL="100ms") as host, crowd(host):
        opened = by_worker(scrape(host), "market_data_connections_total")
        for _ in range(6):
            for number in "12":
                own = scrape(host, f"?worker={number}")
                assert by_worker(own, "market_data_connections_total") == {None: opened[number]}
        for unknown in ("3", "supervisor", "x"):
            status, body = host.get(f"/metrics?worker={unknown}")
            assert (status, json.loads(body)["error"]["code"]) == (404, "not_found")


def test_frozen_worker_does_not_cost_the_others_page(tmp_path, redis):
    """The page still comes, and names the worker that did not answer. A request for that worker's own
    page gets 503 and not 404, as the worker exists.
    """
    with Host(tmp_path, redis, 2, WORKER_TIMEOUT="300s") as host:
        host.kill(1, signal.SIGSTOP)

        def says_so() -> bool:
            try:
                families = scrape(host)
            # The kernel gave the scrape to the frozen worker.
            except OSError:
                return False
            opened = by_worker(families, "market_data_connections_total")
            return set(opened) == {"2"} and by_worker(families, "market_data_worker_up") == {
                "1": 0,
                "2": 1,
            }

        eventually(says_so, 60)
        told = None
        while told is None:
            told = error_in_time(host, "/metrics?worker=1")
        assert told == (503, "host_unavailable")


def error_in_time(host: Host, path: str) -> tuple[int, str] | None:
    """Return the status and code of an error, None if the kernel chose a frozen worker."""
    connection = http.client.HTTPConnection(*host.http_address, timeout=5)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, json.loads(response.read())["error"]["code"]
    except TimeoutError:
        return None
    finally:
        connection.close()
