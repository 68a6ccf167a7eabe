"""Several instances over one database, and commands beside them."""

import signal
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from server.store.importing import read_instruments
from tests.cli.command import COMMAND, TIMEOUT, complaint, environment, run
from tests.gateway.wire import Client
from tests.processes import START_TIMEOUT, ServerProcess, eventually, make_token
from tests.store.served import knows, names, write


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

        def is_cached(symbol: str) -> bool:
            # The look for changes may come after the notice, and remove the value once more.
            lives = names(one, symbol) and int(redis.command("TTL", f"market_data:{symbol}"))
            return 270 - 2 <= (lives or 0) <= 300

        eventually(partial(is_cached, "NEW"))
        eventually(partial(is_cached, "AAPL"))
        shared_postgres.sql(
            "UPDATE market_data SET name = 'Newest' WHERE symbol = 'AAPL'", database
        )
        assert names(two, "AAPL") == {"AAPL": "Newer"}
        path = "/admin/market-data/cache/invalidate?symbols=AAPL"

        # The look for changes may be faster, and leave nothing to remove.
        def is_invalidated() -> bool:
            cached = names(two, "AAPL")
            return bool(cached and one.ask(path, "DELETE", role="admin")[1]["count"])

        eventually(is_invalidated)
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

        def refusals() -> int:
            stats = redis.command("INFO", "commandstats").partition("cmdstat_subscribe:")[2]
            return int(stats.split("rejected_calls=")[1].split(",")[0])

        eventually(lambda: refusals() > 3)
        assert len(server.events("invalidations are not heard")) == 1
        assert not server.events("invalidations are heard again")


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
        "applied 0007_life_of_a_symbol",
        "applied 0008_every_kind",
        "applied 0009_minute_bars",
        "applied 0010_sessions",
    ]
    assert run(tmp_path, "migrate", DATABASE_URL=database_url).stdout == "nothing to do\n"


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
        ("TSLA,Tesla,STOCK,1e14,", "not a price"),
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
    file = write(tmp_path, *(f"S{number},Some name,STOCK,1," for number in range(50_000)))
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
