"""Adjustments: splits of a share, and symbols that begin anew. They change what a price means.

Each price belongs to a list of adjustments: the one its instrument had at that moment. `up_to_date`
brings a price of a shorter list to a longer one. Every instance and every store does it with this
function. So it does not matter whether they hear of the adjustment or of a price first.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from math import gcd

import msgspec

from server.quotes.instrument import (
    LARGEST_WHOLE,
    MAX_DECIMALS,
    SUB_DOLLAR_DECIMALS,
    Instrument,
    is_price,
)
from server.quotes.quote import Move, Trade
from server.quotes.snapshot import MAX_ADJUSTMENTS, Snapshot, opening_snapshot

FRESH = "fresh@"
"""Begins the entry of a symbol that begins anew. The time follows, in microseconds since 1970."""

MAX_PART = 1_000_000
"""The largest number in a ratio. The largest reverse split of a US share so far was 1:35,000."""

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
    adjustments = " ".join([*entries, ratio])
    if not is_price(base_price, decimals) or len(adjustments) > MAX_ADJUSTMENTS:
        raise ChangeRefused(
            f"{symbol} cannot be split {ratio}: the price {float(base):g} or the number of splits is "
            "out of bounds; nothing was changed"
        )
    instrument = msgspec.structs.replace(
        snapshot.instrument,
        base_price=base_price,
        price_decimals=decimals,
        adjustments=adjustments,
    )
    return up_to_date(snapshot, instrument)


def up_to_date(snapshot: Snapshot, instrument: Instrument) -> Snapshot:
    """Return the last price of `snapshot` as one of `instrument`, with the reference data of that.

    Each adjustment that the snapshot does not have yet changes price and volume, and makes one version.
    A quote that was never traded keeps version 1, as its price is the base price.
    """
    opening = opening_snapshot(instrument)
    last_quote = opening.last_quote if snapshot.price is None else snapshot.last_quote
    volume, quoted_at = snapshot.volume, snapshot.quoted_at
    version = snapshot.version
    for entry in _following(snapshot.adjustments, instrument.adjustments):
        if entry.startswith(FRESH):
            last_quote, volume = opening.last_quote, 0
            quoted_at = int(entry.removeprefix(FRESH))
        else:
            last_quote = float(round(_split(last_quote, entry), MAX_DECIMALS))
            volume = min(round(volume / _factor(entry)), LARGEST_WHOLE)
        version = min(version + 1, LARGEST_WHOLE) if version > 1 else 1
    return msgspec.structs.replace(
        opening,
        last_quote=round(last_quote, instrument.price_decimals),
        volume=volume,
        version=version,
        quoted_at=quoted_at,
    )


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
    adjustments = f"{state.adjustments} {fresh(now_us)}".strip()
    return up_to_date(state, msgspec.structs.replace(state.instrument, adjustments=adjustments))


def newest_reference(known: Instrument, read: Instrument) -> Instrument:
    """Return the reference data that were `read`, unless they lack an adjustment that is `known`. Then
    return them with the known base price.
    """
    if not _following(read.adjustments, known.adjustments):
        return read
    return msgspec.structs.replace(
        read,
        base_price=known.base_price,
        price_decimals=known.price_decimals,
        adjustments=known.adjustments,
    )


def adjusted_move(move: Move, instrument: Instrument) -> Move:
    """Return a move from before an adjustment as one after it. A move from after an adjustment that is
    not known here is too early: the leader's state comes first, and has it. It gets version 0.
    """
    behind = len(instrument.adjustments.split()) - move.adjustments
    if behind < 0:
        return msgspec.structs.replace(move, version=0)
    after = _adjusted(move.price, move.volume, move.time_us, instrument, behind)
    return msgspec.structs.replace(
        move,
        version=move.version + behind,
        price=after.last_quote,
        volume=after.volume,
        time_us=after.quoted_at,
    )


def adjusted_trade(trade: Trade, instrument: Instrument) -> Trade:
    """Return a trade that the feed gave before the newest adjustment as one after it."""
    after = _adjusted(trade.price, trade.size, trade.time_us, instrument, 1)
    return msgspec.structs.replace(
        trade, price=after.last_quote, size=after.volume, time_us=after.quoted_at
    )


def _adjusted(
    price: float, volume: int, time_us: int, instrument: Instrument, behind: int
) -> Snapshot:
    """Apply the last `behind` adjustments of `instrument` to a price, shares and a time."""
    entries = instrument.adjustments.split()
    before = msgspec.structs.replace(
        opening_snapshot(instrument),
        last_quote=price,
        volume=volume,
        quoted_at=time_us,
        adjustments=" ".join(entries[: len(entries) - behind]),
    )
    return up_to_date(before, instrument)


def _following(known: str, newer: str) -> Sequence[str]:
    """Return the entries of `newer` behind the `known` ones, none if it is not a continuation."""
    if known == newer:
        return ()
    before, after = known.split(), newer.split()
    return after[len(before) :] if after[: len(before)] == before else ()


def _factor(ratio: str) -> Fraction:
    """Return the number by which a split multiplies prices."""
    new, old = map(int, ratio.split(":"))
    return Fraction(old, new)


def _split(price: float, ratio: str) -> Fraction:
    return Fraction(str(price)) * _factor(ratio)


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
