"""Coinbase Exchange: the channels `matches`, `ticker` and `heartbeat`, without an account.

Source: docs.cdp.coinbase.com/exchange/websocket-feed.
"""

from collections.abc import Sequence

import msgspec

from server.feeds.live.venue import (
    NOTHING,
    BadMessage,
    Reading,
    Refused,
    TradeNumber,
    Venue,
    number,
    optional_number,
)

CHANNELS = ["matches", "ticker", "heartbeat"]


class _Message(msgspec.Struct):
    """The fields that this server uses, of all types of messages."""

    type: str
    product_id: str = ""
    trade_id: TradeNumber = 0
    price: str = ""
    size: str = ""
    time: str = ""
    best_bid: str | None = None
    best_ask: str | None = None
    best_bid_size: str | None = None
    best_ask_size: str | None = None
    message: str = ""
    reason: str = ""


_decode = msgspec.json.Decoder(_Message).decode


class Coinbase(Venue):
    """Heartbeats come every second, so ten seconds of silence are an outage."""

    name = "coinbase"
    silence = 10.0
    numbered = True

    def currency(self, symbol: str) -> str:
        """Return the part behind the dash: the USD of BTC-USD."""
        return symbol.rpartition("-")[2]

    def greeting(self) -> Sequence[object]:
        """Subscribe at once: Coinbase closes a connection that has not after five seconds."""
        return [{"type": "subscribe", "product_ids": self.symbols, "channels": CHANNELS}]

    def read(self, text: str | bytes) -> Reading:
        """Read one message. `last_match` is the newest trade before the subscription."""
        try:
            message = _decode(text)
        except msgspec.DecodeError as error:
            raise BadMessage(str(error)) from None
        match message.type:
            case "match" | "last_match":
                return Reading([_trade(message)])
            case "ticker":
                return Reading([_quote(message)])
            case "error":
                raise Refused(message.reason or message.message)
        return NOTHING


def _trade(message: _Message) -> dict[str, object]:
    return {
        "symbol": message.product_id,
        "price": number(message.price),
        "size": number(message.size),
        "ts": message.time,
        "seq": message.trade_id,
        "id": str(message.trade_id),
    }


def _quote(message: _Message) -> dict[str, object]:
    """Return the best bid and ask. A side without orders is missing, empty or zero."""
    bid, ask = optional_number(message.best_bid), optional_number(message.best_ask)
    return {
        "kind": "quote",
        "symbol": message.product_id,
        "bid": bid or None,
        "ask": ask or None,
        "bid_size": optional_number(message.best_bid_size) if bid else None,
        "ask_size": optional_number(message.best_ask_size) if ask else None,
        "ts": message.time,
    }
