"""Cancels and corrections of published trades."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.intake.market import Rules
from server.intake.trades import KeptTrades
from server.quotes.instrument import Instrument
from server.quotes.quote import opening_quote
from tests.intake.harness import NOW, Desk, counts

BAND = Rules(band=0.1)
RANKED = Rules(priority=("sip", "iex"))


def test_cancelled_trade_never_was() -> None:
    """Price, volume, high and low are as they would have been; a second cancel changes nothing."""
    desk = Desk()
    desk.publish({"price": 10, "size": 1, "ts": NOW - 2}, {"price": 11, "size": 2, "ts": NOW - 1})
    before = desk.quotes["AAPL"]
    desk.publish({"price": 99, "size": 5, "id": "x"})
    cancel = {"kind": "cancel", "id": "x"}
    assert counts(desk.publish(cancel, cancel))[:2] == (1, 1)
    assert desk.quotes["AAPL"] == before
    assert counts(desk.publish({"price": 99, "size": 5, "id": "x"}))[1] == 1


def test_cancelled_trade_makes_no_other_late() -> None:
    """A trade between it and the one before moves the price."""
    desk = Desk()
    desk.publish({"price": 10, "ts": NOW - 9}, {"price": 99, "ts": NOW, "id": "x"})
    desk.publish({"kind": "cancel", "id": "x"})
    assert counts(desk.publish({"price": 11, "ts": NOW - 5}))[0] == 1
    assert desk.quotes["AAPL"].current_price == 11
    assert counts(desk.publish({"price": 12, "ts": NOW - 7}))[2] == 1


def test_last_trade_may_be_cancelled() -> None:
    """Without any trade the price is the base price."""
    desk = Desk()
    desk.publish({"price": 10, "size": 1, "id": "x"}, {"kind": "cancel", "id": "x"})
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.high, quote.low) == (175.5, 0, None, None)


def test_corrected_trade_has_its_new_values() -> None:
    """A correction may come twice, and may be corrected back."""
    desk = Desk()
    desk.publish({"price": 10, "size": 1}, {"price": 20, "size": 2, "id": "x"})
    before = desk.quotes["AAPL"]
    correct = {"kind": "correct", "id": "x", "price": 15, "size": 7}
    desk.publish(correct, correct)
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.high, quote.low) == (15, 8, 15, 10)
    desk.publish({**correct, "price": 20, "size": 2})
    assert desk.quotes["AAPL"] == before


@pytest.mark.parametrize("base_price", [None, 175.5])
def test_new_base_price_forgets_no_trade(base_price: float | None) -> None:
    """The first trade of a waiting instrument gives one, as an import may later."""
    desk = Desk()
    waiting = Instrument(symbol="AAPL", name="Apple Inc.", base_price=base_price)
    desk.instruments["AAPL"] = waiting
    desk.quotes["AAPL"] = opening_quote(waiting)
    desk.publish({"price": 10, "size": 1, "id": "x"})
    desk.instruments["AAPL"] = msgspec.structs.replace(waiting, base_price=10.0)
    desk.publish({"price": 11, "size": 2, "id": "y"})
    assert counts(desk.publish({"kind": "cancel", "id": "x"}))[0] == 1
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.low) == (11, 2, 11)


def test_correct_without_values_is_refused_by_name() -> None:
    """It changes nothing, and its number stays free. It releases a held trade, as it names it."""
    desk = Desk(BAND)
    desk.publish({"price": 100, "id": "a"}, {"price": 200, "size": 1, "id": "far"})
    bare = {"kind": "correct", "id": "a", "seq": 1}
    answer = desk.publish(bare, {**bare, "price": 101}, {"kind": "correct", "id": "far"})
    assert counts(answer) == (2, 0, 0, 0, ["bad_price"])
    assert answer.rejected[0].message.startswith("price and size are missing")
    assert desk.quotes["AAPL"].current_price == 200


def test_split_begins_anew() -> None:
    """Trades before it cannot be revised, and the first trade after it is no outlier."""
    desk = Desk(BAND)
    desk.publish({"price": 100, "size": 1, "id": "x"})
    split = Instrument(symbol="AAPL", name="Apple Inc.", base_price=17.55, adjustments="10:1")
    desk.instruments["AAPL"] = split
    desk.quotes["AAPL"] = msgspec.structs.replace(
        desk.quotes["AAPL"], base_price=17.55, current_price=10.0, high=10.0, low=10.0, volume=10
    )
    assert counts(desk.publish({"price": 10.1, "size": 5, "id": "y"}))[0] == 1
    assert counts(desk.publish({"kind": "cancel", "id": "x"}))[4] == ["unknown_trade"]
    assert counts(desk.publish({"kind": "cancel", "id": "y"}))[0] == 1
    quote = desk.quotes["AAPL"]
    assert (quote.current_price, quote.volume, quote.high) == (10, 10, 10)


def test_trade_that_is_no_longer_kept_is_refused_by_name() -> None:
    """The answer names the trade, and the quote stays."""
    desk = Desk()
    desk.publish(*[{"price": 5, "size": 1, "id": f"t{n}"} for n in range(1001)])
    answer = desk.publish({"kind": "cancel", "id": "t0"}, {"kind": "cancel", "id": "t1"})
    assert counts(answer) == (1, 0, 0, 0, ["unknown_trade"])
    assert "t0" in answer.rejected[0].message
    assert desk.quotes["AAPL"].volume == 1000


@pytest.mark.parametrize("kind", ["cancel", "correct"])
def test_revision_after_a_split_brings_no_old_price_back(kind: str) -> None:
    """It may be the first object after the split. Trades held before it are dropped, and counted."""
    desk = Desk(BAND)
    desk.publish({"price": 100, "size": 1, "id": "x"}, {"price": 101, "size": 1, "id": "y"})
    assert desk.publish({"price": 400, "size": 1, "id": "z"}).held == 1
    split = msgspec.structs.replace(desk.instruments["AAPL"], adjustments="4:1")
    desk.instruments["AAPL"] = split
    after = msgspec.structs.replace(desk.quotes["AAPL"], current_price=25.25, high=25.25, low=25.0)
    desk.quotes["AAPL"] = after
    for name in ("y", "z"):
        answer = desk.publish({"kind": kind, "id": name, "size": 3})
        assert counts(answer)[4] == ["unknown_trade"]
    assert desk.quotes["AAPL"] == after
    assert (desk.intake.held.count, desk.intake.held.dropped) == (0, 1)
    assert desk.publish({"price": 25.3, "size": 1, "id": "n"}).accepted == 1
    assert desk.publish({"kind": "cancel", "id": "n"}).accepted == 1
    assert desk.quotes["AAPL"].current_price == 25.25


@given(
    st.lists(
        st.tuples(st.integers(1, 9), st.integers(1, 99), st.integers(0, 9), st.booleans()),
        min_size=1,
        max_size=14,
    ),
    st.integers(3, 6),
    st.integers(0, 14),
)
def test_revised_quote_is_that_of_the_other_trades(
    trades: list[tuple[int, int, int, bool]], most: int, half: int
) -> None:
    """Whatever came late, was folded or comes after, the quote is that of the trades that are left."""
    desk, plain = Desk(), Desk()
    desk.intake.trades = KeptTrades(most=most)
    objects: list[dict[str, Any]] = [
        {"price": price, "size": size, "ts": NOW - tick, "id": f"t{n}", "seq": n}
        for n, (price, size, tick, _) in enumerate(trades)
    ]
    desk.publish(*objects[:half])
    gone = set()
    for n, (*_, cancelled) in enumerate(trades[:half]):
        if cancelled and desk.publish({"kind": "cancel", "id": f"t{n}"}).accepted:
            gone.add(n)
    desk.publish(*objects[half:])
    left = [each for n, each in enumerate(objects) if n not in gone]
    if left:
        plain.publish(*sorted(left, key=lambda each: (each["ts"], each["seq"])))
    one, other = desk.quotes["AAPL"], plain.quotes["AAPL"]
    assert (one.current_price, one.volume, one.high, one.low) == (
        other.current_price,
        other.volume,
        other.high,
        other.low,
    )


def test_symbol_whose_only_trade_is_cancelled_has_no_trade() -> None:
    """Its price is that before the trade, and neither a time nor the day's values are known."""
    desk = Desk()
    old = desk.quotes["AAPL"] = msgspec.structs.replace(desk.quotes["AAPL"], last_updated=None)
    desk.publish({"price": 180, "size": 1, "id": "a"})
    assert desk.quotes["AAPL"].open == 180
    desk.publish({"kind": "cancel", "id": "a"})
    assert desk.quotes["AAPL"] == old
    desk.publish({"price": 190, "size": 1, "id": "b"})
    assert desk.quotes["AAPL"].open == 190
