"""Batches on their way through a queue, from the instance that takes them to the one that judges them.

An instance that does not judge checks what it can: the objects' form, the token, the symbol, the time,
prices and sizes. The others come back to the publisher at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from server.intake.answer import Answer, Refused
from server.intake.checks import (
    book_of,
    corrected,
    require_allowed,
    required_id,
    required_status,
    trade_of,
)
from server.intake.market import Market
from server.intake.names import id_hash
from server.intake.objects import Line, Published, read_time
from server.quotes.instrument import MAX_DECIMALS, UNLISTED, Instrument, is_symbol

MOST_OBJECTS = 500
"""Objects of one entry of the queue: some 60 KB, and 10 ms to judge."""


NEW = msgspec.structs.replace(UNLISTED, price_decimals=MAX_DECIMALS)
"""Stands for a symbol that a trade lists: its price says how many decimals the symbol gets."""


class Queued(msgspec.Struct, array_like=True):
    """One entry: objects that were checked. `key` names the entry, so that it counts once."""

    source: str
    epoch: str
    key: str
    objects: Annotated[list[Published], Meta(max_length=MOST_OBJECTS)]

    @property
    def id(self) -> int:
        """The key, as an id that is remembered."""
        return id_hash("", self.key)


class Checked(msgspec.Struct):
    """The good objects of a batch, and the answer about the others."""

    good: list[Line]
    answer: Answer


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Queued)


def encode_queued(entry: Queued) -> bytes:
    """Return an entry as msgpack."""
    return _encode(entry)


def decode_queued(data: bytes) -> Queued:
    """Errors: ValueError."""
    entry = _decoder.decode(data)
    if bad := [each.symbol for each in entry.objects if not is_symbol(each.symbol)]:
        raise ValueError(f"not a symbol: {bad[0][:80]!r}")
    return entry


def check(
    lines: Iterable[Line], market: Market, symbols: Sequence[str] | None, now: int
) -> Checked:
    """Check each object without knowing any other. Objects without a time get `now`."""
    checked = Checked([], Answer())
    one = partial(_check_one, market=market, symbols=symbols, now=now)
    for line in lines:
        if line.judge(one, checked.answer):
            checked.good.append(line)
    return checked


def _check_one(given: Published, market: Market, symbols: Sequence[str] | None, now: int) -> None:
    """Errors: Refused."""
    require_allowed(symbols, given.symbol)
    instrument = market.instrument(given.symbol)
    # An earlier object of the batch may list the symbol.
    if instrument is None and not market.may_list(given.symbol):
        raise Refused("unknown_symbol", f"no instrument has the symbol {given.symbol}")
    given.ts = read_time(given.ts, now)
    _check_fields(given, instrument or NEW)


def _check_fields(given: Published, instrument: Instrument) -> None:
    """Check what the intake will check of the fields, and drop the sizes that it will not look at:
    msgpack has no integers beyond 64 bits. Errors: Refused.
    """
    match given.kind:
        case "trade":
            trade_of(given, instrument)
        case "quote":
            book_of(given, instrument)
        case "status":
            required_status(given.status)
        case "cancel":
            required_id(given.id)
        case "correct":
            required_id(given.id)
            corrected(given, instrument)
    if given.kind != "quote":
        given.bid_size = given.ask_size = None
    if given.kind not in ("trade", "correct"):
        given.size = None


def split(lines: Sequence[Line]) -> Iterator[tuple[int, int]]:
    """Return where each entry begins and ends. A status is the last of its entry."""
    start = 0
    for stop, line in enumerate(lines, 1):
        if line.is_status or stop - start == MOST_OBJECTS or stop == len(lines):
            yield start, stop
            start = stop
