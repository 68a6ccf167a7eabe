"""Many requests for the same uncached symbols at once share their lookups, on a real Postgres."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from server.fanout.hub import Hub
from server.gateway.directory import Directory
from server.history.minutes import Minutes
from server.store.commands import import_instruments
from server.store.loop import open_asyncio_loop
from server.store.store import Store, StoreOptions, open_store
from tests.stopwatch import machine_is_busy
from tests.store.conftest import instrument

SYMBOLS = [f"COLD{number}" for number in range(50)]

REQUESTS = 10_000

REQUESTS_OF_BUSY_MACHINE = 1000
"""Few enough for the loader's two seconds though other programs take most of the time."""


@asynccontextmanager
async def open_running(**options) -> AsyncIterator[Store]:
    """Run a store with nothing in memory and all of SYMBOLS in its catalogue."""
    made = StoreOptions(**options)
    await import_instruments(made, [instrument(each) for each in SYMBOLS], lambda _: None)
    async with (
        open_asyncio_loop(options["database_url"]),
        open_store(made, lambda _: None, lambda: (), Minutes()) as store,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(store.run, Directory(Hub(), store.loader, store.catalogue))
        yield store
        nursery.cancel_scope.cancel()


@pytest.fixture(params=["memory", "redis"])
def redis_url(request) -> str:
    return "" if request.param == "memory" else request.getfixturevalue("redis").url


async def test_ten_thousand_requests_make_a_handful_of_queries(
    shared_postgres, database, redis_url
):
    """Each request gets all symbols. 50 rows are loaded by at most five queries."""
    shared_postgres.sql("CREATE EXTENSION pg_stat_statements", database)
    answers = []
    count = REQUESTS_OF_BUSY_MACHINE if machine_is_busy() else REQUESTS
    with trio.fail_after(60):
        async with open_running(
            database_url=shared_postgres.url(database), redis_url=redis_url
        ) as store:
            shared_postgres.sql("SELECT pg_stat_statements_reset()", database)

            async def request() -> None:
                answers.append(await store.loader.load(SYMBOLS, 10))

            async with trio.open_nursery() as requests:
                for _ in range(count):
                    requests.start_soon(request)
            stats = store.stats
    assert len(answers) == count
    assert all(set(answer.found) == set(SYMBOLS) for answer in answers)
    query = "SELECT sum(calls), sum(rows) FROM pg_stat_statements WHERE query LIKE '%ANY($%'"
    calls, rows = map(int, shared_postgres.sql(query, database).split("|"))
    assert 1 <= calls <= 5
    assert rows == 50
    assert stats.misses == 50
    assert stats.collapsed == 50 * (count - 1)


async def test_those_who_wait_outlive_the_one_that_asked_first(shared_postgres, database):
    """The first request is cancelled while a lock delays the query. The others get the answer."""
    with trio.fail_after(30):
        async with open_running(database_url=shared_postgres.url(database)) as store:
            lock = "BEGIN; LOCK market_data IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(1); COMMIT"
            answers = []

            async def request(scope: trio.CancelScope) -> None:
                with scope:
                    answers.append(await store.loader.load(["COLD7"]))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(trio.to_thread.run_sync, shared_postgres.sql, lock, database)
                await trio.sleep(0.3)
                first, second = trio.CancelScope(), trio.CancelScope()
                nursery.start_soon(request, first)
                await trio.testing.wait_all_tasks_blocked(0.05)
                nursery.start_soon(request, second)
                await trio.testing.wait_all_tasks_blocked(0.05)
                first.cancel()
            assert [list(answer.found) for answer in answers] == [["COLD7"]]
            assert store.stats.misses == 1
            assert sum(store.stats.queries["find"].counts) == 1
