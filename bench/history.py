"""A year of bars over HTTP, from Postgres and SQLite: a day of minutes, and a year of days.

It generates a year of one-minute bars straight into the tables: 261 days of 390 minutes for each
symbol. 500 symbols have 51 million bars. Months that are over lie in Postgres as the server leaves
them, in the order of symbols. The last month lies in the order of time. Requests come one after
another, each for one symbol chosen at random, so a symbol is rarely asked for twice.
"""

import argparse
import http.client
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import quantiles
from urllib.parse import urlsplit

from bench.figures import Figure, Result, Unit
from bench.services import MissingService, Postgres
from bench.target import OwnServer, TargetError

DATABASES = ("postgres", "sqlite")

YEAR = 2025

OPENING, MINUTES = 14 * 60 + 30, 390
"""The first minute of each day in UTC, and the number of minutes: a session in New York."""

DAY_TARGET, YEAR_TARGET = 0.050, 0.250
"""Seconds at the 99th percentile, for a day of minutes and for a year of days."""

COLUMNS = """
    instrument, minute, open, high, low, close, volume, turnover, count, first_us, last_us, revision
"""

SATURDAY, OK = 5, 200

READ_BYTES = 16 * 1024 * 1024

VALUES = """
    id, minute, price, price + 0.05, price - 0.04, price + 0.01, 1000 + (id * 7 + minute) % 900,
    price * 1000, 12, 1000000, 58000000, 0
FROM (SELECT id, minute, 50 + id % 400 + (minute * 31 + id * 17) % 100 / 100.0 AS price
"""


def run_history(options: argparse.Namespace) -> Result:
    """Measure. Errors: TargetError."""
    setting = f"a year of {options.symbols} symbols, {options.symbols * len(DAYS) * MINUTES:,} bars"
    result = Result("history", setting)
    try:
        with tempfile.TemporaryDirectory(prefix="quotestream-bench-") as folder:
            if "postgres" in options.only:
                with Postgres() as postgres:
                    _measure_postgres(options, postgres, Path(folder), result)
            if "sqlite" in options.only:
                _measure_sqlite(options, Path(folder), result)
    except MissingService as error:
        raise TargetError(str(error)) from None
    return result


def _days() -> Iterator[date]:
    day = date(YEAR, 1, 1)
    while day.year == YEAR:
        if day.weekday() < SATURDAY:
            yield day
        day += timedelta(days=1)


DAYS = [*_days()]


def _opening(day: date) -> int:
    """Return the first minute of a day, counted from the Unix epoch."""
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) // 60 + OPENING


def _measure_postgres(
    options: argparse.Namespace, postgres: Postgres, folder: Path, result: Result
) -> None:
    variables = {"DATABASE_URL": postgres.url()}
    symbols = _import(options.symbols, folder, variables)
    begin = time.monotonic()
    for month in range(1, 13):
        _fill_month(postgres, month, in_time_order=month == 12)
    # As autovacuum and the checkpointer leave them some minutes later.
    postgres.sql("VACUUM ANALYZE minute_bars")
    postgres.sql("CHECKPOINT")
    _note_size(
        "Postgres",
        int(
            postgres.sql(
                "SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('minute_bars')"
            )
        ),
        time.monotonic() - begin,
        symbols,
        result,
    )
    _measure("Postgres", symbols, options.requests, result, **variables)


def _fill_month(postgres: Postgres, month: int, *, in_time_order: bool) -> None:
    """Make and fill the partition of a month."""
    edges = [_opening(date(YEAR + n // 12, n % 12 + 1, 1)) - OPENING for n in (month - 1, month)]
    name = f"minute_bars_{YEAR}_{month:02}"
    openings = ", ".join(str(_opening(day)) for day in DAYS if day.month == month)
    order = "minute, id" if in_time_order else "id, minute"
    postgres.sql(
        f"CREATE TABLE {name} PARTITION OF minute_bars FOR VALUES FROM ({edges[0]}) TO ({edges[1]});"
        f"INSERT INTO {name} ({COLUMNS}) SELECT {VALUES} FROM market_data, "
        f"(SELECT opening + n AS minute FROM unnest(ARRAY[{openings}]) AS opening, "
        f"generate_series(0, {MINUTES - 1}) AS n) AS minutes ORDER BY {order}) AS bars;"
        + ("" if in_time_order else f"COMMENT ON TABLE {name} IS 'in the order of symbols'")
    )


def _measure_sqlite(options: argparse.Namespace, folder: Path, result: Result) -> None:
    file = folder / "bars.db"
    variables = {"SQLITE_PATH": str(file), "CATALOGUE": "empty"}
    symbols = _import(options.symbols, folder, variables)
    begin = time.monotonic()
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for day in DAYS:
            connection.execute(
                f"WITH RECURSIVE n(minute) AS (SELECT {_opening(day)} UNION ALL SELECT minute + 1 "
                f"FROM n LIMIT {MINUTES}) INSERT INTO minute_bars ({COLUMNS}) SELECT {VALUES} "
                "FROM n CROSS JOIN market_data ORDER BY minute, id)"
            )
            connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # Postgres' VACUUM has read its table, so it is in memory. A machine may drop the older part of the
    # file while the newer part is written.
    with file.open("rb") as data:
        while data.read(READ_BYTES):
            pass
    _note_size("SQLite", file.stat().st_size, time.monotonic() - begin, symbols, result)
    _measure("SQLite", symbols, options.requests, result, **variables)


def _note_size(
    database: str, size: int, seconds: float, symbols: list[str], result: Result
) -> None:
    bars = len(symbols) * len(DAYS) * MINUTES
    result.add(
        Figure(f"{database}, bytes a bar", size / bars, Unit.COUNT),
        Figure(f"{database}, size", size, Unit.BYTES),
        Figure(f"{database}, bars generated", bars / seconds, Unit.PER_SECOND),
    )


def _measure(
    database: str, symbols: list[str], requests: int, result: Result, **variables: str
) -> None:
    """Ask a server for days and years."""
    random = Random(1)
    with OwnServer(None, FEED="push", **variables) as server:
        token = server.query("bench", "").partition("token=")[2]
        headers = {"Authorization": f"Bearer {token}"}
        connection = http.client.HTTPConnection(urlsplit(server.http).netloc, timeout=60)
        for name, target, bars in (
            ("a day of minutes", DAY_TARGET, MINUTES),
            ("a year of days", YEAR_TARGET, len(DAYS)),
        ):
            seconds = []
            for _ in range(requests):
                symbol = random.choice(symbols)
                query = f"timeframe=1d&start={YEAR}-01-01&end={YEAR}-12-31"
                if bars == MINUTES:
                    day = random.choice(DAYS)
                    query = f"timeframe=1m&start={day}&end={day}"
                begin = time.perf_counter()
                connection.request(
                    "GET", f"/bars?symbols={symbol}&{query}&tz=America/New_York", headers=headers
                )
                response = connection.getresponse()
                body = response.read()
                seconds.append(time.perf_counter() - begin)
                found = json.loads(body) if response.status == OK else {}
                if len(found.get("bars", {}).get(symbol, ())) != bars:
                    raise TargetError(f"not {bars} bars: {response.status} {body[:200]!r}")
            cuts = quantiles(seconds, n=100)
            result.add(
                Figure(f"{database}, {name}, p50", cuts[49], Unit.SECONDS),
                Figure(f"{database}, {name}, p99", cuts[98], Unit.SECONDS, must=target),
            )


def _import(number: int, folder: Path, variables: dict[str, str]) -> list[str]:
    """List symbols, and return them."""
    symbols = [f"S{each:05}" for each in range(number)]
    file = folder / "instruments.csv"
    rows = "".join(f"{each},Company number {each[1:]} Inc.,175.5\n" for each in symbols)
    file.write_text(f"symbol,name,price\n{rows}")
    done = subprocess.run(
        [sys.executable, "-m", "server", "import", str(file)],
        env={"XDG_STATE_HOME": str(folder), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TargetError(done.stderr.strip())
    return symbols
