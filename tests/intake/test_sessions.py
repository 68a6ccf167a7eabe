"""Published trades around an opening: their own time says to which session they belong."""

from datetime import UTC, datetime

import pytest

from server.intake.market import Rules
from server.quotes.quote import Quote, quote_after
from server.quotes.update import NewSession
from server.sessions.calendar import Calendar
from tests.intake.harness import SECOND, Desk

OPENING = int(datetime(2026, 11, 24, 14, 30, tzinfo=UTC).timestamp()) * 1_000_000

RULES = Rules(session=Calendar.parse("09:30-16:00 America/New_York"))


def desk_before_opening() -> Desk:
    """Return a desk a minute before the opening. AAPL traded at 170, and last at 176, on Monday."""
    desk = Desk(RULES)
    desk.now = OPENING - 60 * SECOND
    trade(desk, 170.0, -86_400)
    trade(desk, 176.0, -64_000)
    return desk


def trade(desk: Desk, price: float, seconds: float, **more: object) -> None:
    """Publish a trade with a time relative to the opening."""
    desk.publish({"price": price, "size": 10, "ts": OPENING + int(seconds * SECOND), **more})


def day(quote: Quote) -> tuple[object, ...]:
    """Return the values that an opening changes, and the price."""
    return (
        quote.current_price,
        quote.base_price,
        quote.previous_close,
        quote.open,
        quote.high,
        quote.low,
        quote.volume,
    )


def test_first_trade_of_a_session_begins_it():
    """The trade and the opening are two versions, in this order, though no clock ticked between."""
    desk = desk_before_opening()
    assert day(desk.quotes["AAPL"]) == (176.0, 175.5, None, 170.0, 176.0, 170.0, 20)
    desk.now = OPENING
    trade(desk, 177.0, 0)
    assert day(desk.quotes["AAPL"]) == (177.0, 176.0, 176.0, 177.0, 177.0, 177.0, 10)
    assert desk.versions["AAPL"] == 5
    trade(desk, 178.0, 1)
    assert day(desk.quotes["AAPL"]) == (178.0, 176.0, 176.0, 177.0, 178.0, 177.0, 20)


def test_trade_of_before_the_opening_is_the_close():
    """If it comes before the first trade of the session, it is the last price of the one before."""
    desk = desk_before_opening()
    desk.now = OPENING + SECOND
    trade(desk, 190.0, -0.5)
    assert day(desk.quotes["AAPL"]) == (190.0, 190.0, 190.0, None, None, None, 0)
    trade(desk, 150.0, -70_000)
    assert day(desk.quotes["AAPL"]) == (190.0, 190.0, 190.0, None, None, None, 0)
    trade(desk, 177.0, 0.5)
    assert day(desk.quotes["AAPL"]) == (177.0, 190.0, 190.0, 177.0, 177.0, 177.0, 10)


@pytest.mark.parametrize("source", ["sip", "iex"])
def test_late_trade_of_before_the_opening_is_not_the_day_s_high(source):
    """After the session's first trade, it has no effect on the quote, whatever its source."""
    desk = desk_before_opening()
    desk.now = OPENING + SECOND
    trade(desk, 177.0, 0.5)
    before = day(desk.quotes["AAPL"])
    desk.publish({"price": 190.0, "size": 10, "ts": OPENING - SECOND}, source=source, epoch="other")
    assert day(desk.quotes["AAPL"]) == before


def test_late_trade_may_be_the_first_of_the_session():
    """Then it is the open, as if it had come in time."""
    desk = desk_before_opening()
    desk.now = OPENING + 10 * SECOND
    trade(desk, 177.0, 5)
    trade(desk, 178.0, 6)
    trade(desk, 179.0, 1)
    assert day(desk.quotes["AAPL"]) == (178.0, 176.0, 176.0, 179.0, 179.0, 177.0, 30)
    trade(desk, 175.0, -1)
    assert desk.quotes["AAPL"].open == 179.0


def test_revisions_of_before_the_opening_leave_the_day_alone():
    """A cancelled trade of the last session costs no volume of this one, and its price no high."""
    desk = desk_before_opening()
    trade(desk, 180.0, -60, id="yesterday")
    desk.now = OPENING + SECOND
    trade(desk, 177.0, 0.5, id="today")
    trade(desk, 178.0, 0.6)
    before = day(desk.quotes["AAPL"])
    desk.publish({"kind": "correct", "id": "yesterday", "price": 300.0, "size": 500})
    assert day(desk.quotes["AAPL"]) == before
    desk.publish({"kind": "cancel", "id": "yesterday"})
    assert day(desk.quotes["AAPL"]) == before
    desk.publish({"kind": "cancel", "id": "today"})
    assert day(desk.quotes["AAPL"]) == (178.0, 180.0, 180.0, 177.0, 178.0, 178.0, 10)


def test_cancelled_only_trade_of_a_session_leaves_none():
    """Without a trade, the session has no open, high and low."""
    desk = desk_before_opening()
    desk.now = OPENING + SECOND
    trade(desk, 177.0, 0.5, id="only")
    desk.publish({"kind": "cancel", "id": "only"})
    assert day(desk.quotes["AAPL"]) == (176.0, 176.0, 176.0, None, None, None, 0)


def test_opening_that_the_quote_has_already_is_known():
    """If the server opened the session, the intake does not do it again, and forgets the old high."""
    desk = desk_before_opening()
    desk.now = OPENING + SECOND
    desk.apply([NewSession("AAPL", OPENING, desk.now)])
    version = desk.versions["AAPL"]
    trade(desk, 171.0, 0.5, id="a")
    trade(desk, 172.0, 0.6)
    assert desk.versions["AAPL"] == version + 2
    desk.publish({"kind": "cancel", "id": "a"})
    assert day(desk.quotes["AAPL"])[3:] == (171.0, 172.0, 172.0, 10)


def test_first_trades_of_a_symbol_within_a_session_are_not_taken_for_old():
    """A symbol that begins within the session keeps its values, also when a new intake takes over."""
    desk = Desk(RULES)
    desk.now = OPENING + 60 * SECOND
    trade(desk, 170.0, 10)
    trade(desk, 176.0, 20)
    desk.intake.begin()
    trade(desk, 175.0, 30, id="last")
    assert day(desk.quotes["AAPL"]) == (175.0, 175.5, None, 170.0, 176.0, 170.0, 30)
    desk.publish({"kind": "cancel", "id": "last"})
    assert day(desk.quotes["AAPL"])[3:6] == (170.0, 176.0, 170.0)


def test_out_of_hours_trades_count_for_the_session_before():
    """Between the closing and the next opening, trades go on in the day's values."""
    desk = desk_before_opening()
    desk.now = OPENING + 8 * 3600 * SECOND
    trade(desk, 177.0, 0.5)
    trade(desk, 190.0, 8 * 3600 - 1)
    assert day(desk.quotes["AAPL"])[3:] == (177.0, 190.0, 177.0, 20)
    assert not RULES.session.is_open(desk.now)


def test_opening_before_a_split_is_split_with_it():
    """A conflated change keeps its opening, so `quote_after` gives what two updates give."""
    desk = desk_before_opening()
    quote = desk.quotes["AAPL"]
    opening = NewSession("AAPL", OPENING, OPENING)
    assert quote_after(quote, opening.change, 2) == quote_after(quote, opening, 2)
