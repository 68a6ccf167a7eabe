"""The builder of one-minute bars, against a dozen lines of plain Python."""

from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.history.bar import MinuteBar
from server.history.minutes import GRACE_US, KEPT_MINUTES, Minutes, closed_at
from server.quotes.instrument import Instrument
from server.quotes.traded import MINUTE_US, Traded, traded
from server.quotes.update import Change, Move, Trade, Update, merged
from tests.late import late_trade

APPLE = Instrument(symbol="AAPL", name="Apple", type="STOCK", base_price=100.0)
START = 1_800_000_000 // 60
"""Some minute."""

Row = tuple[float, int, int]
"""A trade: its price, its size, and its time in microseconds."""

prices = st.integers(9990, 10010).map(lambda cents: cents / 100)
times = st.integers(START * MINUTE_US, (START + 4) * MINUTE_US - 1)
rows = st.lists(st.tuples(prices, st.integers(0, 50), times), min_size=1, max_size=30)


def oracle(trades: Iterable[Row]) -> dict[int, tuple[object, ...]]:
    """Return open, high, low, close, volume, count and turnover of each minute."""
    bars = dict[int, tuple[object, ...]]()
    ordered = sorted(trades, key=lambda row: row[2])
    for minute, some in groupby(ordered, key=lambda row: row[2] // MINUTE_US):
        group = list(some)
        found = [price for price, _, _ in group]
        turnover = round(sum(price * size for price, size, _ in group), 6)
        volume = sum(size for _, size, _ in group)
        ends = found[0], max(found), min(found), found[-1]
        bars[minute] = (*ends, volume, len(group), turnover)
    return bars


def values(bars: Iterable[MinuteBar]) -> dict[int, tuple[object, ...]]:
    """Return the same of bars."""
    return {
        bar.minute: (
            *(bar.open, bar.high, bar.low, bar.close),
            *(bar.volume, bar.count, round(bar.turnover, 6)),
        )
        for bar in bars
    }


def trades_of(trades: Sequence[Row]) -> list[Update]:
    """Return updates of trades. They came one microsecond after the other."""
    return [
        Trade("AAPL", price, size, time_us, ts) for ts, (price, size, time_us) in enumerate(trades)
    ]


def built(updates: Iterable[Update], minutes: Minutes | None = None) -> Minutes:
    """Return the minutes after some updates."""
    minutes = minutes or Minutes()
    for update in updates:
        change = update.change if not isinstance(update, Move) else update
        minutes.absorb(APPLE, update, change.price)
    return minutes


def all_bars(minutes: Minutes) -> list[MinuteBar]:
    """Return all bars of AAPL in memory."""
    return minutes.recent(["AAPL"], 0, 2**40)


@given(rows)
def test_any_order(trades: list[Row]) -> None:
    """The trades' times decide, and of equal times the order in which they came."""
    assert values(all_bars(built(trades_of(trades)))) == oracle(trades)


@given(rows, st.sets(st.integers(0, 30)))
def test_conflated(trades: list[Row], cuts: set[int]) -> None:
    """Merged updates lose neither a trade nor its minute."""
    updates: list[Update] = []
    for number, each in enumerate(trades_of(trades)):
        if updates and number not in cuts:
            updates[-1] = merged(updates[-1], each)
        else:
            updates.append(each)
    assert values(all_bars(built(updates))) == oracle(trades)


@given(rows, st.lists(st.integers(START, START + 5), max_size=5))
def test_revisions(trades: list[Row], closings: list[int]) -> None:
    """A final bar's revision grows by one with each of its trades, and no trade is lost."""
    minutes = Minutes()
    seen = dict[tuple[int, int], MinuteBar]()
    for number, update in enumerate(trades_of(trades)):
        if number < len(closings):
            minutes.close(closings[number])
        built([update], minutes)
        for bar in all_bars(minutes):
            assert bar.final == (bar.minute < minutes.closed_to)
            if bar.final:
                assert seen.setdefault((bar.minute, bar.rev), bar) == bar
            else:
                assert bar.rev == 0
    assert values(all_bars(minutes)) == oracle(trades)


@given(rows, st.integers(0, 30), st.integers(0, 30))
def test_takeover(trades: list[Row], cut: int, closed: int) -> None:
    """An instance that takes the state over, and goes on, has the same bars."""
    updates = trades_of(trades)
    one = built(updates[:cut])
    one.close(START + closed % 5)
    one.written(one.unwritten(closed))
    other = Minutes()
    # It missed everything, or had some of it.
    built(updates[: cut // 2], other)
    other.follow(one.closed_to)
    other.adopt("AAPL", one.state_of("AAPL"))
    other.close(one.closed_to)
    for minutes in (one, other):
        built(updates[cut:], minutes)
    assert all_bars(other) == all_bars(one)


@given(rows)
def test_plain_moves(trades: list[Row]) -> None:
    """A follower makes the same of the leader's moves."""
    volume, moves = 0, list[Update]()
    for version, (price, size, time_us) in enumerate(trades, 2):
        volume += size
        moves.append(Move("AAPL", version, price, volume, time_us, 0, size=size))
    whole = moves[0]
    for each in moves[1:]:
        whole = merged(whole, each)
    assert values(all_bars(built(moves))) == oracle(trades)
    assert values(all_bars(built([whole]))) == oracle(trades)


def at(minute: int, second: float) -> int:
    """Return a time in microseconds."""
    return (START + minute) * MINUTE_US + int(second * 1e6)


def test_life_of_a_bar() -> None:
    """A bar is open, then final, then a late trade revises it."""
    minutes = Minutes(START, START)
    built([Trade("AAPL", 100.0, 5, at(0, 10), 0)], minutes)
    (bar,) = minutes.open_bars()
    assert not bar.final
    assert closed_at(at(1, 0) + GRACE_US - 1) == START
    assert minutes.close(closed_at(at(1, 0) + GRACE_US)) == [(START, ["AAPL"])]
    (final,) = minutes.unwritten(10)
    assert (final.final, final.rev) == (True, 0)
    assert not minutes.take_revised()
    built([late_trade("AAPL", 99.0, 5, at(0, 5))], minutes)
    (revised,) = minutes.take_revised()
    assert (revised.open, revised.close, revised.count, revised.rev) == (99.0, 100.0, 2, 1)
    # The store wrote the bar of before.
    minutes.written([final])
    assert minutes.unwritten(10) == [revised]
    minutes.written([revised])
    assert minutes.unwritten_count == 0


def test_late_trade_at_the_same_time() -> None:
    """A late trade is not the close, though it has the last one's time."""
    updates: list[Update] = [
        Trade("AAPL", 100.0, 1, at(0, 1), 0),
        late_trade("AAPL", 99.0, 1, at(0, 1)),
    ]
    (bar,) = all_bars(built(updates))
    assert (bar.open, bar.close, bar.low) == (100.0, 100.0, 99.0)


def test_cancelled() -> None:
    """A minute whose trades were all cancelled has a count of zero, and may begin anew."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 1), 0)])
    minutes.close(START + 1)
    nothing = msgspec.structs.replace(
        traded(100.0, 0, at(0, 1)), count=0, turnover=0.0, restated=True
    )
    built([Change("AAPL", None, -5, 0, 1, minutes=(nothing,))], minutes)
    (bar,) = all_bars(minutes)
    assert (bar.count, bar.volume, bar.rev) == (0, 0, 1)
    built([Trade("AAPL", 90.0, 1, at(0, 2), 0)], minutes)
    (bar,) = all_bars(minutes)
    assert (bar.open, bar.high, bar.low, bar.count, bar.rev) == (90.0, 90.0, 90.0, 1, 2)


def test_fractions_are_exact() -> None:
    """Fractions of a size add up as they do in the quote."""
    coin = msgspec.structs.replace(APPLE, size_decimals=8)
    minutes = Minutes()
    for _ in range(10):
        minutes.absorb(coin, Trade("AAPL", 100.0, 0.1, at(0, 1), 0), 100.0)
    (bar,) = all_bars(minutes)
    assert bar.volume == 1.0


def test_each_late_trade_is_a_revision() -> None:
    """Also if several wait for the store at the same time. So all instances count alike."""
    late = [late_trade("AAPL", 101.0, 5, at(0, 40 + each)) for each in range(3)]
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)])
    minutes.close(START + 1)
    stored = all_bars(minutes)
    built(late, minutes)
    waiting = Minutes(START + 9, START + 9)
    built(late[:2], waiting)
    # Another instance goes on with them.
    other = Minutes(START + 9, START + 9)
    other.adopt("AAPL", waiting.state_of("AAPL"))
    built(late[2:], other)
    other.restore(stored, other.missing)
    assert all_bars(other) == all_bars(minutes)
    assert [bar.rev for bar in all_bars(other)] == [3]


@pytest.mark.parametrize(("sizes", "whole"), [((0.1, 0.2), False), ((2.0, 3.0), True)])
def test_volume_of_a_late_trade_is_the_stores(sizes: tuple[float, float], whole: bool) -> None:
    """Memory has it as the store gives it back: without a sum's noise, and whole if it is."""
    coin, minutes = msgspec.structs.replace(APPLE, size_decimals=8), Minutes(START + 9, START + 9)
    first, second = (late_trade("AAPL", 100.0, each, at(0, 1)) for each in sizes)
    minutes.absorb(coin, first, None)
    minutes.restore([], minutes.missing)
    stored = all_bars(minutes)
    minutes = Minutes(START + 9, START + 9)
    minutes.absorb(coin, second, None)
    minutes.restore(stored, minutes.missing)
    (bar,) = all_bars(minutes)
    assert (bar.volume, type(bar.volume)) == ((5, int) if whole else (0.3, float))


def test_trade_of_an_unknown_minute_waits_for_the_store() -> None:
    """A late trade of a minute that is not in memory any more counts once the store has given it."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)])
    minutes.close(START + 1)
    stored = minutes.unwritten(10)
    minutes.written(stored)
    minutes.close(START + 1 + KEPT_MINUTES + 1)
    assert minutes.release() == 0
    assert all_bars(minutes) == []
    built([late_trade("AAPL", 101.0, 5, at(0, 40))], minutes)
    assert all_bars(minutes) == []
    assert minutes.missing == [("AAPL", START)]
    minutes.restore(stored, minutes.missing)
    assert minutes.take_restored() == ["AAPL"]
    (bar,) = all_bars(minutes)
    assert (bar.open, bar.close, bar.count, bar.final, bar.rev) == (100.0, 101.0, 2, True, 1)
    assert minutes.unwritten(10) == minutes.take_revised() == [bar]


@pytest.mark.parametrize("forget", [Minutes.release, lambda minutes: minutes.forget(START + 9)])
def test_revised_bar_stays_until_clients_have_it(forget: Callable[[Minutes], object]) -> None:
    """However fast the store is, and however many minutes end meanwhile."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)])
    minutes.close(START + 1)
    built([late_trade("AAPL", 101.0, 5, at(0, 40))], minutes)
    minutes.written(minutes.unwritten(10))
    minutes.close(START + 9)
    forget(minutes)
    (bar,) = minutes.take_revised()
    assert (bar.minute, bar.count, bar.rev) == (START, 2, 1)
    minutes.release()
    assert all_bars(minutes) == []


def test_bar_that_changes_while_it_is_written_is_written_again() -> None:
    """Also if another instance's state of it came meanwhile, with the same revision."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)])
    state = built([Trade("AAPL", 101.0, 5, at(0, 31), 0)], minutes).state_of("AAPL")
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)])
    minutes.close(START + 1)
    batch = minutes.unwritten(10)
    minutes.adopt("AAPL", state)
    minutes.written(batch)
    (bar,) = minutes.unwritten(10)
    assert (bar.count, bar.rev) == (2, 0)


def test_open_minute_that_another_instance_has_written_meanwhile() -> None:
    """This one was away. The minute is over, and can be forgotten."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)])
    minutes.follow(START + 9)
    minutes.forget(START + 6)
    assert minutes.open_bars() == []
    assert minutes.close(START + 9) == []


def test_restored_bar_of_a_renamed_symbol_goes_to_other_instances() -> None:
    """They would not count the late trade otherwise."""
    minutes = Minutes(START + 5, START + 5)
    built([late_trade("AAPL", 101.0, 5, at(0, 40))], minutes)
    minutes.restore([], minutes.missing)
    minutes.rename("AAPL", "APPL")
    assert minutes.take_restored() == ["APPL"]


def test_restored_bar_stays_until_other_instances_are_told() -> None:
    """However fast the store and this instance's clients are. The others read it in a state."""
    minutes = Minutes(START + 9, START + 9)
    built([late_trade("AAPL", 101.0, 5, at(0, 40))], minutes)
    minutes.restore([], minutes.missing)
    minutes.written(minutes.unwritten(10))
    (bar,) = minutes.take_revised()
    minutes.close(START + 10)
    minutes.release()
    assert [each.trades.minute for each in minutes.state_of("AAPL")] == [bar.minute]
    assert minutes.take_restored() == ["AAPL"]
    minutes.release()
    assert minutes.state_of("AAPL") == ()


@pytest.mark.parametrize("stored", [True, False])
def test_restart_within_a_minute(stored: bool) -> None:
    """The minute in which the process began goes on from what the store has of it."""
    before = all_bars(built([Trade("AAPL", 90.0, 5, at(0, 1), 0)])) if stored else []
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 30), 0)], Minutes(START, START + 1))
    assert all_bars(minutes) == []
    minutes.restore(before, minutes.missing)
    (bar,) = all_bars(minutes)
    assert (bar.open, bar.count, bar.final) == ((90.0, 2, False) if stored else (100.0, 1, False))
    assert minutes.close(START + 1) == [(START, ["AAPL"])]


def test_repeats_do_not_count() -> None:
    """The second lap of a replay gives the same trades again."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 1), 0, row=7)])
    minutes.repeats_from = 8
    built([Trade("AAPL", 100.0, 5, at(0, 1), 0, row=9)], minutes)
    assert all_bars(minutes)[0].count == 1


def test_rename() -> None:
    """Bars go on under the new symbol."""
    minutes = built([Trade("AAPL", 100.0, 5, at(0, 1), 0), Trade("AAPL", 100.0, 5, at(1, 1), 0)])
    minutes.close(START + 1)
    minutes.rename("AAPL", "APPL")
    assert [bar.symbol for bar in minutes.recent(["AAPL", "APPL"], 0, 2**40)] == ["APPL"] * 2
    assert [bar.minute for bar in minutes.unwritten(10)] == [START]
    assert minutes.close(START + 2) == [(START + 1, ["APPL"])]


def test_traded_of_both() -> None:
    """A restated minute replaces what came before it."""
    minute = traded(5.0, 1, 7)
    restated = Traded(0, 4.0, 4.0, 4.0, 4.0, 2, 1, 8.0, 7, 7, restated=True)
    assert minute.then(restated).then(traded(6.0, 1, 9)).count == 2
    assert minute.then(restated).open == 4.0
