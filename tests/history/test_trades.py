"""The last trades of each symbol: within their bounds, and what is gone is said."""

import tracemalloc
from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from server.history.trades import BYTES_A_SYMBOL, BYTES_A_TRADE, MOST, RecentTrades
from server.quotes.traded import Traded, traded
from server.quotes.update import Move, Restatement, TopOfBook, Trade, Update, merged
from tests.late import late_trade


def trade(price: float, *, symbol: str = "IBM") -> Trade:
    return Trade(symbol, price, 100, 1_700_000_000_000_000, 1_700_000_000_000_001)


def versions(trades: RecentTrades, after: int, *, symbol: str = "IBM") -> tuple[list[int], bool]:
    found, complete = trades.after(symbol, after, 10**9, MOST)
    return [each.version for each in found], complete


def test_a_gap_is_filled_trade_by_trade():
    """All trades above a version are there, in order. Those of before the start are missing."""
    trades = RecentTrades()
    for version in (7, 8, 10):
        trades.absorb("IBM", version, trade(float(version)), float(version))
    trades.absorb("IBM", 9, TopOfBook("IBM", 1.0, 2.0, 1, 1, 0, 0), 1.0)
    assert versions(trades, 6) == ([7, 8, 10], True)
    assert versions(trades, 8) == ([10], True)
    assert versions(trades, 5) == ([7, 8, 10], False)
    found, _ = trades.after("IBM", 0, 10, 1)
    assert [(each.version, each.price, each.size) for each in found] == [(7, 7.0, 100)]
    assert trades.after("AIG", 3, 3, 9) == ([], True)
    assert trades.after("AIG", 2, 3, 9) == ([], False)


def test_merged_trades_leave_a_gap():
    """An update of two trades has no single price, so nothing before it is complete."""
    trades = RecentTrades()
    trades.absorb("IBM", 2, trade(1.0), 1.0)
    trades.absorb("IBM", 3, merged(trade(2.0), trade(3.0)), 3.0)
    trades.absorb("IBM", 4, trade(4.0), 4.0)
    assert versions(trades, 1) == ([4], False)
    assert versions(trades, 3) == ([4], True)


def test_late_trades_and_moves_of_the_leader_count():
    """A late trade has its own price. A follower keeps the trades that the leader's moves have."""
    trades = RecentTrades()
    trades.absorb("IBM", 2, late_trade("IBM", 5.0, 100, 0), 9.0)
    assert [each.price for each in trades.after("IBM", 1, 2, 9)[0]] == [5.0]
    move = Move("IBM", 3, 6.0, 200, 1_700_000_000_000_000, 1, size=100)
    trades.absorb("IBM", 3, move, 6.0)
    assert [each.price for each in trades.after("IBM", 2, 3, 9)[0]] == [6.0]


def test_price_of_a_trade_with_a_book_is_at_the_tick():
    """A recorded row may have a trade with more decimals than its symbol, and a book."""
    trades = RecentTrades()
    row = merged(trade(175.509999), TopOfBook("IBM", 1.0, 2.0, 1, 1, 0, 0))
    trades.absorb("IBM", 2, row, 175.51, 2)
    trades.absorb("IBM", 3, late_trade("IBM", 5.001, 100, 0), 175.51, 2)
    assert [each.price for each in trades.after("IBM", 1, 3, 9)[0]] == [175.51, 5.0]


def restatement(*prices: float) -> Restatement:
    """Return a cancel or a correction, which leaves trades with these prices in the minute."""
    left = replace(traded(1.0, 0, 1_700_000_000_000_000), count=0, restated=True)
    if prices:
        parts = [traded(each, 100, 1_700_000_000_000_000) for each in prices]
        left = replace(reduce(Traded.then, parts), restated=True)
    return Restatement("IBM", 1.0, -100, 1.0, 1.0, 0, 1, minutes=(left,))


@pytest.mark.parametrize("update", [restatement(), restatement(7.0), restatement(7.0, 8.0)])
@pytest.mark.parametrize("followed", [False, True])
def test_cancels_and_corrections_leave_no_gap(update, followed):
    """They are not trades. So all trades stay, on the leader and on a follower."""
    trades = RecentTrades()
    for version in (7, 8):
        trades.absorb("IBM", version, trade(float(version)), float(version))
    if followed:
        quote = Move("IBM", 9, 1.0, 100, 0, 1)
        update = quote.renewed(9, update.change)
    trades.absorb("IBM", 9, update, 1.0)
    trades.absorb("IBM", 10, trade(10.0), 10.0)
    assert versions(trades, 6) == ([7, 8, 10], True)


@pytest.mark.parametrize("prices", [(), (7.0,), (7.0, 8.0)])
@pytest.mark.parametrize("cancel_first", [False, True])
def test_a_cancel_that_was_merged_with_a_trade_leaves_a_gap(prices, cancel_first):
    """Nobody can tell the new trade from the others of its minute."""
    trades = RecentTrades()
    trades.absorb("IBM", 7, trade(7.0), 7.0)
    both: list[Update] = [restatement(*prices), trade(8.0)]
    trades.absorb("IBM", 8, merged(*(both if cancel_first else both[::-1])), 8.0)
    assert versions(trades, 6) == ([], False)
    assert versions(trades, 8) == ([], True)


def test_a_new_epoch_begins_anew():
    """Versions go back with a new epoch, and what was before it is no longer given."""
    trades = RecentTrades()
    for version in (50, 51, 3):
        trades.absorb("IBM", version, trade(1.0), 1.0)
    assert versions(trades, 2) == ([3], True)
    trades.drop(["IBM", "AIG"])
    assert versions(trades, 2) == ([], False)


@given(st.lists(st.sampled_from("ABCDE"), max_size=400), st.integers(1, 60))
def test_memory_is_bounded(symbols, room):
    """No more trades than fit are kept, each symbol's newest ones, and gaps are said."""
    trades = RecentTrades(room * BYTES_A_TRADE)
    newest: dict[str, int] = {}
    for symbol in symbols:
        newest[symbol] = version = newest.get(symbol, 0) + 1
        trades.absorb(symbol, version, trade(1.0, symbol=symbol), 1.0)
    kept = {symbol: versions(trades, 0, symbol=symbol) for symbol in newest}
    assert sum(len(found) for found, _ in kept.values()) <= max(room, len(newest))
    assert used(kept) <= room * BYTES_A_TRADE
    for symbol, (found, complete) in kept.items():
        assert found == [*range(newest[symbol] - len(found) + 1, newest[symbol] + 1)]
        assert complete == (len(found) == newest[symbol])


def used(kept: dict[str, tuple[list[int], bool]]) -> int:
    """Return the bytes of what is kept."""
    return sum(BYTES_A_SYMBOL + BYTES_A_TRADE * len(found) for found, _ in kept.values() if found)


@pytest.mark.parametrize("each", [1, 100])
def test_memory_is_what_the_process_takes(each):
    """Also with more symbols than have room for one trade."""
    memory = 500_000
    trades = RecentTrades(memory)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for number in range(2000):
        symbol = f"S{number}"
        for version in range(1000, 1000 + each):
            trades.absorb(symbol, version, trade(version / 7, symbol=symbol), version / 7)
    taken = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert memory / 2 < taken < memory * 1.2
    assert versions(trades, 1000 + each - 2, symbol="S1999") == ([1000 + each - 1], True)
    assert versions(trades, 0, symbol="S0") == ([], False)


def test_a_symbol_has_a_thousand_trades():
    """The oldest make room for new ones."""
    trades = RecentTrades()
    for version in range(1, MOST + 6):
        trades.absorb("IBM", version, trade(1.0), 1.0)
    assert versions(trades, 5) == ([*range(6, MOST + 6)], True)
    assert not versions(trades, 4)[1]
