"""Binance, spot: the streams `@trade` and `@bookTicker`, without an account.

Source: developers.binance.com/docs/binance-spot-api-docs/web-socket-streams.
"""

from collections.abc import Sequence

import msgspec

from server.feeds.live.venue import NOTHING, BadMessage, Reading, TradeNumber, Venue, number

_STABLE = ("USDT", "USDC", "FDUSD", "TUSD")
_COINS = ("BTC", "ETH", "BNB")
CURRENCIES = (*_STABLE, "USD", "EUR", "GBP", "TRY", "BRL", *_COINS)
"""Currencies in which Binance quotes: a symbol does not say where they begin."""


class _Data(msgspec.Struct):
    """A trade (`t`, `p`, `q`, `T`) or the best bid and ask (`b`, `B`, `a`, `A`)."""

    s: str
    t: TradeNumber = 0
    p: str = ""
    q: str = ""
    T: TradeNumber = 0
    b: str = ""
    B: str = ""
    a: str = ""
    A: str = ""


class _Message(msgspec.Struct):
    stream: str = ""
    data: msgspec.Raw = msgspec.Raw(b"null")


_decode = msgspec.json.Decoder(_Message).decode
_decode_data = msgspec.json.Decoder(_Data).decode


class Binance(Venue):
    """Binance pings every 20 seconds and closes each connection after 24 hours."""

    name = "binance"
    numbered = True

    def __init__(self, url: str, symbols: Sequence[str]) -> None:
        streams = "/".join(
            f"{symbol.lower()}@{stream}" for symbol in symbols for stream in ("trade", "bookTicker")
        )
        super().__init__(f"{url}/stream?streams={streams}&timeUnit=MICROSECOND", symbols)

    def currency(self, symbol: str) -> str:
        """Return the currency at the end of a symbol: the USDT of BTCUSDT."""
        return next(filter(symbol.endswith, CURRENCIES), "USD")

    def read(self, text: str | bytes) -> Reading:
        """Read one message of a combined stream."""
        try:
            message = _decode(text)
            kind = message.stream.partition("@")[2]
            if kind not in ("trade", "bookTicker"):
                return NOTHING
            data = _decode_data(message.data)
        except msgspec.DecodeError as error:
            raise BadMessage(str(error)) from None
        return Reading([_trade(data) if kind == "trade" else _quote(data)])


def _trade(data: _Data) -> dict[str, object]:
    return {
        "symbol": data.s,
        "price": number(data.p),
        "size": number(data.q),
        "ts": data.T,
        "seq": data.t,
        "id": str(data.t),
    }


def _quote(data: _Data) -> dict[str, object]:
    """Return the best bid and ask, which Binance gives no time. A side without orders is zero."""
    bid, ask = number(data.b), number(data.a)
    return {
        "kind": "quote",
        "symbol": data.s,
        "bid": bid or None,
        "ask": ask or None,
        "bid_size": number(data.B) if bid else None,
        "ask_size": number(data.A) if ask else None,
    }
