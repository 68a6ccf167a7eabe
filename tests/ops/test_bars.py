"""`GET /bars`: the bars of a day equal those that a dozen lines of plain Python make of its trades."""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bench.trading_day import RECORDED, Rows, generate_day, load_day, write_day
from tests.processes import ServerProcess, eventually

NEW_YORK = "America/New_York"

Bars = dict[str, list[dict[str, Any]]]


def oracle(rows: Rows, minutes: int = 1, decimals: int = 2) -> Bars:
    """Return the bars of trades, by symbol. Minutes are counted from midnight UTC."""
    slots: dict[tuple[str, int], list[tuple[int, float, int]]] = {}
    for ms, symbol, price, size in rows:
        slot = int(ms) // 60_000 // minutes * minutes
        slots.setdefault((symbol, slot), []).append((int(ms), float(price), int(size)))
    bars: Bars = {}
    for (symbol, slot), found in sorted(slots.items()):
        trades = sorted(found, key=lambda each: each[0])
        prices, volume = [price for _, price, _ in trades], sum(size for *_, size in trades)
        turnover = sum(price * size for _, price, size in trades)
        bar = {"t": slot * 60, "o": prices[0], "h": max(prices), "l": min(prices), "c": prices[-1]}
        sums = {"v": volume, "n": len(trades), "vw": round(turnover / volume, decimals)}
        bars.setdefault(symbol, []).append(bar | sums)
    return bars


def fetched(server: ServerProcess, query: str) -> Bars:
    """Read all pages of a query. Bars have their time in seconds, and no `final` and `rev`."""
    bars: Bars = {}
    token = ""
    while True:
        status, page = server.ask(f"/bars?{query}{token}")
        assert status == 200, page
        for symbol, found in page["bars"].items():
            bars.setdefault(symbol, []).extend(map(plain, found))
        if page["next_page_token"] is None:
            return bars
        token = f"&page_token={page['next_page_token']}"


def plain(bar: dict[str, Any]) -> dict[str, Any]:
    left = {name: value for name, value in bar.items() if name not in ("final", "rev", "t")}
    return {"t": int(datetime.fromisoformat(bar["t"]).timestamp()), **left}


def all_of(rows: Rows) -> str:
    """Return the query of a day's symbols."""
    symbols = ",".join(sorted({row[1] for row in rows}))
    start = datetime.fromtimestamp(int(rows[0][0]) / 1000, UTC).date()
    return f"symbols={symbols}&start={start}&end={start}&tz={NEW_YORK}"


@pytest.fixture(params=["sqlite", "postgres"])
def variables(request, tmp_path) -> dict[str, str]:
    """A database of each kind."""
    if request.param == "sqlite":
        return {"SQLITE_PATH": str(tmp_path / "bars.db")}
    return {"DATABASE_URL": request.getfixturevalue("database_url")}


DAYS = ["generated", "recorded"] if RECORDED.exists() else ["generated"]
"""The recorded day lies beside the project, or does not."""


def replayed(tmp_path: Path, rows: Rows, **variables: str) -> ServerProcess:
    """Return a server that replays a day as fast as it can."""
    path = write_day(tmp_path / "trades.csv", rows)
    return ServerProcess(
        tmp_path, FEED=f"replay:{path}", REPLAY_SPEED="0", PRICE_WRITE_INTERVAL="200ms", **variables
    )


def await_bars(server: ServerProcess, query: str, expected: Bars) -> None:
    """Wait until the last bars are there."""
    server.await_event("feed ended")
    counts = {symbol: len(bars) for symbol, bars in expected.items()}
    eventually(lambda: {s: len(b) for s, b in fetched(server, query).items()} == counts, 30)


@pytest.mark.parametrize("day", DAYS)
def test_bars_of_a_day_are_the_oracle_s(tmp_path, variables, day):
    """All timeframes equal the oracle's bars, from memory and the database, and after a restart."""
    rows = load_day() if day == "recorded" else generate_day(20_000)
    # A symbol that the catalogue does not have gets four decimals.
    made = partial(oracle, rows, decimals=2 if "SQLITE_PATH" in variables else 4)
    query, minutes = all_of(rows), made()
    with replayed(tmp_path, rows, **variables) as server:
        await_bars(server, f"{query}&limit=10000", minutes)
        assert fetched(server, f"{query}&limit=371") == minutes
        assert fetched(server, f"{query}&limit=371&timeframe=5m") == made(5)
        newest = {symbol: bars[::-1] for symbol, bars in minutes.items()}
        assert fetched(server, f"{query}&limit=371&sort=desc") == newest
        count = sum(map(len, minutes.values()))
        written = "market_data_bars_written_total"
        eventually(lambda: server.metric(written) >= count)
        eventually(lambda: server.metric("market_data_bars_unwritten") == 0)
        server.stop()
    with ServerProcess(tmp_path, FEED="push", **variables) as server:
        assert fetched(server, f"{query}&limit=371") == minutes
        for length, timeframe in ((5, "5m"), (15, "15m"), (30, "30m"), (60, "1h"), (240, "4h")):
            assert fetched(server, f"{query}&timeframe={timeframe}") == made(length)
        (whole,) = fetched(server, f"{query}&timeframe=1d")["IBM" if day == "generated" else "AIG"]
        first = datetime.fromtimestamp(whole["t"], ZoneInfo(NEW_YORK))
        assert (first.hour, first.minute) == (0, 0)
