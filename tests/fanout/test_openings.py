"""Sessions open: the day's values begin anew once, and clients are told, on a clock that tests set."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import trio
from msgspec.structs import replace

from server.fanout.hub import Hub
from server.fanout.openings import LOOK_INTERVAL, Openings, run_market_hours
from server.fanout.topic_task import ROUND_TRADES
from server.quotes.adjustment import split
from server.quotes.snapshot import live
from server.quotes.traded import traded as of_trade
from server.quotes.update import Change, Move, TopOfBook, Trade
from server.sessions.calendar import ALWAYS, Calendar
from tests.fanout.peer import Peer, instruments
from tests.fanout.test_freshness import pass_time, statuses

CALENDAR = Calendar.parse("09:30-16:00 America/New_York")

OPENING = int(datetime(2026, 11, 24, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000

CLOSING = OPENING + 13 * 1800 * 1_000_000

DAY = 86_400 * 1_000_000


def clock_from(moment: int) -> Callable[[], int]:
    """Return a wall clock that is at `moment` now and goes on with trio's clock."""
    start = trio.current_time()
    return lambda: moment + int((trio.current_time() - start) * 1e6)


def traded(hub: Hub, symbol: str, price: float, moment: int, size: int = 100) -> None:
    """Trade a symbol."""
    hub.topics[symbol].publish(Trade(symbol, price, size, moment, moment))


def day(hub: Hub, symbol: str) -> tuple[object, ...]:
    """Return the values that an opening changes, and the version."""
    topic = hub.topics[symbol]
    quote = topic.quote
    values = (quote.base_price, quote.previous_close, quote.open, quote.high, quote.low)
    return (*values, quote.volume, topic.version)


@contextmanager
def client(hub: Hub, *symbols: str) -> Iterator[Peer]:
    """Return a client that has the status, as on connecting, and the quotes."""
    peer = Peer(hub)
    if hub.status.is_news:
        peer.outbox.send_current(hub.status)
    peer.subscribe(*symbols)
    yield peer
    peer.close()


async def test_opening_is_an_ordinary_update(autojump_clock, hub, nursery):
    """The last price becomes base price and previous close, the day's values go, all in one version,
    and the client's document equals the server's.
    """
    traded(hub, "AAPL", 110.0, OPENING - DAY)
    traded(hub, "AAPL", 108.0, OPENING - DAY + 1)
    with client(hub, "AAPL", "MSFT") as peer:
        await peer.read()
        openings = Openings(hub, CALENDAR, clock_from(OPENING - 5_000_000))
        nursery.start_soon(openings.run)
        await trio.sleep(4.9)
        assert day(hub, "AAPL") == (100.0, None, 110.0, 110.0, 108.0, 200, 3)
        await trio.sleep(0.2)
        assert day(hub, "AAPL") == (108.0, 108.0, None, None, None, 0, 4)
        await peer.read()
        quote = peer.document["quotes"]["AAPL"]
        assert peer.versions["AAPL"] == 4
        assert (quote["base_price"], quote["previous_close"], quote["change"]) == (108, 108, 0)
        assert (quote["open"], quote["high"], quote["volume"]) == (None, None, 0)
        (last,) = [each for each in peer.messages if each.get("versions") == {"AAPL": 4}]
        assert {each["op"] for each in last["operations"]} == {"replace"}
        traded(hub, "AAPL", 109.0, OPENING + 1)
        assert day(hub, "AAPL") == (108.0, 108.0, 109.0, 109.0, 109.0, 100, 5)


async def test_symbol_without_a_trade_keeps_its_version(autojump_clock, hub, nursery):
    """Nothing of it begins anew. A symbol with a book alone gets its price as previous close."""
    hub.topics["MSFT"].publish(TopOfBook("MSFT", 99.0, 101.0, 1, 1, OPENING, OPENING))
    nursery.start_soon(Openings(hub, CALENDAR, clock_from(OPENING)).run)
    await trio.sleep(1)
    assert day(hub, "AAPL") == (100.0, None, None, None, None, 0, 1)
    assert day(hub, "MSFT") == (100.0, 100.0, None, None, None, 0, 3)
    assert hub.topics["MSFT"].quote.bid == 99.0


async def test_start_after_the_opening_opens_once(autojump_clock, hub, nursery):
    """A server that was down at the opening opens at its start, and a restart does nothing more."""
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    restored = [topic.snapshot() for topic in hub.topics.values()]
    for expected in (3, 3):
        later = Hub()
        later.list_snapshots(restored)
        with trio.CancelScope() as scope:
            await nursery.start(later.run)
            openings = Openings(later, CALENDAR, clock_from(OPENING + 3600 * 1_000_000))
            nursery.start_soon(openings.run)
            await trio.sleep(3 * LOOK_INTERVAL)
            assert day(later, "AAPL") == (108.0, 108.0, None, None, None, 0, expected)
            restored = [topic.snapshot() for topic in later.topics.values()]
            assert restored[0].opened_at == OPENING
            scope.cancel()


async def test_start_before_the_opening_changes_nothing(autojump_clock, hub, nursery):
    """Values of the session that opened last stay as they are, also over the week-end."""
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    snapshot = replace(hub.topics["AAPL"].snapshot(), opened_at=OPENING)
    hub.topics["AAPL"].adopt(live(snapshot, OPENING))
    nursery.start_soon(Openings(hub, CALENDAR, clock_from(OPENING + DAY // 2)).run)
    await trio.sleep(60)
    assert day(hub, "AAPL")[-1] == 2


async def test_first_use_of_sessions_keeps_today_s_values(autojump_clock, hub, nursery):
    """If nobody knows the session of the values, a trade since the opening shows that they are new."""
    traded(hub, "AAPL", 108.0, OPENING + 1)
    traded(hub, "MSFT", 50.0, OPENING - 1)
    nursery.start_soon(Openings(hub, CALENDAR, clock_from(OPENING + 3600 * 1_000_000)).run)
    await trio.sleep(1)
    assert day(hub, "AAPL") == (100.0, None, 108.0, 108.0, 108.0, 100, 2)
    assert day(hub, "MSFT") == (50.0, 50.0, None, None, None, 0, 3)


async def test_price_between_the_note_and_the_opening_counts_before_it(
    autojump_clock, hub, nursery
):
    """A symbol that is noted as due opens, though it traded before its turn came."""
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    openings = Openings(hub, CALENDAR, clock_from(OPENING))
    traded(hub, "AAPL", 107.0, OPENING + 1)
    nursery.start_soon(openings.run)
    await trio.sleep(1)
    assert day(hub, "AAPL") == (107.0, 107.0, None, None, None, 0, 4)


async def test_symbol_listed_later_opens_within_a_second(autojump_clock, hub, nursery):
    """A symbol that the store brings during the session has yesterday's values for a moment only."""
    nursery.start_soon(Openings(hub, CALENDAR, clock_from(OPENING + 1)).run)
    await trio.sleep(10)
    old = replace(hub.topics["AAPL"].snapshot(), symbol="NEW", version=9, volume=5, last_quote=7.0)
    hub.list_snapshots([old])
    await trio.sleep(LOOK_INTERVAL + 0.1)
    assert day(hub, "NEW") == (7.0, 7.0, None, None, None, 0, 10)


async def test_opening_is_made_once_whatever_comes_between(autojump_clock, hub, nursery):
    """A look while an opening waits in an inbox does not open twice."""
    for symbol in hub.topics:
        traded(hub, symbol, 108.0, OPENING - DAY)
    with client(hub, "AAPL") as peer:
        await trio.testing.wait_all_tasks_blocked()
        clock = clock_from(OPENING)
        for _ in range(3):
            nursery.start_soon(Openings(hub, CALENDAR, clock).run)
        await trio.sleep(3)
        await peer.read()
    assert {topic.version for topic in hub.topics.values()} == {3}


async def test_many_symbols_open_a_few_at_a_time(autojump_clock, nursery):
    """Between two rounds of the flusher at most ROUND_TRADES symbols are published."""
    symbols = [f"S{number}" for number in range(5 * ROUND_TRADES)]
    hub = Hub(instruments(*symbols))
    await nursery.start(hub.run)
    for symbol in symbols:
        traded(hub, symbol, 101.0, OPENING - DAY)
    with client(hub, *symbols) as peer:
        await trio.testing.wait_all_tasks_blocked()
        flusher, moved = hub.topic_tasks.flusher, [2 * len(symbols)]
        flush = flusher._flush

        async def counted(*round: Any) -> None:
            moved.append(sum(topic.version for topic in hub.topics.values()))
            await flush(*round)

        flusher._flush = counted  # type: ignore[method-assign,assignment]  # looks at each round
        nursery.start_soon(Openings(hub, CALENDAR, clock_from(OPENING)).run)
        await trio.sleep(0.5)
        assert max(after - before for before, after in pairwise(moved)) <= ROUND_TRADES
        assert moved[-1] == 3 * len(symbols)
        await peer.read()
        assert set(peer.versions.values()) == {3}


async def test_split_after_the_opening_splits_the_new_base(autojump_clock, hub, nursery):
    """The catalogue's row may be of the session before when a split is made. The split applies to the
    base price of this session.
    """
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    row = hub.topics["AAPL"].snapshot()
    nursery.start_soon(Openings(hub, CALENDAR, clock_from(OPENING)).run)
    await trio.sleep(1)
    assert row.opened_at == 0
    hub.relist([split(row, "4:1", again=False)])
    assert day(hub, "AAPL") == (27.0, 27.0, None, None, None, 0, 4)
    assert hub.topics["AAPL"].snapshot().opened_at == OPENING


async def test_followers_make_the_leader_s_opening(hub):
    """A move with an opening gives a follower the same quote and reference data, also if moves were
    merged on the way.
    """
    leader, follower, merging = (Hub(instruments("AAPL")) for _ in range(3))
    leader.journal.open()
    traded(leader, "AAPL", 108.0, OPENING - DAY)
    traded(leader, "AAPL", 107.0, OPENING - DAY + 1)
    await Openings(leader, CALENDAR, lambda: OPENING)._open_owed()
    traded(leader, "AAPL", 109.0, OPENING + 1, 7)
    moves = leader.journal.take(10)
    assert [move.version for move in moves] == [2, 3, 4, 5]
    for move in moves:
        follower.topics["AAPL"].absorb(move)
    together: Move = moves[0]
    for move in moves[1:]:
        together = move.after(together)
    merging.topics["AAPL"].absorb(together)
    for each in (follower, merging):
        assert day(each, "AAPL") == day(leader, "AAPL")
        assert day(each, "AAPL") == (107.0, 107.0, 109.0, 109.0, 109.0, 7, 5)
        assert each.topics["AAPL"].snapshot() == leader.topics["AAPL"].snapshot()


async def test_taken_over_state_brings_its_session(hub):
    """The state of another instance has the base price of its own session, a newer or an older one."""
    topic = hub.topics["AAPL"]
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    before = topic.live_snapshot()
    await Openings(hub, CALENDAR, lambda: OPENING)._open_owed()
    after = topic.live_snapshot()
    hub.adopt([before], older=True)
    assert live(topic.snapshot(), before.ts, 0, before.minutes) == before
    assert day(hub, "AAPL") == (100.0, None, 108.0, 108.0, 108.0, 100, 2)
    hub.adopt([after])
    assert day(hub, "AAPL") == (108.0, 108.0, None, None, None, 0, 3)
    assert topic.instrument.opened_at == OPENING


async def test_closed_market_is_told_with_its_next_opening(autojump_clock, hub, nursery):
    """Clients get `closed` on connecting and at the closing, and `live` at the opening."""
    # Closed for a minute each day: to pass a whole night takes the CPU ten seconds.
    calendar = Calendar.parse("09:30-09:29 America/New_York")
    await nursery.start(run_market_hours, hub, calendar, clock_from(OPENING + DAY - 65_000_000))
    with client(hub, "AAPL") as early:
        await trio.sleep(5.1)
        with client(hub, "AAPL") as late:
            for peer in (early, late):
                await peer.read()
                (message,) = [each for each in peer.messages if each["type"] == "status"]
                assert message == {
                    "type": "status",
                    "status": "closed",
                    "reason": "session_closed",
                    "next_open": "2026-11-25T14:30:00Z",
                }
            await trio.sleep(60)
            await early.read()
            assert statuses(early)[1:] == [("live", "session_opened", None)]
        with client(hub, "AAPL") as third:
            await third.read()
            assert statuses(third) == []


async def test_market_without_sessions_tells_nothing(autojump_clock, hub, nursery):
    """With `always` there is neither a closing nor an opening."""
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    with client(hub, "AAPL") as peer:
        await nursery.start(run_market_hours, hub, ALWAYS, clock_from(OPENING - 1))
        nursery.start_soon(Openings(hub, ALWAYS, clock_from(OPENING - 1)).run)
        await trio.sleep(10)
        await peer.read()
        assert statuses(peer) == []
    assert day(hub, "AAPL")[-1] == 2


async def test_closed_market_is_not_stale(autojump_clock, nursery):
    """Silence outside the sessions is no alarm, and the opening gives every symbol time to trade."""
    hub = Hub(instruments("AAPL", "MSFT", "BRK.B"), quiet_after=10)
    await nursery.start(hub.run)
    await nursery.start(run_market_hours, hub, CALENDAR, clock_from(OPENING - 100_000_000))
    with client(hub, "AAPL", "MSFT") as peer:
        await pass_time(hub, [peer], 108)
        await peer.read()
        assert statuses(peer) == [
            ("closed", "session_closed", None),
            ("live", "session_opened", None),
        ]
        await pass_time(hub, [peer], 6)
        await peer.read()
        assert statuses(peer)[2:] == [("stale", "feed_quiet", None)]


async def test_lost_feed_is_stale_also_while_the_market_is_closed(autojump_clock, hub, nursery):
    """A problem of the feed is told, and when it is over, that the market is closed."""
    await nursery.start(run_market_hours, hub, CALENDAR, clock_from(CLOSING + 1))
    with client(hub, "AAPL") as peer:
        hub.set_status("stale", "bus_lost")
        await trio.sleep(1)
        hub.set_status("live", "bus_back")
        await trio.sleep(1)
        await peer.read()
    reasons = [reason for _, reason, _ in statuses(peer)]
    assert reasons == ["session_closed", "bus_lost", "session_closed"]


async def test_quiet_feed_becomes_closed_at_the_closing(autojump_clock, nursery):
    """A client that was told of a quiet feed is told that the market is closed, and of nothing else."""
    hub = Hub(instruments("AAPL"), quiet_after=10)
    await nursery.start(hub.run)
    await nursery.start(run_market_hours, hub, CALENDAR, clock_from(CLOSING - 20_000_000))
    with client(hub, "AAPL") as peer:
        await pass_time(hub, [peer], 25)
        await peer.read()
    assert [status for status, _, _ in statuses(peer)] == ["stale", "closed"]


async def test_late_trade_of_before_the_opening_makes_a_version_for_its_bar(hub):
    """Its quote stays the same. The version brings the trade to the bars of all instances."""
    topic = hub.topics["AAPL"]
    traded(hub, "AAPL", 108.0, OPENING - DAY)
    hub.journal.open()
    before = topic.quote
    minutes = (of_trade(190.0, 5, OPENING - DAY, late=True),)
    topic.publish(Change("AAPL", None, 0, 0, OPENING, minutes=minutes))
    (move,) = hub.journal.take(2)
    assert (topic.quote, topic.version, move.version) == (before, 3, 3)
    assert move.trades == minutes
