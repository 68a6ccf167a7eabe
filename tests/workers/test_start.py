"""`serve --workers N`: faults that stop the start, the output, and ports of other programs."""

import signal
import socket
import subprocess

import pytest

from tests.cli.command import COMMAND, TIMEOUT, complaint, environment, run
from tests.processes import SECRET, ServerProcess, make_token
from tests.stopwatch import Stopwatch
from tests.workers.host import Host


def test_workers_need_redis(tmp_path):
    """One line says what is missing."""
    line = complaint(tmp_path, "serve", "--workers", "2")
    assert line == ("quotestream: --workers needs REDIS_URL: workers share prices through Redis")


def test_supervisor_imports_nothing_that_serves_clients(tmp_path):
    """Its process stays small: neither the server nor a driver is imported."""
    done = subprocess.run(
        [COMMAND[0], "-X", "importtime", *COMMAND[1:], "serve", "--workers", "2"],
        cwd=tmp_path,
        env=environment(JWT_SECRET=SECRET),
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if "|" in line}
    assert "server.workers.supervisor" in imported
    serving = {"server.app", "server.fanout", "server.cluster", "server.gateway.gateway"}
    drivers = {"server.store.store", "asyncpg", "redis", "trio_asyncio"}
    assert not imported & (serving | drivers)


@pytest.mark.parametrize("number", ["0", "-1", "many", "1.5"])
def test_number_of_workers_is_one_or_more(tmp_path, number):
    """Anything else is a usage error."""
    done = run(tmp_path, "serve", f"--workers={number}")
    assert done.returncode == 2
    assert f"argument --workers: {number!r} is not a number" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("variable", ["WS_PORT", "HTTP_PORT"])
@pytest.mark.parametrize("shares", [False, True])
def test_port_of_another_is_not_joined(tmp_path, redis, variable, shares):
    """Not even if that program shares it: clients would come to either."""
    with socket.create_server(("127.0.0.1", 0), reuse_port=shares) as other:
        port = str(other.getsockname()[1])
        variables = {"REDIS_URL": redis.url, variable: port}
        line = complaint(tmp_path, "serve", "--workers", "2", **variables)
    assert line.count(port) == 1
    assert "in use" in line


def test_fault_that_only_a_worker_finds_is_said_once(tmp_path, redis):
    """A replay that the workers cannot open stops the start as it does without workers."""
    variables = {"REDIS_URL": redis.url, "JWT_SECRET": SECRET, "FEED": "replay:none.csv"}
    done = run(tmp_path, "serve", "--workers", "2", LOG_LEVEL="error", **variables)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "none.csv" in done.stderr


def test_one_banner_and_every_line_of_the_log_names_its_worker(tmp_path, redis):
    """Two lines are printed once all workers serve. Only the supervisor's log lines name no worker."""
    with Host(tmp_path, redis, 2) as host:
        assert host.process.stdout is not None
        assert host.get("/healthz")[0] == 200
        assert host.stop() == 0
        assert host.process.stdout.read() == ""
    assert [line["worker"] for line in host.events("worker serves")] == [1, 2]
    started = host.events("started")
    assert [line.get("worker") for line in started] == [1, 2, None]
    assert started[0]["quotes"] == host.quotes_url
    assert {line.get("worker") for line in host.events("stopped")} == {1, 2, None}


def test_a_development_secret_is_the_same_for_all(tmp_path, redis):
    """The printed token is valid at each worker, although no file keeps the key."""
    variables = {"XDG_STATE_HOME": "/proc", "SQLITE_PATH": str(tmp_path / "quotes.db")}
    with Host(tmp_path, redis, 2, JWT_SECRET="", **variables) as host:
        token = host.lines[3].split()[1]
        for _ in range(20):  # half of them to either
            status, _ = host.request("GET", "/quotes?symbols=AAPL", Authorization=f"Bearer {token}")
            assert status == 200
        warnings = [line for line in host.log_lines() if "JWT_SECRET" in line["event"]]
        assert len(warnings) == 1


def test_two_servers_do_not_share_a_port_by_accident(tmp_path, redis):
    """A second supervisor, and a server without workers, are told that the port is in use."""
    with Host(tmp_path, redis, 1) as host:
        port = str(host.address[1])
        variables = {"REDIS_URL": redis.url, "WS_PORT": port, "JWT_SECRET": SECRET}
        assert "in use" in complaint(tmp_path, "serve", **variables)
        assert "in use" in complaint(tmp_path, "serve", "--workers", "1", **variables)
        assert host.get("/healthz")[0] == 200


REDIS_IS_LATE = {
    "redis cache is unavailable",
    "invalidations are not heard",
    "the bus does not do what it is asked",
    "the bus is lost",
}
"""Events on a machine that is too busy for Redis to answer within a quarter of a second."""


def test_workers_share_an_embedded_file(tmp_path, redis):
    """Without DATABASE_URL all workers use one SQLite file; a restart goes on from its prices."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "100ms"}
    clients = [f"symbols=AAPL&token={make_token(f'user{n}')}" for n in range(6)]
    with Host(tmp_path, redis, 3, **variables) as host:
        from websockets.sync.client import connect

        watch = Stopwatch(redis.pid, *host.pids)
        for query in clients:
            with connect(f"{host.quotes_url}?{query}") as connection:
                for _ in range(10):
                    connection.recv(TIMEOUT)
        starved = watch.is_starved
        assert host.stop() == 0
    complaints = {
        line["event"] for line in host.own_lines() if line["level"] in ("warning", "error")
    }
    assert not complaints - (REDIS_IS_LATE if starved else set())
    with ServerProcess(tmp_path) as server:
        (quote,) = server.ask("/quotes?symbols=AAPL")[1]
        assert quote["version"] > 5
        assert server.stop(signal.SIGINT) == 0


@pytest.mark.parametrize(
    "variables",
    [{"WORKERS_MIN": "3", "WORKERS_MAX": "2"}, {"SCALE_DOWN": "80"}, {"SCALE_UP_CPU": "0"}],
)
def test_thresholds_that_contradict_each_other_are_named(tmp_path, variables):
    """One line, before anything is started."""
    assert next(iter(variables)) in complaint(tmp_path, "serve", "--workers", "auto", **variables)
