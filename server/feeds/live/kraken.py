"""Kraken, WebSocket API v2: the channels `trade` and `ticker`, without an account.

Source: docs.kraken.com/api/docs/websocket-v2.
"""

from collections.abc import Sequence

import msgspec

from server.feeds.live.venue import NOTHING, BadMessage, Reading, Refused, TradeNumber, Venue


class _Item(msgspec.Struct):
    """One trade or ticker."""

    symbol: str = ""
    price: float = 0.0
    qty: float = 0.0
    trade_id: TradeNumber = 0
    timestamp: str | None = None
    bid: float | None = None
    ask: float | None = None
    bid_qty: float | None = None
    ask_qty: float | None = None


class _Message(msgspec.Struct):
    channel: str = ""
    data: msgspec.Raw = msgspec.Raw(b"[]")
    method: str = ""
    success: bool = True
    error: str = ""


_decode = msgspec.json.Decoder(_Message).decode
_decode_items = msgspec.json.Decoder(list[_Item]).decode


class Kraken(Venue):
    """Heartbeats come every second without other messages, so ten seconds of silence are an outage.

    The snapshot of 50 trades after each subscription fills short gaps: known trades count once.
    """

    name = "kraken"
    silence = 10.0
    numbered = True

    def currency(self, symbol: str) -> str:
        """Return the part behind the slash: the USD of BTC/USD."""
        return symbol.rpartition("/")[2]

    def greeting(self) -> Sequence[object]:
        """Subscribe to the trades, and to each change of the best bid and ask."""
        trades = {"channel": "trade", "symbol": self.symbols, "snapshot": True}
        tickers = {"channel": "ticker", "symbol": self.symbols, "event_trigger": "bbo"}
        return [{"method": "subscribe", "params": each} for each in (trades, tickers)]

    def read(self, text: str | bytes) -> Reading:
        """Read one message."""
        try:
            message = _decode(text)
            if message.method == "subscribe" and not message.success:
                raise Refused(message.error)
            if message.channel not in ("trade", "ticker"):
                return NOTHING
            items = _decode_items(message.data)
        except msgspec.DecodeError as error:
            raise BadMessage(str(error)) from None
        if message.channel == "ticker":
            return Reading([_quote(item) for item in items])
        return Reading([_trade(item) for item in sorted(items, key=lambda item: item.trade_id)])


def _trade(item: _Item) -> dict[str, object]:
    return {
        "symbol": item.symbol,
        "price": item.price,
        "size": item.qty,
        "ts": item.timestamp,
        "seq": item.trade_id,
        "id": str(item.trade_id),
    }


def _quote(item: _Item) -> dict[str, object]:
    """Return the best bid and ask. A side without orders is missing or zero."""
    quote: dict[str, object] = {
        "kind": "quote",
        "symbol": item.symbol,
        "bid": item.bid or None,
        "ask": item.ask or None,
        "bid_size": item.bid_qty if item.bid else None,
        "ask_size": item.ask_qty if item.ask else None,
    }
    # Kraken's older servers give a ticker no time: the intake then takes the present one.
    return quote | {"ts": item.timestamp} if item.timestamp else quote
