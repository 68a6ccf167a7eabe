"""Updates of every kind, and their conflation."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.quotes.instrument import Instrument
from server.quotes.quote import Quote, move_of, opening_quote, quote_after
from server.quotes.record import Decoder
from server.quotes.traded import Traded
from server.quotes.update import (
    Book,
    Change,
    DayRange,
    Move,
    Opening,
    Restatement,
    TopOfBook,
    Trade,
    Update,
    changes_bar,
    merged,
)

OIL = Instrument(
    symbol="CLK0",
    name="Crude oil",
    type="FUTURE",
    base_price=18.27,
    size_decimals=3,
    previous_close=18.2,
)

OPENING = opening_quote(OIL, 1)
WAITING = opening_quote(msgspec.structs.replace(OIL, base_price=None))

prices = st.integers(-4000, 4000).map(lambda cents: cents / 100)
sizes = st.integers(0, 10**6).map(lambda units: units / 1000) | st.integers(0, 1000)
nothing = st.none()
times = st.integers(1, 10**9)

trades = st.builds(Trade, st.just("CLK0"), prices, sizes, times, times)
late_trades = st.builds(Change, st.just("CLK0"), nothing, sizes, st.just(0), times)
books = st.builds(
    TopOfBook,
    st.just("CLK0"),
    nothing | prices,
    nothing | prices,
    nothing | sizes,
    nothing | sizes,
    times,
    times,
)
restatements = st.builds(
    Restatement, st.just("CLK0"), prices, sizes, nothing | prices, nothing | prices, times, times
)
updates = st.one_of(trades, late_trades, books, restatements)


def after(*changes: Update, quote: Quote = OPENING) -> Quote:
    """Return the quote after one update after another."""
    for each in changes:
        quote = quote_after(quote, each, OIL.price_decimals, OIL.size_decimals)
    return quote


def moves(*changes: Update, quote: Quote = OPENING) -> list[Move]:
    """Return the moves that a leader publishes, as followers decode them."""
    made = list[Move]()
    decode = Decoder(Move, "msgpack").decode
    for version, each in enumerate(changes, 2):
        quote = after(each, quote=quote)
        made.append(decode(msgspec.msgpack.encode(move_of(each, version, quote))))
    return made


def conflated(parts: list[Update], cuts: set[int]) -> list[Update]:
    """Return `parts`, those between two cuts merged into one."""
    groups: list[Update] = []
    for number, each in enumerate(parts):
        if groups and number not in cuts:
            groups[-1] = merged(groups[-1], each)
        else:
            groups.append(each)
    return groups


@given(st.lists(updates, max_size=12), st.sets(st.integers(1, 11)))
def test_any_split_into_conflated_batches_gives_the_same_quote(parts, cuts):
    """Conflation loses no volume, no high, no low and no book, and keeps the last price."""
    assert after(*conflated(parts, cuts)) == after(*parts)


@given(st.lists(updates, max_size=12), st.sets(st.integers(1, 11)))
def test_followers_get_the_leader_s_quote(parts, cuts):
    """Also if a follower conflates the moves, and the leader conflated the updates."""
    for published in (moves(*parts), moves(*conflated(parts, cuts))):
        assert after(*published) == after(*parts)
        assert after(*conflated([*published], cuts)) == after(*parts)
        if published:
            whole = conflated([*published], set())[0]
            assert isinstance(whole, Move)
            assert whole.version == published[-1].version


@given(
    st.lists(books, max_size=2),
    trades,
    st.lists(updates, max_size=9),
    st.sets(st.integers(1, 11)),
)
def test_first_of_conflated_trades_gives_the_base_price(before, first, later, cuts):
    """For the leader and a follower, whichever of them conflates, also if all trades are cancelled."""
    parts = [*before, first, *later]
    one_by_one = after(*parts, quote=WAITING)
    assert one_by_one.base_price == round(first.price, OIL.price_decimals)
    own = conflated(parts, cuts)
    assert after(*own, quote=WAITING) == one_by_one
    for published in (moves(*parts, quote=WAITING), moves(*own, quote=WAITING)):
        assert after(*conflated([*published], cuts), quote=WAITING) == one_by_one


@given(st.lists(updates, min_size=1, max_size=6), st.lists(updates, min_size=1, max_size=6))
def test_update_after_a_move_makes_the_next_version(led, own):
    """An instance that begins to lead may conflate its first trades with the last moves."""
    published = moves(*led)
    whole = conflated([*published, *own], set())[0]
    assert isinstance(whole, Move)
    assert whole.version == published[-1].version + len(own)
    assert after(whole) == after(*led, *own)


def test_move_replaces_earlier_updates_of_another_kind():
    """The leader's version includes its own trades, not those that this instance made before."""
    move = Move("CLK0", 2, 18.0, 10, 1, 2)
    assert merged(Trade("CLK0", 30.0, 5, 1, 1), move) is move


def test_two_merged_trades_keep_both_extremes():
    """The later price and the newest times win; the sizes add up."""
    first, second = Trade("A", 1.0, 10, 1, 2), Trade("A", 2.0, 20, 3, 4)
    minute = Traded(0, 1.0, 2.0, 1.0, 2.0, 30, 2, 50.0, 1, 3)
    day = DayRange(1.0, 2.0, 1.0)
    assert merged(first, second) == Change("A", 2.0, 30, 3, 4, 0, day, minutes=(minute,))


def test_trade_s_move_stays_as_short_as_it_was():
    """The fields that updates of other kinds need take one byte each."""
    (move,) = moves(Trade("CLK0", 18.5, 100, 5, 6))
    plain = msgspec.msgpack.encode(["CLK0", 2, 18.5, 100, 5, 6, 0, 0])
    assert len(msgspec.msgpack.encode(move)) == len(plain) + 4


def test_move_of_an_older_instance_still_counts():
    """During a rolling deployment the leader may be older. Its moves end after six fields."""
    old = Decoder(Move, "msgpack").decode(msgspec.msgpack.encode(["CLK0", 2, 18.5, 100, 5, 6]))
    assert after(old) == after(Trade("CLK0", 18.5, 100, 5, 6))


def test_day_s_values():
    """Open is the first price, high and low are the extremes; nothing is known before."""
    assert (OPENING.open, OPENING.high, OPENING.low, OPENING.previous_close) == (
        None,
        None,
        None,
        18.2,
    )
    quote = after(*(Trade("CLK0", price, 1, 5, 6) for price in (-1.0, 5.0, -37.63, 2.0)))
    assert (quote.open, quote.high, quote.low, quote.current_price) == (-1.0, 5.0, -37.63, 2.0)


def test_late_trade_counts_for_the_volume_only():
    """It never moves the price, its time or the day's values."""
    before = after(Trade("CLK0", 18.0, 1.5, 5, 6))
    quote = after(Change("CLK0", None, 2.25, 0, 7), quote=before)
    assert quote == msgspec.structs.replace(before, volume=3.75)


def test_book_moves_nothing_else():
    """Each of its values may be missing, and replaces the value before."""
    before = after(Trade("CLK0", 18.0, 1, 5, 6))
    quote = after(TopOfBook("CLK0", 17.994, None, 0.12345, None, 8, 9), quote=before)
    assert quote == msgspec.structs.replace(before, bid=17.99, bid_size=0.123)


def test_restatement_replaces_the_extremes():
    """As if the cancelled trade had never been; the volume falls."""
    before = after(Trade("CLK0", 18.0, 1.5, 5, 6), Trade("CLK0", 99.0, 2, 7, 8))
    quote = after(Restatement("CLK0", 18.0, -2, 18.0, 18.0, 5, 9), quote=before)
    assert quote == after(Trade("CLK0", 18.0, 1.5, 5, 6))


@pytest.mark.parametrize("base", [0.0, -37.63])
def test_no_percentage_of_a_base_that_is_not_above_zero(base):
    """`change` is a difference all the same."""
    instrument = msgspec.structs.replace(OIL, base_price=base)
    quote = opening_quote(instrument, 1)
    assert (quote.change, quote.change_percent) == (0.0, None)
    quote = after(Trade("CLK0", 1.5, 1, 5, 6), quote=quote)
    assert (quote.change, quote.change_percent) == (round(1.5 - base, 2), None)


@given(st.lists(st.integers(0, 10**9), max_size=50), st.integers(0, 8))
def test_volume_is_the_exact_sum_of_fractional_sizes(units, decimals):
    """No digit beyond the instrument's decimals ever appears."""
    quote = OPENING
    for each in units:
        quote = quote_after(quote, Trade("CLK0", 1.0, each / 10**decimals, 5, 6), 2, decimals)
    assert quote.volume == sum(units) / 10**decimals


def test_change_shows_no_float_s_error():
    """With many decimals too, it has only those of the two prices: also at an opening."""
    coin = Instrument(symbol="BTC/USD", name="Bitcoin", base_price=64000.01, price_decimals=12)
    quote = quote_after(opening_quote(coin), Trade("BTC/USD", 65000.12, 1, 1, 1), 12)
    assert quote.change == 1000.11
    opening = DayRange(opening=Opening(1, 64999.999))
    quote = quote_after(quote, Change("BTC/USD", None, 0, 1, 1, 0, opening, None), 12)
    assert (quote.base_price, quote.change) == (64999.999, 0.121)


def test_instrument_without_decimals_shows_integers():
    """A price of 2500 yen has no decimal point, nor does a volume in shares."""
    quote = quote_after(OPENING, Trade("CLK0", 2500.0, 3.0, 5, 6), 0, 0)
    assert msgspec.json.encode([quote.current_price, quote.high, quote.volume]) == b"[2500,2500,3]"


def test_book_of_four_numbers_is_short_on_the_bus():
    """Its fields have no names there."""
    book = Book(1.0, 2.0, 3, 4)
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(book)) == [1.0, 2.0, 3, 4]


@pytest.mark.parametrize(
    ("minute", "changes"),
    [
        (Traded(1, 2.0, 2.0, 2.0, 2.0, 5, 1, 10.0, 60, 60), True),
        (Traded(1, 2.0, 2.0, 2.0, 2.0, 0, 1, 0.0, 60, 60), False),
        (Traded(1, 2.0, 2.0, 2.0, 2.0, 0, 1, 0.0, 60, 60, late=True), True),
        (Traded(1, 2.0, 2.0, 2.0, 2.0, 0, 0, 0.0, 60, 60, restated=True), True),
    ],
)
def test_volume_alone_changes_a_bar(minute, changes):
    """So does a late trade or a revised minute. A trade without any of these does not."""
    assert changes_bar(Change("CLK0", None, 0, 0, 1, minutes=(minute,))) is changes
    assert changes_bar(Change("CLK0", None, 5, 0, 1)) is False
