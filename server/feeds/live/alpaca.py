"""Alpaca, US stocks (IEX by default): trades, quotes, halts and corrections, with a key.

Source: docs.alpaca.markets/docs/real-time-stock-pricing-data.
"""

from collections.abc import Sequence

import msgspec

from server.feeds.live.venue import BadMessage, Published, Reading, Refused, Venue
from server.quotes.instrument import FIRST_SEEN_DECIMALS, Instrument

HALTED = {"2", "H", "P", "Q"}
"""Codes of both tapes: a halt, a volatility pause, and quotes before trading goes on."""

OPEN = {"3", "T"}
"""Codes of both tapes for trading that goes on."""

TRANSIENT = {407, 500}
"""Errors after which a new connection may do: a slow client, Alpaca's own fault."""


class _Item(msgspec.Struct):
    """One control message, trade, quote, status, cancel or correction."""

    T: str
    S: str = ""
    i: int = 0
    p: float = 0.0
    s: float = 0.0
    t: str = ""
    bp: float = 0.0
    ap: float = 0.0
    # Alpaca has no other name for the bid's and the ask's size.
    bs: float = 0.0
    as_: float = msgspec.field(default=0.0, name="as")
    sc: str = ""
    rc: str = ""
    oi: int = 0
    cp: float = 0.0
    cs: float = 0.0
    msg: str = ""
    code: int = 0


_decode = msgspec.json.Decoder(list[_Item]).decode


class Alpaca(Venue):
    """Outside trading hours nothing comes, so only pings tell that the connection is alive.

    Trades have identifiers, but no consecutive numbers: a gap does not show.
    """

    name = "alpaca"
    greets = True

    def __init__(self, url: str, symbols: Sequence[str], key: str, secret: str) -> None:
        super().__init__(url, symbols)
        self._key, self._secret = key, secret

    def instrument(self, symbol: str) -> Instrument:
        """Return a share that waits for its first price."""
        return Instrument(
            symbol=symbol, name=symbol, base_price=None, price_decimals=FIRST_SEEN_DECIMALS
        )

    def read(self, text: str | bytes) -> Reading:
        """Read one message: a list of items. The first two are answered."""
        try:
            items = _decode(text)
        except msgspec.DecodeError as error:
            raise BadMessage(str(error)) from None
        objects: list[Published] = []
        replies: list[object] = []
        for item in items:
            if item.T == "error" and item.code not in TRANSIENT:
                raise Refused(f"{item.msg} ({item.code})")
            if item.T == "success":
                replies += self._answer(item.msg)
            elif found := _READERS.get(item.T):
                objects += found(item)
        return Reading(objects, replies)

    def _answer(self, msg: str) -> list[object]:
        if msg == "connected":
            return [{"action": "auth", "key": self._key, "secret": self._secret}]
        if msg == "authenticated":
            wanted = dict.fromkeys(("trades", "quotes", "statuses"), self.symbols)
            return [{"action": "subscribe", **wanted}]
        return []


def _trade(item: _Item) -> list[Published]:
    return [{"symbol": item.S, "price": item.p, "size": item.s, "ts": item.t, "id": str(item.i)}]


def _quote(item: _Item) -> list[Published]:
    """Return the best bid and ask. Alpaca gives a side without orders a price of zero."""
    return [
        {
            "kind": "quote",
            "symbol": item.S,
            "bid": item.bp or None,
            "ask": item.ap or None,
            "bid_size": item.bs if item.bp else None,
            "ask_size": item.as_ if item.ap else None,
            "ts": item.t,
        }
    ]


def _status(item: _Item) -> list[Published]:
    status = "halted" if item.sc in HALTED else "open" if item.sc in OPEN else None
    if status is None:
        return []
    return [{"kind": "status", "symbol": item.S, "status": status, "reason": item.rc, "ts": item.t}]


def _cancel(item: _Item) -> list[Published]:
    return [{"kind": "cancel", "symbol": item.S, "id": str(item.i)}]


def _correct(item: _Item) -> list[Published]:
    return [
        {"kind": "correct", "symbol": item.S, "id": str(item.oi), "price": item.cp, "size": item.cs}
    ]


_READERS = {"t": _trade, "q": _quote, "s": _status, "x": _cancel, "c": _correct}
