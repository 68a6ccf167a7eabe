"""Adjustments: splits of a share, and symbols that begin anew. They change what a price means.

A rename is an entry of the same list, and changes no price (see `server.quotes.identity`).

Each price belongs to a list of adjustments: the one its instrument had at that moment. `up_to_date`
brings a price of a shorter list to a longer one. Every instance and every store does it with this
function. So it does not matter whether they hear of the adjustment or of a price first.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import msgspec

from server.quotes.identity import had_symbol, symbol_of
from server.quotes.instrument import (
    LARGEST_WHOLE,
    MAX_DECIMALS,
    SUB_DOLLAR_DECIMALS,
    Instrument,
    at_tick,
    is_price,
    known_at_tick,
)
from server.quotes.snapshot import MAX_ADJUSTMENTS, PRICE_FIELDS, Snapshot, opening_snapshot
from server.quotes.update import Book, Change, DayRange, Move, Opening

FRESH = "fresh@"
"""Begins the entry of a symbol that begins anew. The time follows, in microseconds since 1970."""

MAX_PART = 1_000_000
"""The largest number in a ratio. The largest reverse split of a US share so far was 1:35,000."""

SPLIT_PRICES = ("last_quote", "open", "high", "low", "bid", "ask")

SPLIT_SIZES = ("volume", "bid_size", "ask_size")

LEAST_TICKS = 100
"""Ticks that a price is worth after a split, as a dollar in cents is worth."""

_RATIO = re.compile(r"([0-9]{1,7}):([0-9]{1,7})", re.ASCII)


class ChangeRefused(Exception):
    """The instruments there are do not allow a change. Nothing was changed."""


def parse_ratio(text: str) -> str:
    """Return a split's ratio in lowest terms: `4:1` for four new shares in place of one.

    Errors: ChangeRefused.
    """
    match = _RATIO.fullmatch(text.strip())
    new, old = (int(match[1]), int(match[2])) if match else (0, 0)
    if not (0 < new <= MAX_PART and 0 < old <= MAX_PART):
        raise ChangeRefused(
            f"{text!r} is not a ratio such as 4:1 (four new shares for one) or 1:10"
        )
    if new == old:
        raise ChangeRefused(f"a split of {text} changes nothing")
    return f"{new // gcd(new, old)}:{old // gcd(new, old)}"


def fresh(time_us: int) -> str:
    """Return the entry of a symbol that begins anew at this time."""
    return f"{FRESH}{time_us}"


def begun_us(adjustments: str) -> int:
    """Return since when the symbol belongs to its instrument, in microseconds; 0 for always."""
    begun = [each for each in adjustments.split() if each.startswith(FRESH)]
    return int(begun[-1].removeprefix(FRESH)) if begun else 0


def split(snapshot: Snapshot, ratio: str, *, again: bool) -> Snapshot:
    """Return `snapshot` after a split of its share. Its prices keep at least LEAST_TICKS.

    Arguments:
        again: whether the same ratio may occur twice. By default it is taken for a mistake.

    Errors: ChangeRefused.
    """
    symbol, entries = snapshot.symbol, snapshot.adjustments.split()
    _, _, since_new = f" {snapshot.adjustments}".rpartition(FRESH)
    if ratio in since_new.split() and not again:
        raise ChangeRefused(
            f"{symbol} was split {ratio} already; --again splits it once more; nothing was changed"
        )
    if snapshot.base_price is None:
        raise ChangeRefused(f"{symbol} has no price yet; nothing was changed")
    base, last = (_split(price, ratio) for price in (snapshot.base_price, snapshot.last_quote))
    decimals = max(_decimals(price, snapshot.price_decimals) for price in (base, last))
    base_price = float(round(base, decimals))
    close = snapshot.previous_close
    adjustments = " ".join([*entries, ratio])
    possible = is_price(base_price, decimals, signed=snapshot.signed)
    if not possible or len(adjustments) > MAX_ADJUSTMENTS:
        raise ChangeRefused(
            f"{symbol} cannot be split {ratio}: the price {float(base):g} or the number of splits is "
            "out of bounds; nothing was changed"
        )
    instrument = msgspec.structs.replace(
        snapshot.instrument,
        base_price=base_price,
        price_decimals=decimals,
        previous_close=None if close is None else float(round(_split(close, ratio), decimals)),
        adjustments=adjustments,
    )
    return up_to_date(snapshot, instrument)


def up_to_date(snapshot: Snapshot, instrument: Instrument) -> Snapshot:
    """Return the last price of `snapshot` as one of `instrument`, with the reference data of that.

    Each adjustment that the snapshot does not have yet changes prices and sizes, and makes one version.
    A quote that was never traded keeps version 1, as its price is the base price, unless that is gone.
    """
    instrument = in_session_of(instrument, snapshot)
    opening = opening_snapshot(instrument)
    state = {field: getattr(snapshot, field) for field in PRICE_FIELDS}
    if snapshot.price is None:
        state["last_quote"] = opening.last_quote
    for entry in _following(snapshot.adjustments, instrument.adjustments):
        if symbol_of(entry):
            continue
        version = state["version"]
        gone = instrument.base_price is None and snapshot.price is not None
        version = min(version + 1, LARGEST_WHOLE) if version > 1 or gone else 1
        if entry.startswith(FRESH):
            state = {field: getattr(opening, field) for field in PRICE_FIELDS}
            state["quoted_at"] = int(entry.removeprefix(FRESH))
        else:
            state |= {field: _price(state[field], entry) for field in SPLIT_PRICES}
            sizes = {each: _size(state[each], entry, instrument) for each in SPLIT_SIZES}
            state |= sizes
        state["version"] = version
    last_quote = at_tick(state["last_quote"], instrument.price_decimals)
    return msgspec.structs.replace(opening, **state | {"last_quote": last_quote})


def renamed(state: Snapshot, symbol: str, former: int, now_us: int) -> Snapshot:
    """Return the state of a quote under its new symbol. The version goes on above `former`, the last
    version of an earlier instrument of that symbol, 1 without one.
    """
    version = max(state.version, former)
    if version > 1:
        version, now_us = min(version + 1, LARGEST_WHOLE), state.quoted_at or now_us
    else:
        now_us = state.quoted_at
    return msgspec.structs.replace(state, symbol=symbol, version=version, quoted_at=now_us)


def begun_anew(instrument: Instrument, now_us: int) -> Snapshot:
    """Return the row of an instrument that takes the symbol of another one. Its price is of now."""
    opening = opening_snapshot(instrument)
    return msgspec.structs.replace(opening, quoted_at=now_us, adjustments=fresh(now_us))


def retired(state: Snapshot, now_us: int) -> Snapshot:
    """Return what the catalogue keeps of a symbol whose instrument has another one now. If the symbol
    is listed again, it begins anew, with a version above all that clients have.
    """
    adjustments = _continued(state.adjustments, fresh(now_us))
    return up_to_date(state, msgspec.structs.replace(state.instrument, adjustments=adjustments))


def succeeding(state: Snapshot, symbol: str, former: int, now_us: int) -> Snapshot:
    """Return the catalogue's row of an instrument under its new symbol (see `renamed`)."""
    adjustments = _continued(state.adjustments, had_symbol(state.symbol, now_us))
    row = renamed(state, symbol, former, now_us)
    return msgspec.structs.replace(row, adjustments=adjustments)


def price_adjustments(adjustments: str) -> str:
    """Return the entries that change prices."""
    return " ".join(entry for entry in adjustments.split() if not symbol_of(entry))


def _continued(adjustments: str, entry: str) -> str:
    """Return a list with one more entry, or that alone if the list is too long."""
    continued = f"{adjustments} {entry}".strip()
    return continued if len(continued) <= MAX_ADJUSTMENTS else entry


def begins_anew(known: Instrument, read: Instrument) -> bool:
    """Return whether the symbol, as it was `read`, begins anew after all that is `known`."""
    following = _following(known.adjustments, read.adjustments)
    return any(entry.startswith(FRESH) for entry in following)


def newest_reference(known: Instrument, read: Instrument) -> Instrument:
    """Return the reference data that were `read`, in the session that is `known`. If they lack a known
    adjustment, return them with the known base price and previous close.
    """
    if not _following(read.adjustments, known.adjustments):
        return in_session_of(read, known)
    return msgspec.structs.replace(
        read,
        base_price=known.base_price,
        price_decimals=known.price_decimals,
        previous_close=known.previous_close,
        adjustments=known.adjustments,
        opened_at=known.opened_at,
    )


def in_session_of(instrument: Instrument, known: Instrument | Snapshot) -> Instrument:
    """Return `instrument` in the session that is `known`, with the base price and previous close of
    that session, after the adjustments that followed.
    """
    following = _following(known.adjustments, instrument.adjustments)
    anew = any(entry.startswith(FRESH) for entry in following)
    if instrument.opened_at == known.opened_at or known.base_price is None or anew:
        return instrument
    prices: list[float | None] = [known.base_price, known.previous_close]
    for entry in following:
        prices = [_price(each, entry) for each in prices]
    base, close = (known_at_tick(each, instrument.price_decimals) for each in prices)
    return msgspec.structs.replace(
        instrument, base_price=base, previous_close=close, opened_at=known.opened_at
    )


def adjusted_move(move: Move, instrument: Instrument) -> Move:
    """Return a move from before an adjustment as one after it. A move from after an adjustment that is
    not known here is too early: the leader's state comes first, and has it. It gets version 0, as does
    a move from before a rename to this symbol, which is another instrument's.
    """
    entries = instrument.adjustments.split()
    behind = len(entries) - move.adjustments
    if behind < 0 or any(map(symbol_of, entries[move.adjustments :])):
        return msgspec.structs.replace(move, version=0)
    # `change_after(0)` has the volume as it is.
    change = adjusted_change(move.change_after(0), instrument, behind)
    return move.renewed(move.version + behind, change)


def adjusted_change(change: Change, instrument: Instrument, behind: int) -> Change:
    """Return a change from before the last `behind` adjustments as one after them."""
    for entry in instrument.adjustments.split()[-behind:]:
        if entry.startswith(FRESH):
            now = int(entry.removeprefix(FRESH))
            base = instrument.base_price
            change = Change(change.symbol, base, 0, now, change.ts, change.row)
        else:
            change = _split_change(change, entry, instrument)
    return change


def _split_change(change: Change, ratio: str, instrument: Instrument) -> Change:
    day, book = change.day, change.book
    prices = (day.open, day.high, day.low, day.first)
    start, high, low, first = (_price(each, ratio) for each in prices)
    opening = day.opening and Opening(day.opening.time_us, _price(day.opening.close, ratio))
    if book is not None:
        book = Book(
            _price(book.bid, ratio),
            _price(book.ask, ratio),
            _size(book.bid_size, ratio, instrument),
            _size(book.ask_size, ratio, instrument),
        )
    return msgspec.structs.replace(
        change,
        price=_price(change.price, ratio),
        volume=_size(change.volume, ratio, instrument) or 0,
        day=DayRange(start, high, low, day.restated, day.reopened, first, opening),
        book=book,
    )


def _following(known: str, newer: str) -> Sequence[str]:
    """Return the entries of `newer` behind the `known` ones, none if it is not a continuation."""
    if known == newer:
        return ()
    before, after = known.split(), newer.split()
    return after[len(before) :] if after[: len(before)] == before else ()


def _factor(ratio: str) -> Fraction:
    """Return the number by which a split multiplies prices. A rename's entry changes none."""
    if symbol_of(ratio):
        return Fraction(1)
    new, old = map(int, ratio.split(":"))
    return Fraction(old, new)


def _split(price: float, ratio: str) -> Fraction:
    return Fraction(str(price)) * _factor(ratio)


def _price(price: float | None, ratio: str) -> float | None:
    """Return a price after a split, as exact as a float, None without one."""
    return None if price is None else float(round(_split(price, ratio), MAX_DECIMALS))


def _size(size: float | None, ratio: str, instrument: Instrument) -> float | None:
    """Return a size after a split, None without one."""
    if size is None:
        return None
    units = Fraction(str(size)) / _factor(ratio)
    decimals = instrument.size_decimals
    return min(float(round(units, decimals)) if decimals else round(units), LARGEST_WHOLE)


def _decimals(price: Fraction, least: int) -> int:
    """Return the decimals for a price after a split: at least those before it, and below a dollar those
    of SEC Regulation NMS, Rule 612.
    """
    if not 0 < price < 1:
        return least
    decimals = max(least, SUB_DOLLAR_DECIMALS)
    while decimals < MAX_DECIMALS and price * 10**decimals < LEAST_TICKS:
        decimals += 1
    return decimals
