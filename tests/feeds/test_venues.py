"""Venues' documented messages, and what they mean as published objects."""

import json
from itertools import product
from typing import Any

import pytest

from server.feeds.live.alpaca import Alpaca
from server.feeds.live.binance import Binance
from server.feeds.live.coinbase import Coinbase
from server.feeds.live.kraken import Kraken
from server.feeds.live.venue import NOTHING, BadMessage, Refused, Venue

URL = "wss://venue.example"

COINBASE = Coinbase(URL, ["BTC-USD"])
KRAKEN = Kraken(URL, ["BTC/USD"])
BINANCE = Binance(URL, ["BTCUSDT", "ETHUSDT"])
ALPACA = Alpaca(URL, ["AAPL"], "the key", "the secret")

COINBASE_MATCH = {
    "type": "match",
    "trade_id": 10,
    "sequence": 50,
    "maker_order_id": "ac928c66-ca53-498f-9c13-a110027a60e8",
    "taker_order_id": "132fb6ae-456b-4654-b4e0-d681ac05cea1",
    "time": "2014-11-07T08:19:27.028459Z",
    "product_id": "BTC-USD",
    "size": "5.23512",
    "price": "400.23",
    "side": "sell",
}
COINBASE_TICKER = {
    "type": "ticker",
    "sequence": 37475248783,
    "product_id": "ETH-USD",
    "price": "1285.22",
    "open_24h": "1310.79",
    "best_bid": "1285.04",
    "best_bid_size": "0.46688654",
    "best_ask": "1285.27",
    "best_ask_size": "1.56637040",
    "side": "buy",
    "time": "2022-10-19T23:28:22.061769Z",
    "trade_id": 370843401,
    "last_size": "11.4396987",
}
KRAKEN_TRADE = {
    "symbol": "MATIC/USD",
    "side": "sell",
    "price": 0.5117,
    "qty": 40.0,
    "ord_type": "market",
    "trade_id": 4665906,
    "timestamp": "2023-09-25T07:49:37.708706Z",
}
KRAKEN_TICKER = {
    "symbol": "ALGO/USD",
    "bid": 0.10025,
    "bid_qty": 740.0,
    "ask": 0.10036,
    "ask_qty": 1361.44813783,
    "last": 0.10035,
    "volume": 997038.98383185,
}
BINANCE_TRADE = {
    "e": "trade",
    "E": 1672515782136000,
    "s": "BNBBTC",
    "t": 12345,
    "p": "0.001",
    "q": "100",
    "T": 1672515782136001,
    "m": True,
    "M": True,
}
BINANCE_BOOK = {"u": 400900217, "s": "BNBUSDT", "b": "25.3519", "B": "31.21", "a": "0", "A": "0"}
ALPACA_TRADE = {
    "T": "t",
    "i": 96921,
    "S": "AMD",
    "x": "D",
    "p": 126.55,
    "s": 1,
    "t": "2021-02-22T15:51:44.208Z",
    "c": ["@", "I"],
    "z": "C",
}
ALPACA_QUOTE = {
    "T": "q",
    "S": "AMD",
    "bx": "U",
    "bp": 87.66,
    "bs": 1,
    "ax": "Q",
    "ap": 0,
    "as": 0,
    "t": "2021-02-22T15:51:45.335689322Z",
    "c": ["R"],
}
ALPACA_HALT = {
    "T": "s",
    "S": "AAPL",
    "sc": "H",
    "sm": "Trading Halt",
    "rc": "LUDP",
    "rm": "Volatility Trading Pause",
    "t": "2021-02-22T19:15:00Z",
}
ALPACA_CANCEL = {"T": "x", "S": "GOOGL", "i": 465, "x": "D", "p": 120.1, "s": 10, "a": "C"}
ALPACA_CORRECTION = {
    "T": "c",
    "S": "EEM",
    "x": "M",
    "oi": 52983525033527,
    "op": 39.1582,
    "os": 440000,
    "ci": 52983525034326,
    "cp": 39.1809,
    "cs": 430000,
}

MEANINGS: list[tuple[Venue, Any, list[dict[str, object]]]] = [
    (
        COINBASE,
        COINBASE_MATCH,
        [
            {
                "symbol": "BTC-USD",
                "price": 400.23,
                "size": 5.23512,
                "ts": "2014-11-07T08:19:27.028459Z",
                "seq": 10,
                "id": "10",
            }
        ],
    ),
    (
        COINBASE,
        COINBASE_TICKER,
        [
            {
                "kind": "quote",
                "symbol": "ETH-USD",
                "bid": 1285.04,
                "ask": 1285.27,
                "bid_size": 0.46688654,
                "ask_size": 1.5663704,
                "ts": "2022-10-19T23:28:22.061769Z",
            }
        ],
    ),
    (
        KRAKEN,
        {"channel": "trade", "type": "update", "data": [KRAKEN_TRADE]},
        [
            {
                "symbol": "MATIC/USD",
                "price": 0.5117,
                "size": 40.0,
                "ts": "2023-09-25T07:49:37.708706Z",
                "seq": 4665906,
                "id": "4665906",
            }
        ],
    ),
    (
        KRAKEN,
        {"channel": "ticker", "type": "snapshot", "data": [KRAKEN_TICKER]},
        [
            {
                "kind": "quote",
                "symbol": "ALGO/USD",
                "bid": 0.10025,
                "ask": 0.10036,
                "bid_size": 740.0,
                "ask_size": 1361.44813783,
            }
        ],
    ),
    (
        BINANCE,
        {"stream": "bnbbtc@trade", "data": BINANCE_TRADE},
        [
            {
                "symbol": "BNBBTC",
                "price": 0.001,
                "size": 100.0,
                "ts": 1672515782136001,
                "seq": 12345,
                "id": "12345",
            }
        ],
    ),
    (
        BINANCE,
        {"stream": "bnbusdt@bookTicker", "data": BINANCE_BOOK},
        [
            {
                "kind": "quote",
                "symbol": "BNBUSDT",
                "bid": 25.3519,
                "ask": None,
                "bid_size": 31.21,
                "ask_size": None,
            }
        ],
    ),
    (
        ALPACA,
        [ALPACA_TRADE, ALPACA_QUOTE],
        [
            {
                "symbol": "AMD",
                "price": 126.55,
                "size": 1.0,
                "ts": "2021-02-22T15:51:44.208Z",
                "id": "96921",
            },
            {
                "kind": "quote",
                "symbol": "AMD",
                "bid": 87.66,
                "ask": None,
                "bid_size": 1.0,
                "ask_size": None,
                "ts": "2021-02-22T15:51:45.335689322Z",
            },
        ],
    ),
    (
        ALPACA,
        [ALPACA_HALT, ALPACA_HALT | {"sc": "T"}, ALPACA_HALT | {"sc": "unheard of"}],
        [
            {
                "kind": "status",
                "symbol": "AAPL",
                "status": status,
                "reason": "LUDP",
                "ts": "2021-02-22T19:15:00Z",
            }
            for status in ("halted", "open")
        ],
    ),
    (
        ALPACA,
        [ALPACA_CANCEL, ALPACA_CORRECTION],
        [
            {"kind": "cancel", "symbol": "GOOGL", "id": "465"},
            {
                "kind": "correct",
                "symbol": "EEM",
                "id": "52983525033527",
                "price": 39.1809,
                "size": 430000.0,
            },
        ],
    ),
]


@pytest.mark.parametrize(("venue", "message", "objects"), MEANINGS)
def test_documented_message(venue: Venue, message: Any, objects: list[dict[str, object]]) -> None:
    assert venue.read(json.dumps(message)).objects == objects


def test_kraken_snapshot_is_read_in_the_order_of_its_trades():
    trades = [KRAKEN_TRADE | {"trade_id": number} for number in (7, 5, 6)]
    reading = KRAKEN.read(json.dumps({"channel": "trade", "type": "snapshot", "data": trades}))
    assert [each["seq"] for each in reading.objects] == [5, 6, 7]


EMPTY_SIDES: list[tuple[Venue, Any]] = [
    (COINBASE, COINBASE_TICKER | {"best_bid": "0", "best_bid_size": "0"}),
    (COINBASE, COINBASE_TICKER | {"best_bid": "0.00", "best_bid_size": "0.00000000"}),
    (COINBASE, COINBASE_TICKER | {"best_bid": "", "best_bid_size": ""}),
    (KRAKEN, {"channel": "ticker", "data": [KRAKEN_TICKER | {"bid": 0.0, "bid_qty": 0.0}]}),
    (KRAKEN, {"channel": "ticker", "data": [KRAKEN_TICKER | {"bid": None, "bid_qty": None}]}),
]


@pytest.mark.parametrize(("venue", "message"), EMPTY_SIDES)
def test_side_without_orders_is_empty(venue: Venue, message: Any) -> None:
    """A price of zero would make the intake refuse the other side, too."""
    (quote,) = venue.read(json.dumps(message)).objects
    assert (quote["bid"], quote["bid_size"]) == (None, None)
    assert quote["ask"]
    assert quote["ask_size"]


NEUTRAL: list[tuple[Venue, Any]] = [
    (COINBASE, {"type": "subscriptions", "channels": []}),
    (COINBASE, {"type": "heartbeat", "sequence": 90, "last_trade_id": 0, "product_id": "BTC-USD"}),
    (COINBASE, {"type": "nobody documented this", "price": "1"}),
    (KRAKEN, {"channel": "heartbeat"}),
    (KRAKEN, {"channel": "status", "type": "update", "data": [{"system": "online"}]}),
    (KRAKEN, {"method": "subscribe", "result": {"channel": "trade"}, "success": True}),
    (BINANCE, {"result": None, "id": 1}),
    (BINANCE, {"stream": "btcusdt@unheard", "data": {"x": 1}}),
    (ALPACA, [{"T": "subscription", "trades": ["AAPL"]}]),
    (ALPACA, [{"T": "b", "S": "AAPL", "o": 1, "h": 2}]),
    (ALPACA, [{"T": "error", "code": 407, "msg": "slow client"}]),
]


@pytest.mark.parametrize(("venue", "message"), NEUTRAL)
def test_other_message_means_nothing(venue: Venue, message: Any) -> None:
    assert [*venue.read(json.dumps(message)).objects] == [*NOTHING.objects]


REFUSALS: list[tuple[Venue, Any, str]] = [
    (
        COINBASE,
        {"type": "error", "message": "Failed to subscribe", "reason": "X is not a valid product"},
        "X is not a valid product",
    ),
    (
        KRAKEN,
        {"error": "Currency pair not supported X", "method": "subscribe", "success": False},
        "Currency pair not supported X",
    ),
    (ALPACA, [{"T": "error", "code": 402, "msg": "auth failed"}], "auth failed (402)"),
    (ALPACA, [{"T": "error", "code": 406, "msg": "connection limit exceeded"}], "(406)"),
]


@pytest.mark.parametrize(("venue", "message", "words"), REFUSALS)
def test_refusal_is_told_in_the_venues_words(venue: Venue, message: Any, words: str) -> None:
    with pytest.raises(Refused) as refused:
        venue.read(json.dumps(message))
    assert words in str(refused.value)


MALFORMED = ["", "{", "7", '"x"', "[[]]", "\x00", "NaN"]

WRONG_TYPES = [
    (COINBASE, '{"type": 5}'),
    (KRAKEN, '{"channel": "trade", "data": [{"price": "much"}]}'),
    (BINANCE, '{"stream": "btcusdt@trade", "data": {"s": 1}}'),
    (ALPACA, '[{"T": "t", "p": "126.55"}]'),
]


@pytest.mark.parametrize(
    ("venue", "text"),
    [*product([COINBASE, KRAKEN, BINANCE, ALPACA], MALFORMED), *WRONG_TYPES],
)
def test_malformed_message(venue: Venue, text: str) -> None:
    with pytest.raises(BadMessage):
        venue.read(text)


@pytest.mark.parametrize("price", ["", "free", "1,5"])
def test_price_that_is_not_a_number(price: str) -> None:
    with pytest.raises(BadMessage, match="not a number"):
        COINBASE.read(json.dumps(COINBASE_MATCH | {"price": price}))


def test_subscriptions_name_the_symbols_and_channels():
    assert COINBASE.greeting() == [
        {
            "type": "subscribe",
            "product_ids": ["BTC-USD"],
            "channels": ["matches", "ticker", "heartbeat"],
        }
    ]
    assert KRAKEN.greeting() == [
        {
            "method": "subscribe",
            "params": {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True},
        },
        {
            "method": "subscribe",
            "params": {"channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "bbo"},
        },
    ]
    assert BINANCE.url == (
        f"{URL}/stream?streams=btcusdt@trade/btcusdt@bookTicker/ethusdt@trade/ethusdt@bookTicker"
        "&timeUnit=MICROSECOND"
    )


def test_alpaca_is_answered_step_by_step():
    connected = ALPACA.read('[{"T":"success","msg":"connected"}]')
    assert connected.replies == [{"action": "auth", "key": "the key", "secret": "the secret"}]
    authenticated = ALPACA.read('[{"T":"success","msg":"authenticated"}]')
    assert authenticated.replies == [
        {"action": "subscribe", "trades": ["AAPL"], "quotes": ["AAPL"], "statuses": ["AAPL"]}
    ]
