"""Several instances over one database, commands beside them, and restarts."""

import signal
import sqlite3
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from server.store.importing import read_instruments
from tests.cli.command import COMMAND, TIMEOUT, complaint, environment, run
from tests.gateway.wire import Client
from tests.processes import SECRET, START_TIMEOUT, ServerProcess, eventually, make_token
from tests.stopwatch import Stopwatch

CSV = "symbol,name,type,price,market_cap\n"


def write(folder: Path, *rows: str) -> str:
    file = folder / "instruments.csv"
    file.write_text(CSV + "".join(f"{row}\n" for row in rows))
    return str(file)


def names(server: ServerProcess, symbols: str) -> dict[str, str]:
    status, body = server.ask(f"/market-data?symbols={symbols}")
    assert status == 200
    return {each["symbol"]: each["name"] for each in body}


def knows(server: ServerProcess, expected: dict[str, str]) -> bool:
    return names(server, ",".join(expected)) == expected


def has_saved(server: ServerProcess) -> bool:
    return server.metric("market_data_prices_saved_total") > 0


def test_import_and_invalidation_reach_every_instance(
    tmp_path, database_url, redis, shared_postgres, database
):
    """Instances that cached a symbol, or knew that it does not exist, see an import at once. The same
    holds for an invalidation by an administrator.
    """
    variables = {"DATABASE_URL": database_url, "REDIS_URL": redis.url}
    file = write(tmp_path, "AAPL,Old,STOCK,100,")
    assert run(tmp_path, "import", file, **variables).returncode == 0
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    with (
        ServerProcess(folders[0], **variables) as one,
        ServerProcess(folders[1], **variables) as two,
    ):
        for server in (one, two):
            assert names(server, "AAPL,NEW") == {"AAPL": "Old"}
        write(tmp_path, "AAPL,Newer,STOCK,100,", "NEW,New,ETF,1.5,7")
        done = run(tmp_path, "import", file, **variables)
        assert done.stdout == "2 instruments listed\n", done.stderr
        for server in (one, two):
            expected = {"AAPL": "Newer", "NEW": "New"}
            eventually(partial(knows, server, expected))
        assert redis.command("TTL", "market_data:NEW") != "-2"
        assert 270 - 2 <= int(redis.command("TTL", "market_data:AAPL")) <= 300
        shared_postgres.sql(
            "UPDATE market_data SET name = 'Newest' WHERE symbol = 'AAPL'", database
        )
        assert names(two, "AAPL") == {"AAPL": "Newer"}
        path = "/admin/market-data/cache/invalidate?symbols=AAPL"
        assert one.ask(path, "DELETE", role="admin")[1]["count"] == 1
        eventually(lambda: names(two, "AAPL") == {"AAPL": "Newest"})


def test_invalidations_are_heard_again_after_redis_was_down(tmp_path, database_url, redis):
    """A lost connection loses messages, so symbols known not to exist are looked up again."""
    with ServerProcess(tmp_path, DATABASE_URL=database_url, REDIS_URL=redis.url) as server:
        eventually(
            lambda: redis.command("PUBSUB", "NUMSUB", "market_data_invalidate").endswith("1")
        )
        redis.kill()
        redis.start()
        eventually(
            lambda: redis.command("PUBSUB", "NUMSUB", "market_data_invalidate").endswith("1")
        )
        # The server's log line comes after the subscription that Redis counts.
        server.await_event("invalidations are heard again")
        assert server.events("invalidations are not heard")


def test_user_of_redis_without_the_channel_is_told_once(tmp_path, redis):
    """An ACL without rights for channels: the log says so once, and never calls it mended."""
    redis.command("ACL", "SETUSER", "default", "resetchannels")
    with ServerProcess(tmp_path, REDIS_URL=redis.url) as server:
        server.await_event("invalidations are not heard")
        connections = redis.command("INFO", "stats").split("total_connections_received:")[1]
        tries = int(connections.split()[0])

        def tried_again() -> bool:
            stats = redis.command("INFO", "stats").split("total_connections_received:")[1]
            return int(stats.split()[0]) > tries + 8

        eventually(tried_again)
        assert len(server.events("invalidations are not heard")) == 1
        assert not server.events("invalidations are heard again")


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_restart_goes_on_from_the_last_price(request, tmp_path, kind):
    """After a restart, clients see the same price, version and volume as before."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms"}
    if kind == "postgres":
        variables["DATABASE_URL"] = request.getfixturevalue("database_url")
        assert run(tmp_path, "import", **variables).returncode == 0
    with ServerProcess(tmp_path, **variables) as server:
        with Client(server, "AAPL") as client:
            client.receive()
            for _ in range(5):
                client.move()
        assert server.stop() == 0
    quote, version = client.quotes["AAPL"], client.versions["AAPL"]
    variables["PRICE_UPDATE_INTERVAL"] = "1h"
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        assert client.versions["AAPL"] >= version
        if client.versions["AAPL"] == version:
            assert client.quotes["AAPL"] == quote
        assert client.quotes["AAPL"]["base_price"] == quote["base_price"]
        assert client.quotes["AAPL"]["volume"] >= quote["volume"]


def test_prices_are_written_while_serving(tmp_path):
    """A killed server loses the last seconds only. A start loads the symbols watched last."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "200ms"}
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        client.move()
        eventually(lambda: server.metric("market_data_prices_saved_total") > 0)
        server.stop(signal.SIGKILL)
    with ServerProcess(tmp_path, **variables) as server:
        server.await_event("cache warmed")
        _, [quote] = server.ask("/quotes?symbols=AAPL")
        assert quote["version"] > 1


def test_replayed_symbols_are_listed(tmp_path):
    """A replay lists symbols that the catalogue does not have. Listed ones keep their name."""
    day = tmp_path / "day.csv"
    day.write_text(
        "timestamp_ms,symbol,price,size\n1764012345678,ODD,1.2345,100\n1764012345679,AAPL,9,1\n"
    )
    with ServerProcess(tmp_path, FEED=f"replay:{day}") as server:
        eventually(lambda: server.metric("market_data_feed_updates_total") == 2)
        assert server.stop() == 0
    with ServerProcess(tmp_path) as server:
        _, body = server.ask("/market-data?symbols=ODD,AAPL")
        assert {each["symbol"]: each["last_quote"] for each in body} == {"ODD": 1.2345, "AAPL": 9}
        assert names(server, "AAPL")["AAPL"].startswith("Apple")


def test_last_prices_outlast_a_database_that_is_down(tmp_path, postgres):
    """Prices that could not be written are written when the database is back."""
    variables = {
        "DATABASE_URL": postgres.url(),
        "PRICE_UPDATE_INTERVAL": "50ms",
        "PRICE_WRITE_INTERVAL": "200ms",
    }
    assert run(tmp_path, "import", **variables).returncode == 0
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        postgres.kill()
        for _ in range(20):
            client.move()
        version = client.versions["AAPL"]
        postgres.start()
        query = "SELECT version FROM market_data WHERE symbol = 'AAPL'"
        deadline = time.monotonic() + 10
        while int(postgres.sql(query)) < version:
            assert time.monotonic() < deadline
            client.move()


def test_two_servers_share_the_embedded_file(tmp_path):
    """Two servers start together on a new file. Both serve and write."""
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    variables = {
        "SQLITE_PATH": str(tmp_path / "quotes.db"),
        "PRICE_UPDATE_INTERVAL": "50ms",
        "PRICE_WRITE_INTERVAL": "100ms",
    }
    with ThreadPoolExecutor() as pool:
        servers = [ServerProcess(folder, **variables) for folder in folders]
        try:
            list(pool.map(ServerProcess.__enter__, servers))
            clients = [Client(server, "AAPL") for server in servers]
            for server, client in zip(servers, clients, strict=True):
                with client:
                    client.receive()
                    eventually(partial(has_saved, server))
                assert server.metric("market_data_db_errors_total") == 0
                assert server.stop() == 0
        finally:
            for server in servers:
                server.__exit__(None, None, None)


def test_file_that_another_process_writes_to_is_read(tmp_path):
    """Requests are answered at once meanwhile. Last prices are written afterwards."""
    variables = {"PRICE_UPDATE_INTERVAL": "50ms", "PRICE_WRITE_INTERVAL": "100ms"}
    with ServerProcess(tmp_path, **variables) as server, Client(server, "AAPL") as client:
        client.receive()
        eventually(partial(has_saved, server))
        with closing(sqlite3.connect(tmp_path / "quotestream" / "quotes.db")) as other:
            other.execute("BEGIN IMMEDIATE")
            saved = server.metric("market_data_prices_saved_total")
            for _ in range(10):  # half a second: the server waits for its turn to write
                client.move()
            watch = Stopwatch(server.process.pid)
            assert set(names(server, "MMM")) == {"MMM"}
            assert watch.seconds < 1
            assert server.metric("market_data_prices_saved_total") <= saved + 1  # one just before
        eventually(lambda: server.metric("market_data_prices_saved_total") > saved + 1)


def test_migrating_together(tmp_path, database_url, shared_postgres, database):
    """Five processes migrate at once, and each migration is applied once."""

    def migrate(_: int) -> subprocess.CompletedProcess[str]:
        return run(tmp_path, "migrate", DATABASE_URL=database_url)

    with ThreadPoolExecutor() as pool:
        done = list(pool.map(migrate, range(5)))
    assert [each.returncode for each in done] == [0] * 5
    applied = [line for each in done for line in each.stdout.splitlines() if "applied" in line]
    assert sorted(applied) == [
        "applied 0001_market_data",
        "applied 0002_quote_columns",
        "applied 0003_search",
        "applied 0004_changes",
        "applied 0005_folded_words",
        "applied 0006_first_price",
        "applied 0007_every_kind",
    ]
    assert run(tmp_path, "migrate", DATABASE_URL=database_url).stdout == "nothing to do\n"


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


@pytest.mark.parametrize("price", ["'NaN'", "'Infinity'", "1e400", "-5"])
def test_row_without_a_price_is_taken_for_none(
    tmp_path, database_url, shared_postgres, database, price
):
    """A foreign row without a valid price is left out, and the others are served."""
    variables = {"DATABASE_URL": database_url}
    assert run(tmp_path, "import", **variables).returncode == 0
    shared_postgres.sql(
        "INSERT INTO market_data (symbol, name, category, last_quote) "
        f"VALUES ('BAD', 'Bad', 1, {price}); "
        f"UPDATE market_data SET last_quote = {price} WHERE symbol = 'IBM'",
        database,
    )
    with ServerProcess(tmp_path, **variables) as server:
        assert set(names(server, "BAD,IBM,MMM")) == {"MMM"}
        assert server.ask("/instruments?query=bad") == (200, [])
        with Client(server, "*") as client:
            while len(client.versions) < 512:
                client.receive()
        assert not client.versions.keys() & {"BAD", "IBM"}
        assert server.metric("market_data_db_errors_total") == 0


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("TSLA,Tesla,STOCK,-1,", "not a price: '-1'"),
        ("TSLA,Tesla,STOCK,nan,", "not a price"),
        ("TSLA,Tesla,STOCK,1e10,", "not a price"),
        ("TSLA,Tesla,STOCK,inf,", "not a price"),
        ("TSLA,Tesla,SHARK,1,", "type is not one of STOCK, ETF, INDEX"),
        ("TSLA,Tesla,STOCK,0,", "4 decimals"),
        (",Tesla,STOCK,1,", "not a symbol"),
        ("TSLA,,STOCK,1,", "not a name"),
        ("TSLA,Tesla,STOCK,1", "number of fields"),
        ("TSLA,Tesla,STOCK,1,x", "market_cap"),
        (f"TSLA,Tesla,STOCK,1,{2**53}", "market_cap"),
        ("aapl,Apple,STOCK,1,", "AAPL for a second time"),
        ('"TS,LA",Tesla,STOCK,1,', "no comma"),
        ("TS LA,Tesla,STOCK,1,", "no space"),
    ],
)
def test_bad_row_is_named_and_nothing_is_listed(tmp_path, row, problem):
    """The error names the line and the problem."""
    file = write(tmp_path, "AAPL,Apple,STOCK,100,", row)
    line = complaint(tmp_path, "import", file)
    assert f"{file} line 3: " in line
    assert problem in line
    assert not (tmp_path / "quotestream" / "quotes.db").exists()


@pytest.mark.parametrize(("decimals", "price"), [("0", 1.0), ("12", 1.123456789012)])
def test_prices_have_up_to_twelve_decimals(tmp_path, decimals, price):
    """Twelve decimals are accepted, thirteen are refused."""
    file = tmp_path / "fine.csv"
    file.write_text(f"symbol,name,price,price_decimals\nFINE,Fine,1.1234567890123,{decimals}\n")
    assert [each.base_price for each in read_instruments(file).instruments] == [price]
    file.write_text("symbol,name,price,price_decimals\nFINE,Fine,1,13\n")
    [(line, problem)] = read_instruments(file).problems
    assert line == 2
    assert "price_decimals is not a whole number from 0 to 12" in problem


def test_imported_prices_have_the_tick_s_precision(tmp_path):
    """HTTP and the stream show the rounded price."""
    file = write(tmp_path, "FINE,Fine,STOCK,1.23456,")
    assert run(tmp_path, "import", file).returncode == 0
    with ServerProcess(tmp_path) as server, Client(server, "FINE") as client:
        client.receive()
        assert client.quotes["FINE"]["base_price"] == 1.23456
        assert server.ask("/instruments/FINE")[1]["base_price"] == 1.23456
        assert server.ask("/market-data?symbols=FINE")[1][0]["last_quote"] == 1.23456


def test_commands_do_not_need_redis(tmp_path):
    """A command succeeds if Redis is down. An invalid REDIS_URL fails before anything is done."""
    file, away = write(tmp_path, "QQ,Q,STOCK,1,"), {"REDIS_URL": "redis://127.0.0.1:1/0"}
    line = complaint(tmp_path, "import", file, REDIS_URL="redis://127.0.0.1:1/0?colour=red")
    assert "REDIS_URL" in line
    assert "not listed: QQ" in complaint(tmp_path, "delist", "QQ")
    for arguments in (["import", file], ["delist", "QQ"]):
        done = run(tmp_path, *arguments, **away)
        assert (done.returncode, "warning" in done.stderr) == (0, True), done.stderr
    assert "not listed: QQ" in complaint(tmp_path, "delist", "QQ")


def test_import_that_is_interrupted_lists_nothing(tmp_path):
    """Ctrl-C in the middle of an import ends it at once, without output."""
    file = write(tmp_path, *(f"S{number},Some name,STOCK,1," for number in range(100_000)))
    written = tmp_path / "quotestream" / "quotes.db-wal"
    process = subprocess.Popen(
        [*COMMAND, "import", file],
        cwd=tmp_path,
        env=environment(XDG_STATE_HOME=str(tmp_path)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    eventually(lambda: written.exists() and written.stat().st_size > 2_000_000, START_TIMEOUT)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, output) == (130, "")
    with sqlite3.connect(tmp_path / "quotestream" / "quotes.db") as database:
        assert database.execute("SELECT count(*) FROM market_data").fetchone() == (513,)
    database.close()


def test_import_that_cannot_be_is_one_line(tmp_path):
    """A missing file, header or database is reported in one line."""
    other = tmp_path / "other.csv"
    other.write_text("a,b\n")
    assert "No such file" in complaint(tmp_path, "import", str(tmp_path / "none.csv"))
    assert "symbol, name, price" in complaint(tmp_path, "import", str(other))
    url = "postgresql://nobody:secret@127.0.0.1:1/none"
    line = complaint(tmp_path, "import", DATABASE_URL=url)
    assert "Postgres" in line
    assert "secret" not in line
    assert "Postgres" in complaint(tmp_path, "migrate", DATABASE_URL=url)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", "mysql://u:secret@h/d"),
        ("DATABASE_URL", "postgresql://u:p@secret@h:x/d"),
        ("DATABASE_URL", "postgresql://u:se/secret@h/d"),
        ("DATABASE_URL", "x"),
        ("REDIS_URL", "http://x"),
        ("DATABASE_URL", "postgresql://h:port/d"),
        ("DATABASE_URL", "postgresql://u:secret@a..b/d"),
        ("REDIS_URL", "redis://u:secret@a..b"),
        ("REDIS_URL", "redis://u:secret@h?socket_timeout=9"),
        ("CACHE_TTL", "0"),
        ("DATABASE_POOL_SIZE", "1"),
        ("CACHE_SYMBOLS", "0"),
        ("PRICE_WRITE_INTERVAL", "never"),
    ],
)
def test_bad_setting_is_named_without_its_password(tmp_path, variable, value):
    """The error is one line that names the variable."""
    line = complaint(tmp_path, "serve", **{variable: value})
    assert line.startswith(f"quotestream: {variable}=")
    assert "secret" not in line


def test_file_that_cannot_be_opened(tmp_path, redis):
    """An unusable SQLITE_PATH stops the start. An unusable default path only causes a warning."""
    (tmp_path / "quotestream").write_text("a file where a folder should be")
    assert "x.db" in complaint(
        tmp_path, "serve", JWT_SECRET=SECRET, SQLITE_PATH=str(tmp_path / "quotestream" / "x.db")
    )
    junk = tmp_path / "junk.db"
    junk.write_text("no database" * 1000)
    for variables in ({}, {"REDIS_URL": redis.url}):
        variables |= {"JWT_SECRET": SECRET, "SQLITE_PATH": str(junk)}
        line = complaint(tmp_path, "serve", **variables)
        assert "SQLITE_PATH" in line
        assert "junk.db" in line
    with ServerProcess(tmp_path) as server:
        assert len(server.ask("/market-data?symbols=AAPL,MSFT")[1]) == 2
        eventually(lambda: any("not kept" in line["event"] for line in server.log_lines()))


def test_drivers_are_imported_only_where_they_are_used(tmp_path):
    """A server without Postgres and Redis does not import their drivers."""
    code = (
        "import sys, server.app.serve, server.cli.commands; "
        "print([m for m in ('asyncpg', 'redis', 'trio_asyncio', 'asyncio') if m in sys.modules])"
    )
    done = subprocess.run(
        [COMMAND[0], "-c", code], capture_output=True, text=True, check=True, env=environment()
    )
    assert not {"'asyncpg'", "'redis'", "'trio_asyncio'"} & set(
        done.stdout.strip("[]\n").split(", ")
    )


def test_symbols_are_listed_when_they_are_asked_for(tmp_path):
    """The hub holds requested symbols. `*` brings all of them, also to clients that connect at once."""
    with ServerProcess(tmp_path) as server, Client(server, "AAPL") as client:
        client.receive()
        client.send("subscribe", symbols=["MSFT", "NOPE"], id=1)
        client.send("ping", id=2)
        first = client.answer()
        assert (first["type"], first["symbols"]) == ("ack", ["MSFT"])
        assert client.receive()["type"] == "quotes_patch"
        assert client.answer()["code"] == "unknown_symbol"
        assert client.answer()["type"] == "pong"
        assert server.metric("market_data_subscriptions") == 2
        everyone = [Client(server, "*", token=make_token(f"u{n}")) for n in range(5)]
        for each in everyone:
            with each:
                while len(each.versions) < 513:
                    each.receive()
    with sqlite3.connect(tmp_path / "quotestream" / "quotes.db") as file:
        assert file.execute("SELECT count(*) FROM market_data").fetchone() == (513,)
    file.close()
