"""Databases of a newer version, another encoding, locale, role or service."""

import sqlite3
from typing import Any

import asyncpg
import pytest
import trio
import trio_asyncio
from asyncpg.pool import PoolConnectionProxy

from server.store.catalogue import StoreUnavailable
from server.store.catalogue_postgres import open_postgres
from server.store.stats import StoreStats
from tests.cli.command import complaint, run
from tests.gateway.wire import Client
from tests.processes import SECRET, TIMEOUT, ServerProcess, eventually
from tests.store.served import has_saved, write


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_database_of_a_newer_version_is_named(
    tmp_path, kind, database_url, shared_postgres, database
):
    """Commands that would change it are refused in one line, and so is a start that would migrate."""
    variables = {"JWT_SECRET": SECRET} | (
        {"DATABASE_URL": database_url} if kind == "postgres" else {}
    )
    run(tmp_path, "migrate", **variables)
    insert = "INSERT INTO schema_migrations (version, name) VALUES (9999, '9999_future')"
    if kind == "postgres":
        shared_postgres.sql(insert, database)
    else:
        with sqlite3.connect(tmp_path / "quotestream" / "quotes.db") as file:
            file.execute(insert)
        file.close()
    for arguments in (["serve"], ["migrate"], ["import"], ["delist", "AAPL"]):
        line = complaint(tmp_path, *arguments, **variables)
        assert f"the {kind} database was migrated to 9999_future by a newer version" in line
    with ServerProcess(tmp_path, DATABASE_MIGRATE="0", **variables) as server:
        assert server.stop() == 0


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_encoding_that_cannot_hold_a_name_is_named(tmp_path, shared_postgres, encoding):
    """Before anything is served: each search would fail later."""
    name = f"encoded_{encoding.lower()}"
    shared_postgres.sql(
        f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        for command in ("migrate", "import", "serve"):
            line = complaint(tmp_path, command, DATABASE_URL=shared_postgres.url(name))
            assert f"the encoding of the database is {encoding}, not UTF8" in line
    finally:
        shared_postgres.sql(f"DROP DATABASE {name}")


def test_names_are_found_in_a_database_of_any_locale(tmp_path, shared_postgres):
    """With lc_ctype=C the database itself lowers ASCII only. Rows of another service are found, too."""
    shared_postgres.sql(
        "CREATE DATABASE plain ENCODING 'UTF8' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    )
    try:
        url = shared_postgres.url("plain")
        file = write(tmp_path, "OER,\u00d6rsted,STOCK,1,")
        assert run(tmp_path, "import", file, DATABASE_URL=url).returncode == 0
        with ServerProcess(tmp_path, DATABASE_URL=url) as server:
            shared_postgres.sql(
                "INSERT INTO market_data (symbol, name, category, last_quote) "
                "VALUES ('AEK', '\u00c4KTA', 1, 3)",
                "plain",
            )
            for query, symbol in (("%C3%96RSTED", "OER"), ("orsted", "OER"), ("%C3%A4kta", "AEK")):
                status, found = server.ask(f"/instruments?query={query}")
                assert (status, [each["symbol"] for each in found]) == (200, [symbol])
    finally:
        shared_postgres.sql("DROP DATABASE plain")


async def test_connection_that_cannot_be_ended_hides_no_error(database_url, monkeypatch):
    """asyncpg refuses to end a connection that it has taken back."""
    end = PoolConnectionProxy.terminate

    def refuse(connection: Any) -> None:
        end(connection)
        raise asyncpg.InterfaceError("released back to the pool")

    monkeypatch.setattr(PoolConnectionProxy, "terminate", refuse)
    async with trio_asyncio.open_loop(), open_postgres(database_url, 1, StoreStats()) as catalogue:
        with trio.fail_after(TIMEOUT), pytest.raises(StoreUnavailable, match="market_data"):
            await catalogue.find(["A"])


def test_query_that_fails_by_itself_does_not_stop_others(
    tmp_path, database_url, shared_postgres, database
):
    """A foreign hand has taken a column that only searches read. Symbols are found as before."""
    run(tmp_path, "import", DATABASE_URL=database_url)
    with ServerProcess(tmp_path, DATABASE_URL=database_url) as server:
        shared_postgres.sql("ALTER TABLE market_data DROP COLUMN words", database)
        for _ in range(5):
            assert server.ask("/instruments?query=apple")[0] == 503
        assert server.ask("/instruments/MMM")[0] == 200
        closed = 'market_data_store_breaker{component="catalogue",state="closed"}'
        assert server.metric(closed) == 1


def test_role_that_may_not_change_the_schema(tmp_path, database_url, shared_postgres, database):
    """With a migrated schema the role is enough. Otherwise the error names the missing right."""
    shared_postgres.sql("CREATE ROLE clerk LOGIN", database)
    clerk = {"DATABASE_URL": database_url.replace("quotes@", "clerk@")}
    try:
        assert "permission denied" in complaint(tmp_path, "migrate", **clerk)
        run(tmp_path, "import", DATABASE_URL=database_url)
        shared_postgres.sql(
            "GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO clerk; "
            "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO clerk",
            database,
        )
        assert run(tmp_path, "migrate", **clerk).stdout == "nothing to do\n"
        file = write(tmp_path, "QQ,Q,STOCK,1,")
        assert run(tmp_path, "import", file, **clerk).stdout == "1 instrument listed\n"
        with (
            ServerProcess(
                tmp_path, PRICE_WRITE_INTERVAL="100ms", PRICE_UPDATE_INTERVAL="100ms", **clerk
            ) as server,
            Client(server, "AAPL,QQ") as client,
        ):
            client.receive()
            eventually(lambda: has_saved(server))
    finally:
        shared_postgres.sql("DROP OWNED BY clerk; DROP ROLE clerk", database)


def test_table_of_another_service_is_taken_over(tmp_path, database_url, shared_postgres, database):
    """Its rows get the columns that quotes need, also rows added later."""
    shared_postgres.sql(
        "CREATE TABLE market_data (id serial primary key, symbol varchar(50) not null unique, "
        "name varchar(200) not null, category integer not null, last_quote numeric not null); "
        "INSERT INTO market_data (symbol, name, category, last_quote) "
        "VALUES ('AAPL', 'Apple', 1, 175.5)",
        database,
    )
    with ServerProcess(tmp_path, DATABASE_URL=database_url) as server:
        shared_postgres.sql(
            "INSERT INTO market_data (symbol, name, category, last_quote) VALUES ('VOO', 'Fund', 2, 0)",
            database,
        )
        with Client(server, "AAPL,VOO") as client:
            client.receive()
            assert client.quotes["AAPL"]["base_price"] == 175.5
            assert client.quotes["VOO"]["type"] == "ETF"
