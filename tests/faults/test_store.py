"""Postgres and Redis are killed, frozen, emptied, cut off and filled up while clients stream.

In each case streaming clients notice nothing, HTTP answers in time as docs/store.md says, and all
recovers by itself.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from subprocess import PIPE, Popen
from threading import Thread
from urllib.parse import quote
from urllib.request import Request, urlopen

import pytest

from bench.services import Postgres
from tests.faults.proxy import Proxy
from tests.gateway.wire import Client, new_user, refusal
from tests.processes import ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

ANSWER_TIMEOUT = 4.0
"""Seconds for an answer: the loader's two, and the lateness of this machine."""

FROZEN_TIME = 10.0
"""Seconds of a pause, longer than every timeout of the store."""

RECOVERY_TIMEOUT = 15.0


@pytest.fixture
def url(postgres: Postgres, tmp_path) -> str:
    """A database with the shipped instruments."""
    from tests.cli.command import run

    done = run(tmp_path, "import", DATABASE_URL=postgres.url())
    assert done.returncode == 0, done.stderr
    return postgres.url()


@contextmanager
def serving(tmp_path, **variables: str) -> Iterator[ServerProcess]:
    variables = {"PRICE_UPDATE_INTERVAL": "100ms", "LOG_LEVEL": "info", **variables}
    with ServerProcess(tmp_path, **variables) as server:
        yield server
        errors = [line for line in server.log_lines() if line["level"] == "error"]
        assert not errors


@contextmanager
def streaming(server: ServerProcess) -> Iterator[Client]:
    """Connect a client that misses no version, and waits a second for none, all the time."""
    with Client(server, "AAPL", token=make_token(new_user())) as client:
        client.receive()
        gaps: list[float] = []
        versions: list[int] = []
        over = False

        def listen() -> None:
            watch = Stopwatch(server.process.pid)
            while not over:
                client.receive()
                versions.append(client.versions["AAPL"])
                gaps.append(watch.seconds)
                watch = Stopwatch(server.process.pid)

        thread = Thread(target=listen)
        thread.start()
        try:
            yield client
        finally:
            over = True
            thread.join()
        assert versions == list(range(versions[0], versions[0] + len(versions)))
        assert max(gaps) < 1.5


def ask(server: ServerProcess, symbol: str) -> tuple[int, object]:
    """Ask for `/market-data` of one symbol. Return its status, and whether it is stale or the
    error's code.
    """
    watch = Stopwatch(server.process.pid)
    status, body = server.ask(f"/market-data?symbols={symbol}")
    assert watch.seconds < ANSWER_TIMEOUT
    if status != 200:
        return status, body["error"]["code"]
    assert [each["symbol"] for each in body] == [symbol]
    return status, body[0].get("stale", False)


def ask_many(server: ServerProcess, path: str, symbols: str) -> tuple[int, str | None]:
    """Return the number of answered symbols, and the unavailable ones if the answer names some."""
    request = Request(f"{server.http_url}{path}?symbols={quote(symbols)}")
    request.add_header("Authorization", f"Bearer {make_token('service')}")
    with urlopen(request) as response:
        return len(json.load(response)), response.headers["Unavailable-Symbols"]


def recovers(server: ServerProcess, symbol: str) -> None:
    """Wait until a symbol can be had that no client has asked for."""
    deadline = time.monotonic() + RECOVERY_TIMEOUT
    while ask(server, symbol) != (200, False):
        assert time.monotonic() < deadline, "it does not recover"
        time.sleep(0.2)


def breaker(server: ServerProcess, component: str) -> str:
    for state in ("closed", "open", "half_open"):
        sample = f'market_data_store_breaker{{component="{component}",state="{state}"}}'
        if server.metric(sample):
            return state
    raise AssertionError("no state")


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_database_goes_and_comes_back(tmp_path, postgres, url, fault):
    """Cached and live symbols are served, and stale past their TTL. The rest is 503."""
    with serving(tmp_path, DATABASE_URL=url, CACHE_TTL="1s") as server, streaming(server):
        assert ask(server, "IBM") == (200, False)
        getattr(postgres, fault)()
        down_since = time.monotonic()
        assert ask(server, "MSFT") == (503, "store_unavailable")
        time.sleep(1.2)  # IBM's time is over
        assert ask(server, "IBM") == (200, True)
        assert ask(server, "AAPL") == (200, False)
        for path in ("/market-data", "/quotes"):
            assert ask_many(server, path, "AAPL,IBM,MMM,ODD/É") == (2, "MMM,ODD/%C3%89")
        for _ in range(3):
            assert ask(server, "MMM") == (503, "store_unavailable")
        assert breaker(server, "catalogue") != "closed"
        assert ask(server, "NVDA")[0] == 503
        watch = Stopwatch(server.process.pid)
        assert server.ask("/instruments?query=nvidia")[0] == 503
        assert watch.seconds < 1  # by the breaker
        answer = refusal(server.url("ORCL"))
        assert answer.verdict == (503, "store_unavailable")
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        with Client(server, "AAPL") as client:
            client.receive()
            message = client.ask("subscribe", symbols=["AAPL", "ORCL"], id=7)
            assert (message["type"], message["symbols"]) == ("ack", ["AAPL"])
            message = client.answer()
            assert (message["code"], message["symbols"]) == ("store_unavailable", ["ORCL"])
            assert client.ask("subscribe", symbols=["*"])["code"] == "store_unavailable"
        assert server.get("/readyz")[0] == 200
        if fault == "freeze":
            time.sleep(max(0, down_since + FROZEN_TIME - time.monotonic()))
            postgres.thaw()
        else:
            postgres.start()
        recovers(server, "MSFT")
        assert breaker(server, "catalogue") == "closed"
        with Client(server, "ORCL") as client:
            assert client.receive()["type"] == "quotes_patch"
        server.await_event("postgres is back")
    lines = [line["event"] for line in server.log_lines()]
    assert lines.count("postgres is unavailable") <= 2  # once, or twice around a lucky call
    assert "postgres is back" in lines


@pytest.mark.parametrize("fault", ["kill", "freeze"])
def test_cache_goes_and_comes_back(tmp_path, url, redis, fault):
    """The database answers, the breaker stops asking Redis, one line says so. Then hits are hits
    again.
    """
    with (
        serving(tmp_path, DATABASE_URL=url, REDIS_URL=redis.url) as server,
        streaming(server),
    ):
        assert ask(server, "IBM") == (200, False)
        getattr(redis, fault)()
        for symbol in ("MSFT", "IBM", "MMM", "NVDA"):
            assert ask(server, symbol) == (200, False)
        assert breaker(server, "cache") != "closed"
        watch = Stopwatch(server.process.pid)
        assert ask(server, "ORCL") == (200, False)
        assert watch.seconds < 1
        errors = server.metric('market_data_cache_requests_total{result="error"}')
        hits = server.metric('market_data_cache_requests_total{result="hit"}')
        assert errors >= 4
        redis.thaw() if fault == "freeze" else redis.start()
        deadline = time.monotonic() + RECOVERY_TIMEOUT
        while server.metric('market_data_cache_requests_total{result="hit"}') == hits:
            assert ask(server, "IBM") == (200, False)
            assert time.monotonic() < deadline
            time.sleep(0.2)
        server.await_event("redis cache is back")
    lines = [line["event"] for line in server.log_lines()]
    assert lines.count("redis cache is unavailable") == lines.count("redis cache is back") == 1


def test_cache_loses_everything(tmp_path, url, redis):
    """An emptied cache is filled anew from the database."""
    with serving(tmp_path, DATABASE_URL=url, REDIS_URL=redis.url) as server, streaming(server):
        assert ask(server, "IBM") == (200, False)
        redis.command("FLUSHALL")
        assert ask(server, "IBM") == (200, False)
        recovers(server, "MSFT")


def test_both_are_down(tmp_path, postgres, url, redis):
    """Live streaming goes on, also for new clients. Known symbols are served, and all recovers."""
    with (
        serving(tmp_path, DATABASE_URL=url, REDIS_URL=redis.url, CACHE_TTL="1s") as server,
        streaming(server),
    ):
        assert ask(server, "IBM") == (200, False)
        postgres.kill()
        redis.kill()
        time.sleep(1.2)
        assert ask(server, "IBM") == (200, True)
        assert ask(server, "MSFT") == (503, "store_unavailable")
        with Client(server, "AAPL") as client:
            client.receive()
            client.move()
        postgres.start()
        redis.start()
        recovers(server, "MSFT")


def test_connections_are_cut(tmp_path, postgres, url, redis):
    """The server replaces connections that break while it uses them."""
    with Proxy(postgres.port) as to_postgres, Proxy(redis.port) as to_redis:
        address = url.replace(f":{postgres.port}/", f":{to_postgres.port}/")
        cache = f"redis://127.0.0.1:{to_redis.port}/0"
        with serving(tmp_path, DATABASE_URL=address, REDIS_URL=cache) as server, streaming(server):
            for symbol in ("IBM", "MSFT", "MMM"):
                recovers(server, symbol)
                to_postgres.cut()
                to_redis.cut()
            to_postgres.stall()
            assert ask(server, "NVDA") == (503, "store_unavailable")
            to_postgres.flow()
            recovers(server, "NVDA")


@contextmanager
def locked(postgres: Postgres) -> Iterator[None]:
    """Lock the table of instruments against every other session."""
    command = [str(postgres.programs / "psql"), "-qXAt", "-d", postgres.url()]
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as psql:
        assert psql.stdin is not None
        assert psql.stdout is not None
        lock = "BEGIN; LOCK market_data IN ACCESS EXCLUSIVE MODE; SELECT 'locked';"
        print(lock, file=psql.stdin, flush=True)
        assert psql.stdout.readline() == "locked\n"
        yield


def test_pool_is_full(tmp_path, postgres, url):
    """Every connection of the pool waits for a lock. Requests are refused in time until the lock
    ends.
    """
    with serving(tmp_path, DATABASE_URL=url, DATABASE_POOL_SIZE="2") as server, streaming(server):
        assert ask(server, "IBM") == (200, False)
        statuses = []

        def many(symbol: str) -> None:
            statuses.append(ask(server, symbol))

        threads = [Thread(target=many, args=(symbol,)) for symbol in ("MMM", "AOS", "NVDA", "ORCL")]
        with locked(postgres):
            for each in threads:
                each.start()
            eventually(lambda: server.metric("market_data_db_pool_used") == 2)
            assert server.metric("market_data_db_pool_size") == 2
            for each in threads:
                each.join()
            assert statuses == [(503, "store_unavailable")] * 4
            assert ask(server, "IBM") == (200, False)
        recovers(server, "MMM")


def test_database_is_down_at_the_start(tmp_path, postgres, url):
    """The server starts, says what is missing, and goes on when the database is there."""
    postgres.kill()
    with serving(tmp_path, DATABASE_URL=url) as server:
        assert ask(server, "IBM") == (503, "store_unavailable")
        postgres.start()
        recovers(server, "IBM")
        with Client(server, "*") as client:
            while len(client.versions) < 513:
                client.receive()


def test_database_that_can_only_be_read(tmp_path, postgres, url):
    """A database that turns read-only, as after a failover, is logged once. All else goes on, and
    prices are written later.
    """
    variables = {"DATABASE_URL": url, "PRICE_WRITE_INTERVAL": "2s"}

    sessions = "FROM pg_stat_activity WHERE application_name = 'quotestream'"
    end = f"SELECT pg_terminate_backend(pid) {sessions}"
    with serving(tmp_path, **variables) as server, streaming(server):
        eventually(lambda: server.metric("market_data_prices_saved_total") > 0)
        # Right after a write: if its session ends during one, the server meets another error first.
        postgres.sql(f"ALTER DATABASE postgres SET default_transaction_read_only = on; {end}")
        eventually(lambda: breaker(server, "write_back") == "open")
        errors = server.metric("market_data_db_errors_total")
        for symbol in ("IBM", "MSFT", "MMM"):
            assert ask(server, symbol) == (200, False)
        eventually(
            lambda: server.metric("market_data_db_errors_total") >= errors + 2, RECOVERY_TIMEOUT
        )
        saved = server.metric("market_data_prices_saved_total")
        writable = "ALTER DATABASE postgres RESET default_transaction_read_only"
        postgres.sql(f"SET TRANSACTION READ WRITE; {writable}; {end}")
        eventually(
            lambda: server.metric("market_data_prices_saved_total") > saved, RECOVERY_TIMEOUT
        )
        server.await_event("writing to postgres is back")
    lines = [line["event"] for line in server.log_lines()]
    assert lines.count("writing to postgres is unavailable") == 1
    assert lines.count("writing to postgres is back") == 1
    assert "read-only transaction" in server.log.read_text()


def test_stop_while_nothing_answers(tmp_path, postgres, url, redis):
    """A stop does not wait long for either of them: it takes at most ten seconds, with exit code 0."""

    def ask_in_vain() -> None:
        with suppress(OSError):  # the server goes away meanwhile
            ask(server, "MSFT")

    with ServerProcess(
        tmp_path, DATABASE_URL=url, REDIS_URL=redis.url, PRICE_UPDATE_INTERVAL="50ms"
    ) as server:
        assert ask(server, "IBM") == (200, False)
        with Client(server, "AAPL") as client:
            client.receive()
            postgres.freeze()
            redis.freeze()
            client.move()
            asking = Thread(target=ask_in_vain)
            asking.start()
            time.sleep(0.2)
            assert server.stop() == 0
            assert server.stop_seconds < 9
            asking.join()
        events = [line["event"] for line in server.own_lines()]
        assert events[-2:] == ["the last prices could not be written", "stopped"]
