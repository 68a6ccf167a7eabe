"""Splits and new beginnings: the same result in whatever order they and prices are heard of."""

import msgspec
import pytest

from server.quotes.adjustment import (
    ChangeRefused,
    adjusted_change,
    adjusted_move,
    fresh,
    newest_reference,
    parse_ratio,
    renamed,
    retired,
    split,
    up_to_date,
)
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.quote import move_of, quote_after, resumed_quote, snapshot_of
from server.quotes.snapshot import Snapshot
from server.quotes.update import Change, Move, Restatement, TopOfBook, Trade, merged


def state(last: float = 404.0, volume: float = 1001, version: int = 7, **other: object) -> Snapshot:
    snapshot = Snapshot("FB", "Facebook", 1, last, 400.0, volume=volume, version=version)
    return msgspec.structs.replace(snapshot, quoted_at=5, **other)


@pytest.mark.parametrize(
    ("ratio", "base", "last", "volume"),
    [
        ("4:1", 100.0, 101.0, 4004),
        ("1:10", 4000.0, 4040.0, 100),
        ("3:2", 266.67, 269.33, 1502),
        ("1000:1", 0.4, 0.404, 1_001_000),
    ],
)
def test_split(ratio, base, last, volume):
    """Prices are divided, the volume is multiplied, and the version grows by one."""
    after = split(state(), ratio, again=False)
    assert (after.base_price, after.last_quote, after.volume) == (base, last, volume)
    assert (after.version, after.quoted_at, after.adjustments) == (8, 5, ratio)


def test_split_divides_every_price_and_multiplies_every_size():
    """Also the day's values, the book and the previous close. What is not known stays so."""
    before = state(previous_close=396.0, open=400.0, high=408.0, low=392.0, bid=403.6, bid_size=5)
    after = split(before, "4:1", again=False)
    assert (after.previous_close, after.open, after.high, after.low) == (99.0, 100.0, 102.0, 98.0)
    assert (after.bid, after.bid_size, after.ask, after.ask_size) == (100.9, 20, None, None)
    anew = up_to_date(before, msgspec.structs.replace(before.instrument, adjustments=fresh(9)))
    assert (anew.open, anew.high, anew.bid, anew.bid_size) == (None, None, None, None)


@pytest.mark.parametrize(
    "update",
    [
        Trade("FB", 412.0, 100, 9, 9),
        Change("FB", None, 100, 0, 9),
        TopOfBook("FB", 411.6, None, 10, None, 9, 9),
        Restatement("FB", 400.0, -1, 404.0, 396.0, 9, 9),
        merged(Trade("FB", 800.0, 1, 9, 9), Trade("FB", 200.0, 1, 9, 9)),
    ],
)
@pytest.mark.parametrize("entry", ["4:1", "1:4"])
def test_updates_of_every_kind_follow_a_split(update, entry):
    """An update and a split give the same quote in either order, on the leader and on a follower."""
    before = state(volume=1000, open=400.0, high=408.0, low=392.0, bid=400.0, bid_size=100)
    quote = quote_after(resumed_quote(before), update, 2)
    moved = snapshot_of(before.instrument, quote, 8)
    row = split(before, entry, again=False)
    expected = resumed_quote(up_to_date(moved, row.instrument))
    assert (
        quote_after(resumed_quote(row), adjusted_change(update.change, row.instrument, 1), 2)
        == expected
    )
    move = adjusted_move(move_of(update, 8, quote), row.instrument)
    assert quote_after(resumed_quote(row), move, 2) == expected
    assert move.version == 9


def test_fraction_of_a_size_follows_a_split():
    """Volumes keep the decimals of their instrument, and no noise of floats."""
    after = split(state(volume=0.3, size_decimals=8), "3:1", again=False)
    assert after.volume == 0.9
    assert split(state(volume=1.0, size_decimals=2), "1:3", again=False).volume == 0.33


@pytest.mark.parametrize(
    ("price", "ratio", "decimals", "after"),
    [
        (10.0, "4:1", 2, 2.5),
        (10.0, "3:1", 2, 3.33),
        (1.0, "4:1", 4, 0.25),
        (0.02, "4:1", 5, 0.005),
        (0.02, "1:100", 2, 2.0),
    ],
)
def test_a_price_of_pennies_gets_more_decimals(price, ratio, decimals, after):
    """Below a dollar there are at least four decimals, and so many that the price is 100 ticks."""
    done = split(state(price, base_price=price), ratio, again=False)
    assert (done.price_decimals, done.last_quote, done.base_price) == (decimals, after, after)


def test_split_by_mistake_is_refused():
    """The same ratio is applied again only if asked for, in whatever form it is written."""
    once = split(state(), parse_ratio("8:2"), again=False)
    twice = split(once, "3:1", again=False)
    for done in (once, twice):
        with pytest.raises(ChangeRefused, match="already"):
            split(done, "4:1", again=False)
    assert split(once, "4:1", again=True).base_price == 25.0
    anew = msgspec.structs.replace(once, adjustments=f"4:1 {fresh(9)}")
    assert split(anew, "4:1", again=False).adjustments == f"4:1 {fresh(9)} 4:1"


@pytest.mark.parametrize(
    "text", ["", "4", "4:0", "0:4", "4:4", "-4:1", "4.5:1", "4:1:1", "9999999:1"]
)
def test_ratios_are_checked(text):
    with pytest.raises(ChangeRefused):
        parse_ratio(text)


@pytest.mark.parametrize(
    "problem", [state(base_price=8e13), state(adjustments=" ".join(["2:1"] * 250))]
)
def test_split_out_of_bounds_is_refused(problem):
    with pytest.raises(ChangeRefused, match="nothing was changed"):
        split(problem, "1:10", again=False)


def test_order_does_not_matter():
    """A move of before the split, heard of after it, gives the leader's state."""
    row = split(state(), "4:1", again=False)
    later = state(412.0, volume=1101, version=8)
    leader = up_to_date(later, row.instrument)
    move = adjusted_move(Move("FB", 8, 412.0, 1101, 5, 6), row.instrument)
    assert (leader.version, leader.last_quote, leader.volume) == (9, 103.0, 4404)
    assert (move.version, move.price, move.volume) == (9, 103.0, 4404)
    early = adjusted_move(Move("FB", 8, 412.0, 1101, 5, 6, adjustments=2), row.instrument)
    assert early.version == 0


def test_untraded_keeps_its_first_version():
    after = split(state(400.0, volume=0, version=1), "4:1", again=False)
    assert (after.last_quote, after.version) == (100.0, 1)


def test_new_beginning_forgets_the_price():
    """Price and volume are the import's, however many prices came until then; the version goes on."""
    instrument = state(base_price=10.0, adjustments=f"4:1 {fresh(99)}").instrument
    after = up_to_date(state(), instrument)
    assert (after.last_quote, after.volume, after.quoted_at, after.version) == (10.0, 0, 99, 9)


def test_older_reference_data_do_not_undo_a_split():
    """A cached or another database's row has the new name, but not the old price."""
    known = split(state(), "4:1", again=False).instrument
    read = newest_reference(known, state(name="Meta").instrument)
    assert (read.name, read.base_price, read.adjustments) == ("Meta", 100.0, "4:1")
    other = state(adjustments="3:1").instrument
    assert newest_reference(known, other) == other


def test_version_stays_at_its_largest():
    """A foreign program may have written it. Splits, renames and new beginnings keep it."""
    last = state(version=LARGEST_WHOLE)
    split_once = state(adjustments="4:1").instrument
    begun = state(base_price=10.0, adjustments=fresh(99)).instrument
    for after in (
        up_to_date(last, split_once),
        up_to_date(last, begun),
        renamed(last, "META", 1, 9),
        renamed(state(), "META", LARGEST_WHOLE, 9),
        retired(last, 9),
    ):
        assert after.version == LARGEST_WHOLE


def test_renamed_is_above_both_versions():
    """No client takes a version of the renamed quote for one that it has."""
    assert renamed(state(version=7), "META", 1, 9).version == 8
    assert renamed(state(version=7), "META", 50, 9).version == 51
    untraded = renamed(state(version=1), "META", 1, 9)
    assert untraded.version == 1
    left = retired(state(), 9)
    assert (left.version, left.last_quote, left.volume) == (8, 400.0, 0)
