"""`GET /bars`, page by page, while trades, late ones, cancels and corrections come and are written."""

import threading
import time
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bench.services import Postgres
from tests.ops.test_history import FAST, bars, conditional, minute, trade
from tests.processes import ServerProcess, eventually
from tests.publisher import post

KOLKATA = ZoneInfo("Asia/Kolkata")
"""Its midnight is at 18:30 UTC."""

SYMBOLS = ("IBM", "MSFT")

ROUNDS = 40

Trade = tuple[str, float, int, int]
"""A symbol, a price, a size, and a time in microseconds."""

Place = tuple[str, int]
"""A symbol, and the time in seconds at which a bar begins: the order of pages."""


def begins(time_us: int, timeframe: str) -> int:
    """Return when the bar of a moment begins, in seconds."""
    seconds = time_us // 1_000_000
    if timeframe != "1d":
        length = {"1m": 60, "5m": 300}[timeframe]
        return seconds // length * length
    day = datetime.fromtimestamp(seconds, KOLKATA).date()
    return int(datetime(day.year, day.month, day.day, tzinfo=KOLKATA).timestamp())


def oracle(trades: list[Trade], timeframe: str) -> dict[Place, tuple[Any, ...]]:
    """Return the bars of trades."""
    slots: dict[Place, list[Trade]] = {}
    for each in sorted(trades, key=lambda known: known[3]):
        slots.setdefault((each[0], begins(each[3], timeframe)), []).append(each)
    found = {}
    for place, some in slots.items():
        prices = [price for _, price, _, _ in some]
        volume = sum(size for _, _, size, _ in some)
        found[place] = (prices[0], max(prices), min(prices), prices[-1], volume, len(some))
    return found


def filled(bars: dict[Place, tuple[Any, ...]], now: int) -> dict[Place, tuple[Any, ...]]:
    """Return bars of one minute with those of the minutes between and behind them."""
    found = dict(bars)
    for symbol in SYMBOLS:
        times = [t for name, t in bars if name == symbol]
        for t in range(min(times), now // 60 * 60 + 60, 60) if times else ():
            if (symbol, t) not in bars:
                close = found[symbol, t - 60][3]
                found[symbol, t] = (close, close, close, close, 0, 0)
    return found


class Publisher:
    """Sends trades of the last two hours and changes them, and knows those that are left."""

    def __init__(self, server: ServerProcess, random: Random) -> None:
        self._server, self._random = server, random
        self._now = int(time.time())
        self._sent = 0
        self.trades: dict[tuple[str, str], Trade] = {}

    def act(self) -> None:
        """Trade, often late, cancel or correct."""
        choose = self._random
        names = [*self.trades][-20:]
        kind = choose.choice(["trade"] * 4 + ["cancel", "correct"] * bool(names))
        price = choose.randint(9_900, 10_100) / 100
        if kind == "trade":
            symbol, self._sent = choose.choice(SYMBOLS), self._sent + 1
            # Each has a time of its own, some of them in the present minute.
            ago = choose.choice((0, 1, 7, 30, 120)) * 60 + choose.randrange(60)
            time_us = (self._now - ago) * 1_000_000 + self._sent
            key = symbol, f"t{self._sent}"
            known = symbol, price, choose.randint(1, 90), time_us
            self._post(key, kind=kind, price=price, size=known[2], ts=time_us)
            self.trades[key] = known
            return
        key = choose.choice(names)
        more = {"price": price} if kind == "correct" else {}
        if not self._post(key, kind=kind, **more):
            # The server does not keep a trade that was older than all others of its source.
            return
        if kind == "cancel":
            del self.trades[key]
        else:
            self.trades[key] = (key[0], price, *self.trades[key][2:])

    def _post(self, key: tuple[str, str], **fields: Any) -> bool:
        """Publish an object. Return whether it is accepted. A trade has to be."""
        symbol, name = key
        answer = post(self._server, [{"symbol": symbol, "id": name, **fields}])
        assert answer.status == 200, answer
        rejected = answer.body["rejected"]
        assert not rejected or fields["kind"] != "trade", answer
        assert {each["code"] for each in rejected} <= {"unknown_trade"}
        return not rejected


class Reader:
    """Reads page after page, and compares each with the bars that there are now."""

    def __init__(self, server: ServerProcess, publisher: Publisher, query: dict[str, str]) -> None:
        self._server, self._publisher, self._query = server, publisher, query
        self._seen: list[Place] = []
        self._token, self._minute = "", 0
        self.tagged: list[tuple[str, str, Any]] = []
        self.confirmed = 0

    def read(self, limit: int) -> None:
        """Read the next page, or the first one."""
        parameters = self._query | {"limit": str(limit), "page_token": self._token}
        path = "/bars?" + "&".join(f"{name}={value}" for name, value in parameters.items())
        if not self._token:
            self._seen, self._minute = [], int(time.time()) // 60
        status, page = self._server.ask(path)
        assert status == 200, page
        if not self._token and self._minute != int(time.time()) // 60:
            # Nobody knows in which minute this range ends.
            return
        found = {
            (symbol, int(datetime.fromisoformat(bar["t"]).timestamp())): bar
            for symbol, some in page["bars"].items()
            for bar in some
        }
        bars = self._bars()
        left = [place for place in bars if not self._seen or self._is_behind(place)]
        assert [*found] == left[:limit]
        names = ("o", "h", "l", "c", "v", "n")
        values = [tuple(bar[name] for name in names) for bar in found.values()]
        assert values == [bars[place] for place in found]
        assert (page["next_page_token"] is None) == (len(left) <= limit)
        self._seen += found
        self._token = page["next_page_token"] or ""
        self._note_tag(path, page, [*found.values()])

    def check_tags(self, choose: Random) -> None:
        """Ask for some of the earlier pages again. 304 means that a page is what it was."""
        for path, tag, page in choose.sample(self.tagged, min(4, len(self.tagged))):
            if conditional(self._server, path, tag)[0] == 304:
                assert self._server.ask(path)[1] == page
                self.confirmed += 1

    def _note_tag(self, path: str, page: Any, bars: list[dict[str, Any]]) -> None:
        status, headers = conditional(self._server, path, '"x"')
        assert status == 200
        if tag := headers.get("etag"):
            assert all(bar["final"] for bar in bars)
            self.tagged.append((path, tag, page))
        else:
            assert headers["cache-control"] == "no-store"

    def _bars(self) -> dict[Place, tuple[Any, ...]]:
        """Return all bars in the order of pages."""
        bars = oracle([*self._publisher.trades.values()], self._query["timeframe"])
        if self._query["fill"] == "previous":
            bars = filled(bars, self._minute * 60)
        sign = -1 if self._query["sort"] == "desc" else 1
        return {each: bars[each] for each in sorted(bars, key=lambda it: (it[0], sign * it[1]))}

    def _is_behind(self, place: Place) -> bool:
        symbol, t = self._seen[-1]
        later = place[1] < t if self._query["sort"] == "desc" else place[1] > t
        return place[0] > symbol or (place[0] == symbol and later)


KINDS = [("1m", "none"), ("1m", "previous"), ("5m", "none"), ("1d", "none")]


@pytest.mark.parametrize(("timeframe", "fill"), KINDS)
@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_pages_while_trades_arrive(tmp_path, sort, timeframe, fill):
    """Each page has exactly the next bars that there are: none twice, none missing, and the right
    values. An answer of 304 means that nothing changed.
    """
    choose = Random(f"{sort} {timeframe} {fill}")
    query = {
        "symbols": "MSFT,IBM,NOPE",
        "timeframe": timeframe,
        "start": minute(time.time() - 2 * 86_400),
        "sort": sort,
        "fill": fill,
        "tz": KOLKATA.key,
    }
    with ServerProcess(tmp_path, **FAST) as server:
        publisher = Publisher(server, choose)
        reader = Reader(server, publisher, query)
        for number in range(ROUNDS):
            for _ in range(choose.randint(0, 3)):
                publisher.act()
            if number % 7 == 0:
                eventually(lambda: server.metric("market_data_bars_unwritten") == 0)
            reader.read(choose.choice((1, 2, 3, 40)))
            reader.check_tags(choose)
        # The days of this test go on, so their pages are not final.
        assert reader.confirmed or timeframe == "1d"


def test_store_that_is_killed_between_two_pages(tmp_path, postgres: Postgres):
    """The next page is answered 503, or from memory if that has the rest. When the store is back, the
    same token goes on, and no bar is missing.
    """
    begin = time.time() - 7200
    with ServerProcess(tmp_path, **FAST, DATABASE_URL=postgres.url()) as server:
        for n in range(6):
            trade(server, "IBM", 100.0 + n, begin + 60 * n)
        eventually(lambda: len(bars(server, f"start={minute(begin)}")) == 6)
        eventually(lambda: server.metric("market_data_bars_unwritten") == 0)
        query = f"/bars?symbols=IBM&start={minute(begin)}&end={minute(begin + 900)}&limit=4"
        status, first = server.ask(query)
        assert (status, len(first["bars"]["IBM"])) == (200, 4)
        rest = f"{query}&page_token={first['next_page_token']}"
        postgres.kill()
        status, error = server.ask(rest)
        assert status == 503, error
        assert error["error"]["code"] == "store_unavailable"
        now = time.time()
        trade(server, "IBM", 110.0, now)
        [newest] = bars(server, f"start={minute(now)}&limit=1")
        assert newest["c"] == 110.0
        # A late trade of a bar that the next page has, while nobody can read what the store has of it.
        trade(server, "IBM", 99.0, begin + 60 * 5 + 1)
        postgres.start()
        eventually(lambda: server.ask(rest)[0] == 200, 30)
        _, second = server.ask(rest)
        times = [bar["t"] for page in (first, second) for bar in page["bars"]["IBM"]]
        assert times == [minute(begin + 60 * n) for n in range(6)]
        assert [bar["n"] for bar in second["bars"]["IBM"]] == [1, 2]
        assert second["next_page_token"] is None


def test_store_that_is_killed_in_the_middle_of_a_page(tmp_path, postgres: Postgres):
    """It was asked, and is killed before it answers. Others read meanwhile what memory has."""
    old = time.time() - 7200
    with ServerProcess(tmp_path, **FAST, DATABASE_URL=postgres.url()) as server:
        for symbol in SYMBOLS:
            trade(server, symbol, 100.0, old)
        eventually(lambda: server.metric("market_data_bars_unwritten") == 0)
        query = f"/bars?symbols=IBM,MSFT&start={minute(old)}"
        eventually(lambda: len(server.ask(query)[1]["bars"]) == 2)
        postgres.freeze()
        answers = list[tuple[int, Any]]()
        asking = threading.Thread(target=lambda: answers.append(server.ask(query)))
        asking.start()
        now = time.time()
        trade(server, "IBM", 110.0, now)
        [newest] = bars(server, f"start={minute(now)}&limit=1")
        assert newest["c"] == 110.0
        postgres.kill()
        asking.join(30)
        [(status, error)] = answers
        assert status == 503, error
        assert error["error"]["code"] == "store_unavailable"
        postgres.start()
        eventually(lambda: server.ask(query)[0] == 200, 30)
        _, page = server.ask(query)
        assert [sum(bar["n"] for bar in page["bars"][symbol]) for symbol in SYMBOLS] == [2, 1]


def test_trades_page_by_page(tmp_path):
    """`/trades` goes on behind the last version that a client has, while more of them come."""
    with ServerProcess(tmp_path, **FAST) as server:
        trade(server, "IBM", 100.0, time.time())
        _, [quote] = server.ask("/quotes?symbols=IBM")
        version, sent, got = quote["version"], list[float](), list[float]()
        for number in range(40):
            for n in range(number % 3 + 1):
                # Every third trade is late.
                late = timedelta(minutes=5 * (n == 2)).total_seconds()
                sent.append(101.0 + len(sent) / 100)
                trade(server, "IBM", sent[-1], time.time() - late)
            status, page = server.ask(f"/trades?symbol=IBM&after_version={version}&limit=2")
            assert (status, page["complete"]) == (200, True)
            versions = [each["version"] for each in page["trades"]]
            assert versions == [*range(version + 1, version + 1 + len(versions))]
            got += [each["price"] for each in page["trades"]]
            version = versions[-1]
            moments = [datetime.fromisoformat(each["t"]) for each in page["trades"]]
            assert all(each.tzinfo == UTC for each in moments)
        while (page := server.ask(f"/trades?symbol=IBM&after_version={version}")[1])["trades"]:
            got += [each["price"] for each in page["trades"]]
            version = page["trades"][-1]["version"]
        assert got == pytest.approx(sent)
