"""Servers around an opening: restarts, a killed leader, and what clients are told."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.cluster.checked import Seen
from tests.faults.cluster import Cluster, Watcher
from tests.forms import FORMS
from tests.gateway.form_client import FormClient
from tests.gateway.wire import Client
from tests.processes import ServerProcess
from tests.publisher import post
from tests.wall_clock import ShiftedServer, WallClock

SESSION = "09:30-16:00 America/New_York"

OPENING = datetime(2026, 11, 24, 14, 30, tzinfo=UTC).timestamp()

PRICE: dict[str, Any] = {"symbol": "NEWCO", "price": 180.25, "size": 100}


def day(server: ServerProcess) -> tuple[Any, ...]:
    """Return the values that an opening changes, and the version."""
    _, [found] = server.ask("/quotes?symbols=NEWCO")
    quote = found["quote"]
    names = ("base_price", "previous_close", "open", "high", "low", "volume")
    return (*(quote[name] for name in names), found["version"])


@pytest.fixture(params=["sqlite", "postgres"])
def stored(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the variables of a database: SQLite in the state folder, or a Postgres."""
    if request.param == "sqlite":
        return {}
    return {"DATABASE_URL": request.getfixturevalue("database_url")}


def test_restarts_around_an_opening(tmp_path, stored):
    """A server that was down at the opening makes it once, and later starts do nothing."""
    clock = WallClock(tmp_path, OPENING - 3600)
    variables = {"FEED": "push", "PUSH_LISTS_SYMBOLS": "1", "PRICE_WRITE_INTERVAL": "100ms"}
    variables |= clock.variables | stored | {"SESSION": SESSION}
    with ShiftedServer(tmp_path, **variables) as server:
        yesterday = int((OPENING - 80_000) * 1e6)
        assert post(server, [PRICE | {"ts": yesterday}]).status == 200
        before = day(server)
        assert before[1:] == (None, 180.25, 180.25, 180.25, 100, 2)
        assert server.stop() == 0
    clock.go_on(OPENING - 1800)
    with ShiftedServer(tmp_path, **variables) as server:
        assert day(server) == before
        assert server.stop() == 0
    for seconds in (1, 3600):
        clock.go_on(OPENING + seconds)
        with ShiftedServer(tmp_path, **variables) as server:
            assert day(server) == (180.25, 180.25, None, None, None, 0, 3)
            assert server.stop() == 0
    clock.go_on(OPENING + 7200)
    with ShiftedServer(tmp_path, **variables) as server:
        assert post(server, [PRICE | {"price": 181.0}]).status == 200
        assert day(server)[:-1] == (180.25, 180.25, 181.0, 181.0, 181.0, 100)
        # A trade of before the opening, which was on its way for two hours.
        assert (
            post(server, [PRICE | {"price": 300.0, "ts": int((OPENING - 1) * 1e6)}]).status == 200
        )
        assert day(server)[:-1] == (180.25, 180.25, 181.0, 181.0, 181.0, 100)


def test_closed_market_on_connecting(tmp_path):
    """A client that connects outside the session is told when it opens, and so are operators."""
    closed = {
        "type": "status",
        "status": "closed",
        "reason": "session_closed",
        "next_open": "2026-11-24T14:30:00Z",
    }
    clock = WallClock(tmp_path, OPENING - 3600)
    with ShiftedServer(tmp_path, FEED="push", SESSION=SESSION, **clock.variables) as server:
        with Client(server) as client:
            assert client.receive() == closed
        for form in FORMS:
            with FormClient(server, form) as each:
                while not each.control:
                    each.receive()
                assert each.control == [closed]
        _, health = server.ask("/health")
        assert health["session"] == {"status": "closed", "next_open": "2026-11-24T14:30:00Z"}


@pytest.mark.parametrize("timeframe", ["1m", "4h", "1d", "1w"])
def test_stream_and_history_have_the_same_bar(tmp_path, timeframe):
    """Days and weeks of the stream begin in the session's zone, as those of `GET /bars` do."""
    variables = {"FEED": "push", "PUSH_LISTS_SYMBOLS": "1", "SESSION": SESSION}
    with ServerProcess(tmp_path, **variables) as server:
        now = int(time.time() * 1e6)
        assert post(server, [PRICE | {"ts": now}]).status == 200
        with Client(server) as client:
            client.send(action="subscribe", bars=["NEWCO"], timeframe=timeframe)
            while (message := client.receive())["type"] != "bar":
                pass
        bar = message["bar"]
        # A bar may become final between the two.
        range_ = f"start={bar['t']}&end={bar['t']}"
        _, page = server.ask(f"/bars?symbols=NEWCO&timeframe={timeframe}&{range_}")
        assert [each | {"final": False} for each in page["bars"]["NEWCO"]] == [
            bar | {"final": False}
        ]


class ShiftedCluster(Cluster):
    """Instances that share a wall clock of their own."""

    kind = ShiftedServer


def closes(seen: Seen) -> dict[str, set[float | None]]:
    """Return the previous closes of each symbol that clients saw."""
    found: dict[str, set[float | None]] = {}
    for (_, symbol, _), quote in seen.copy().items():
        found.setdefault(symbol, set()).add(quote["previous_close"])
    return found


def test_leader_killed_at_the_opening(tmp_path, redis):
    """Each symbol opens once, whether the old leader or the new one does it. All clients see it."""
    clock = WallClock(tmp_path, OPENING - 3600)
    # A thousand moves a second would be more than these clients can check on a busy machine.
    variables = clock.variables | {"SESSION": SESSION, "PRICE_UPDATE_INTERVAL": "500ms"}
    with ShiftedCluster(tmp_path, redis.url, **variables) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        _, found = leader.ask("/instruments?limit=100")
        symbols = ",".join(each["symbol"] for each in found)
        theirs, mine = cluster.watch(leader, symbols), cluster.watch(follower, symbols)
        # A symbol that never moved has no day's values to begin anew.
        mine.wait_for(lambda it: all(version > 1 for _, version in it.held.values()))
        seen: Seen = {}
        mine._seen = seen

        def opened(watcher: Watcher) -> int:
            quotes = watcher.document["quotes"].values()
            return sum(quote["previous_close"] is not None for quote in quotes)

        before = opened(theirs)
        clock.go_on(OPENING - 1)
        theirs.wait_for(lambda it: opened(it) > before, pause=0.001)
        leader.process.kill()
        cluster.wait_for_leader([follower])
        mine.wait_for(lambda it: opened(it) == len(found))
        cluster.moves_on([mine])
        assert mine.status[0] == "live"
        for symbol, previous in closes(seen).items():
            assert len(previous - {None}) == 1, f"{symbol}: {previous}"
        for quote in mine.document["quotes"].values():
            assert quote["base_price"] == quote["previous_close"]
