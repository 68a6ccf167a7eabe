"""Fixtures with real catalogues."""

from collections.abc import AsyncIterator

import pytest
import trio
import trio_asyncio

from server.quotes.instrument import Instrument
from server.store.catalogue import Catalogue
from server.store.catalogue_memory import MemoryCatalogue
from server.store.catalogue_postgres import open_postgres
from server.store.catalogue_sqlite import open_sqlite
from server.store.stats import StoreStats

TIMEOUT = 20.0


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def catalogue(request, tmp_path) -> AsyncIterator[Catalogue]:
    """Open each implementation, empty and migrated."""
    if request.param == "memory":
        yield MemoryCatalogue()
    elif request.param == "sqlite":
        async with open_sqlite(tmp_path / "quotes.db", (), StoreStats()) as catalogue:
            await catalogue.migrate()
            yield catalogue
    else:
        url = request.getfixturevalue("database_url")
        async with trio_asyncio.open_loop(), open_postgres(url, 4, StoreStats()) as postgres:
            await postgres.migrate()
            yield postgres


@pytest.fixture(params=["sqlite", "postgres", "postgres and redis"])
def shared(request, tmp_path) -> dict[str, str]:
    """Return the variables of servers that share an empty store."""
    if request.param == "sqlite":
        return {"SQLITE_PATH": str(tmp_path / "quotes.db"), "CATALOGUE": "empty"}
    variables = {"DATABASE_URL": request.getfixturevalue("database_url")}
    if "redis" in request.param:
        variables["REDIS_URL"] = request.getfixturevalue("redis").url
    return variables


def instrument(symbol: str, name: str = "", price: float = 100.0) -> Instrument:
    return Instrument(symbol=symbol, name=name or f"{symbol} Inc.", base_price=price)


async def fill(catalogue: Catalogue, *instruments: Instrument) -> None:
    with trio.fail_after(TIMEOUT):
        await catalogue.upsert(instruments, lambda _: None)
