"""Days that are not like others: their bars in `GET /bars`, over the stream, and in the datafeed."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest

from tests.gateway.wire import Client
from tests.processes import ServerProcess, eventually
from tests.publisher import post
from tests.wall_clock import ShiftedServer, WallClock

HOLIDAYS = """2025-11-28 13:00 the day after Thanksgiving
2025-12-25 Christmas
"""

LEAD = 2.0
"""Seconds from the moment at which a server's clock stands still to the end of the day."""


class Day(NamedTuple):
    """A day in the zone of `session`, from `begins` to before `ends`, and the times of trades in it."""

    session: str
    name: str
    begins: str
    ends: str
    inside: tuple[str, ...]

    @property
    def edges(self) -> tuple[int, int]:
        """Its first microsecond, and the first one after it."""
        return micros(self.begins), micros(self.ends)


NEW_YORK = "09:30-16:00 America/New_York"

DAYS = {
    "23 hours": Day(NEW_YORK, "2025-03-09", "2025-03-09T05:00Z", "2025-03-10T04:00Z",
                    ("2025-03-09T06:59:59Z", "2025-03-09T07:00Z")),
    "25 hours": Day(NEW_YORK, "2025-11-02", "2025-11-02T04:00Z", "2025-11-03T05:00Z",
                    ("2025-11-02T05:30Z", "2025-11-02T06:30Z")),
    "half day": Day(NEW_YORK, "2025-11-28", "2025-11-28T05:00Z", "2025-11-29T05:00Z",
                    ("2025-11-28T14:30Z", "2025-11-28T17:59:59Z", "2025-11-28T18:00Z")),
    "holiday": Day(NEW_YORK, "2025-12-25", "2025-12-25T05:00Z", "2025-12-26T05:00Z",
                   ("2025-12-25T15:00Z",)),
    "over midnight": Day("18:00-17:00 America/New_York", "2025-06-03", "2025-06-03T04:00Z",
                         "2025-06-04T04:00Z", ("2025-06-03T20:59:59Z", "2025-06-03T22:00Z")),
    "45 minutes": Day("11:00-15:00 Asia/Kathmandu", "2026-01-02", "2026-01-01T18:15Z",
                      "2026-01-02T18:15Z", ("2026-01-02T05:15Z",)),
    "no midnight": Day("10:00-14:30 Africa/Cairo", "2025-04-25", "2025-04-24T22:00Z",
                       "2025-04-25T21:00Z", ("2025-04-25T08:00Z",)),
    "end of the year": Day("09:00-17:30 Europe/Berlin", "2025-12-31", "2025-12-30T23:00Z",
                           "2025-12-31T23:00Z", ("2025-12-31T12:00Z",)),
}  # a table # fmt: skip
"""Each has the values that the calendar of its zone gives it, written down by hand."""


def micros(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * 1_000_000


def iso(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%SZ}"


@contextmanager
def server_before(
    folder: Path, session: str, end_us: int
) -> Iterator[tuple[ServerProcess, WallClock]]:
    """Run a server. Its clock stands still shortly before a moment, until the test lets it go on."""
    (folder / "holidays").write_text(HOLIDAYS)
    clock = WallClock(folder, end_us / 1e6 - LEAD)
    clock.stand(end_us / 1e6 - LEAD)
    variables = {
        **clock.variables,
        "SESSION": f"{session} holidays",
        "FEED": "push",
        "PUSH_LISTS_SYMBOLS": "1",
        "PRICE_WRITE_INTERVAL": "100ms",
        "USER_LOOKUP_RATE": "100000",
    }
    with ShiftedServer(folder, **variables) as server:
        yield server, clock


def publish(server: ServerProcess, symbol: str, times: list[int]) -> list[float]:
    """Publish a trade at each time. Return their prices."""
    prices = [100.0 + (7 * number) % 5 for number in range(len(times))]
    for price, ts in zip(prices, times, strict=True):
        answer = post(server, [{"symbol": symbol, "price": price, "size": 10, "ts": ts}])
        assert (answer.status, answer.body["rejected"]) == (200, [])
    return prices


def ask(server: ServerProcess, symbol: str, **parameters: str) -> list[dict[str, Any]]:
    """Return the bars of `GET /bars`."""
    query = "&".join(f"{name}={value}" for name, value in parameters.items())
    status, page = server.ask(f"/bars?symbols={symbol}&limit=5000&{query}")
    assert status == 200, page
    found: list[dict[str, Any]] = page["bars"].get(symbol, [])
    return found


def final_of(client: Client, begins: int) -> dict[str, Any]:
    """Return the bar of a day once the stream says that it is final."""
    while True:
        message = client.receive()
        bar: dict[str, Any] = message.get("bar", {"t": None})
        # The trade of the day before revises that day.
        if bar["t"] == iso(begins) and bar["final"]:
            return bar


def bar_of(begins: int, prices: list[float]) -> dict[str, Any]:
    """Return the values that trades of ten shares make."""
    ends = {"o": prices[0], "h": max(prices), "l": min(prices), "c": prices[-1]}
    return {"t": iso(begins), **ends, "v": 10 * len(prices), "n": len(prices)}


@pytest.mark.parametrize("kind", DAYS)
def test_bar_of_a_day(tmp_path, kind):
    """A day has the trades from its first microsecond to its last one, in all three answers. One of
    the microsecond before belongs to the day before.
    """
    day = DAYS[kind]
    begins, ends = day.edges
    times = [begins - 1, begins, *map(micros, day.inside), ends - 1]
    with (
        server_before(tmp_path, day.session, ends) as (server, clock),
        Client(server) as client,
    ):
        before, *prices = publish(server, "DAYS", times)
        assert client.ask("subscribe", bars=["DAYS"], timeframe="1d")["type"] == "ack"
        clock.go_on()
        wanted = bar_of(begins, prices)
        final = final_of(client, begins)
        assert final | wanted == final
        earlier = iso(begins - 40 * 3600 * 1_000_000)
        found = ask(server, "DAYS", timeframe="1d", start=earlier)
        assert found[1:] == [final]
        assert found[0]["c"] == before
        # The day's name is a range, too.
        assert ask(server, "DAYS", timeframe="1d", start=day.name, end=day.name) == [final]
        minutes = ask(server, "DAYS", timeframe="1m", start=day.name, end=day.name)
        starts = sorted({iso(each - each % 60_000_000) for each in times[1:]})
        assert [each["t"] for each in minutes] == starts
        midnight = datetime.combine(date.fromisoformat(day.name), datetime.min.time(), UTC)
        check_chart(server, int(midnight.timestamp()), wanted)


def check_chart(server: ServerProcess, midnight: int, wanted: dict[str, Any]) -> None:
    """Check the day in the datafeed. Its time is midnight UTC of the date."""
    query = f"symbol=DAYS&resolution=1D&from={midnight}&to={midnight + 1}"
    status, chart = server.ask(f"/udf/history?{query}")
    assert status == 200
    assert chart == {"s": "ok", "t": [midnight]} | {name: [wanted[name]] for name in "ohlcv"}


@pytest.mark.parametrize(
    ("kind", "open_minutes"),
    [
        # Sundays have no session. Only the minutes of trades are there.
        ("23 hours", set[str]()),
        ("25 hours", set[str]()),
        ("half day", {"2025-11-28T14:30:00Z", "2025-11-28T17:59:00Z"}),
        ("holiday", set[str]()),
        ("over midnight", {"2025-06-03T04:00:00Z", "2025-06-03T20:59:00Z", "2025-06-03T22:00:00Z"}),
        ("45 minutes", {"2026-01-02T05:15:00Z", "2026-01-02T09:14:00Z"}),
        ("no midnight", set[str]()),
    ],
)
def test_minutes_without_a_trade(tmp_path, kind, open_minutes):
    """`fill=previous` has each minute in which the market was open. A day has none outside, but for
    those with trades. A bar without a trade has the close before, and no average.
    """
    day = DAYS[kind]
    begins, ends = day.edges
    traded = [begins - 3_600_000_000, *map(micros, day.inside)]
    with server_before(tmp_path, day.session, ends + 60_000_000) as (server, _):
        prices = publish(server, "ONCE", traded[:1]) + publish(server, "DAYS", traded)[:1]
        parameters = {"start": day.name, "end": day.name, "fill": "previous"}
        found = ask(server, "DAYS", **parameters)
        zone = ZoneInfo(day.session.split()[1])
        opening, closing = ((int(text[:2]), int(text[3:])) for text in day.session[:11].split("-"))
        hours = {
            iso(moment)
            for moment in range(begins, ends, 60_000_000)
            if is_open(datetime.fromtimestamp(moment / 1e6, zone), opening, closing)
        }
        own = {iso(each - each % 60_000_000) for each in traded[1:]}
        assert [each["t"] for each in found] == sorted(hours | own)
        assert open_minutes <= hours
        empty = [each for each in found if not each["n"]]
        assert all(each["vw"] is None and each["v"] == 0 and each["final"] for each in empty)
        # This one traded in the day before, and never again.
        once = ask(server, "ONCE", **parameters)
        assert {each["t"] for each in once} == hours
        assert all({each[name] for name in "ohlc"} == {prices[0]} for each in once)
        [alone] = ask(server, "ONCE", timeframe="1d", start=iso(begins - 40 * 3600 * 1_000_000))
        assert (alone["n"], alone["o"], alone["c"]) == (1, prices[0], prices[0])


def is_open(local: datetime, opening: tuple[int, int], closing: tuple[int, int]) -> bool:
    """Return whether the market is open in a minute: a dozen lines that know the days of this test."""
    time_of_day, name = (local.hour, local.minute), f"{local:%Y-%m-%d}"
    if opening > closing:
        return time_of_day >= opening or time_of_day < closing
    if local.weekday() >= 5 or name == "2025-12-25":
        return False
    return opening <= time_of_day < ((13, 0) if name == "2025-11-28" else closing)


def test_symbol_that_trades_once(tmp_path):
    """Its only bar has one price, is final once, and is the same everywhere."""
    end = micros("2025-06-03T15:00Z")
    with (
        server_before(tmp_path, NEW_YORK, end) as (server, clock),
        Client(server) as client,
    ):
        assert client.ask("subscribe", symbols=["AAPL"])["type"] == "ack"
        # At :00.000 exactly.
        publish(server, "DAYS", [end - 60_000_000])
        assert client.ask("subscribe", bars=["DAYS"], timeframe="1m")["type"] == "ack"
        clock.go_on()
        final = final_of(client, end - 60_000_000)
        assert final | bar_of(end - 60_000_000, [100.0]) == final
        assert (final["vw"], final["rev"]) == (100.0, 0)
        eventually(lambda: server.metric("market_data_bars_unwritten") == 0)
        assert ask(server, "DAYS") == [final]
        second = end // 1_000_000 - 60
        query = f"symbol=DAYS&resolution=1&from={second}&to={second + 1}"
        assert server.ask(f"/udf/history?{query}")[1]["c"] == [100.0]
        assert server.ask(f"/udf/history?{query.replace('from', 'countback=1&from')}")[1]["t"] == [
            second
        ]
