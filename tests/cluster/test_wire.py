"""Instances read values from Redis, where any program may have written anything."""

from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from server.cluster.stats import ClusterStats
from server.cluster.steps import encode_json
from server.cluster.wire import (
    Batch,
    Mark,
    decode_batch,
    decode_mark,
    decode_markets,
    decode_snapshots,
    decode_watched,
    encode_batch,
)
from server.quotes.snapshot import LiveSnapshot
from server.quotes.update import Book, DayRange, FeedPosition, Move


def snapshot(symbol: str) -> LiveSnapshot:
    return LiveSnapshot(symbol, symbol, 1, 10.0, 10.0, version=3, quoted_at=1, ts=2)


def test_batch_is_read_as_it_was_written():
    """With all its parts."""
    invalid = ClusterStats().invalid
    moves, place = [Move("A", 3, 1.0, 2, 1, 1)], FeedPosition(7, 8)
    batch = Batch(5, 6, moves, [snapshot("A")], "feed_lost", "me", position=place)
    assert decode_batch(encode_batch(batch), invalid) == batch
    empty = Batch(5, 6, [], [])
    assert decode_batch(encode_batch(empty), invalid) == empty
    assert invalid.counts == {}


@pytest.mark.parametrize("category", range(1, 11))
def test_every_kind_goes_over_the_bus(category):
    """A follower gets each field of a snapshot, and moves with fractions, day's values and a book."""
    invalid = ClusterStats().invalid
    signed = category in (3, 7, 8, 9, 10)
    price = -37.63 if signed else 0.00001234
    state = msgspec.structs.replace(
        snapshot("BTC/USD"),
        category=category,
        last_quote=price,
        base_price=price,
        volume=0.12345678,
        price_decimals=8,
        size_decimals=8,
        currency="JPY",
        exchange="XTKS",
        isin="JP3633400001",
        previous_close=price,
        open=price,
        high=price,
        low=price,
        bid=price,
        bid_size=0.5,
    )
    moves = [
        Move("BTC/USD", 3, price, 0.5, 1, 1),
        Move("BTC/USD", 4, None, 0.75, 0, 1, 0, 0, DayRange(), Book(price, None, 1.5, None)),
        Move("BTC/USD", 5, price, 0.75, 0, 1, 7, 1, DayRange(None, price, None, restated=True)),
    ]
    batch = Batch(5, 6, moves, [state])
    assert decode_batch(encode_batch(batch), invalid) == batch
    assert decode_snapshots([(b"BTC/USD", encode_json(state))], invalid) == {"BTC/USD": state}
    assert invalid.counts == {}


def test_price_that_a_kind_cannot_have_is_left_out():
    """Only a share of an odd leader is below zero; its topic keeps the price that it had."""
    invalid = ClusterStats().invalid
    for changed in ({"last_quote": -1.0}, {"base_price": 0.0}, {"low": -1.0}, {"volume": 0.5}):
        state = msgspec.structs.replace(snapshot("A"), **changed)
        assert decode_snapshots([(b"A", encode_json(state))], invalid) == {}
    assert invalid.counts == {"hash": 4}


def test_market_that_cannot_be_read_is_left_out():
    """Its place in the hash is counted, and the other markets are read."""
    invalid = ClusterStats().invalid
    deep = b'{"x":' + b"[" * 20_000 + b"]" * 20_000 + b"}"
    assert decode_markets([(b"A", b"{"), (b"B", deep), (b"C", b'{"\xff":1}')], invalid) == []
    assert invalid.counts == {"hash": 3}


def test_state_of_an_older_instance_is_read():
    """It has none of the newer fields, which are then unknown."""
    invalid = ClusterStats().invalid
    old = {
        "symbol": "A",
        "name": "A",
        "category": 2,
        "last_quote": 10.0,
        "base_price": 9.0,
        "market_cap": None,
        "price_decimals": 2,
        "made_up_price": False,
        "volume": 300,
        "version": 3,
        "quoted_at": 1,
        "ts": 2,
    }
    found = decode_snapshots([(b"A", encode_json(old))], invalid)["A"]
    assert (found.type, found.currency, found.size_decimals) == ("ETF", "USD", 0)
    assert (found.open, found.high, found.bid) == (None, None, None)
    sent = [5, 6, [["A", 4, 11.0, 310, 1, 2]], [old], "", "", 1_764_012_345_678_901]
    batch = decode_batch(msgspec.msgpack.encode(sent), invalid)
    move = Move("A", 4, 11.0, 310, 1, 2)
    assert batch == Batch(5, 6, [move], [found], newest_us=1_764_012_345_678_901)


def test_older_instances_read_what_is_published():
    """They expect these types in this order, and ignore what follows."""
    batch = Batch(
        5, 6, [Move("A", 4, 11.0, 310, 1, 2)], [snapshot("A")], position=FeedPosition(7, 8)
    )
    older = tuple[int, int, list[tuple[Any, ...]], list[dict[str, Any]], str, str, int]
    sent = msgspec.msgpack.decode(encode_batch(batch))
    *_, moves, listed, stale, handover, newest_us = msgspec.convert(sent[:7], older)
    assert (moves[0][:6], stale, handover, newest_us) == (("A", 4, 11.0, 310, 1, 2), "", "", 0)
    assert listed[0].items() >= {"symbol": "A", "last_quote": 10.0, "version": 3}.items()


def test_batch_without_the_symbols_that_are_none():
    """A bad name spoils only its own entry. Bytes that are not a batch count as none."""
    invalid = ClusterStats().invalid
    batch = Batch(5, 6, [], [snapshot("A"), snapshot("*"), snapshot("b\n"), snapshot("C")])
    read = decode_batch(encode_batch(batch), invalid)
    assert read == msgspec.structs.replace(batch, listed=[snapshot("A"), snapshot("C")])
    assert decode_batch(b"\xc1", invalid) is None
    assert invalid.counts == {"bus": 3}


def test_mark_that_is_none():
    """An empty field is not invalid, another value is."""
    invalid = ClusterStats().invalid
    assert decode_mark(None, invalid) is None
    assert decode_mark(b"", invalid) is None
    assert invalid.counts == {}
    assert decode_mark(encode_json(Mark(5, 6)), invalid) == Mark(5, 6)
    assert decode_mark(b"7", invalid) is None
    assert invalid.counts == {"hash": 1}


def test_snapshots_that_are_none_are_left_out():
    """Whatever is wrong: the value, the field's bytes, or a symbol under another's name."""
    invalid = ClusterStats().invalid
    good = encode_json(snapshot("A"))
    fields = [(b"A", good), (b"B", good), (b"\xff", good), (b"C", b"{}")]
    assert decode_snapshots(fields, invalid) == {"A": snapshot("A")}
    assert invalid.counts == {"hash": 3}


def test_watched_symbols_that_are_none_are_left_out():
    """Bytes that are not UTF-8 are counted, too."""
    invalid = ClusterStats().invalid
    assert decode_watched([b"A", b"*", b"\xff\n", b"B"], invalid) == ["A", "B"]
    assert invalid.counts == {"watched": 2}


def test_log_names_what_was_left_out():
    """The channel, the hash's field, or the symbol."""
    invalid = ClusterStats().invalid
    with capture_logs() as logs:
        decode_batch(b"\xc1", invalid)
        decode_batch(encode_batch(Batch(5, 6, [], [snapshot("a")])), invalid)
        decode_mark(b"7", invalid)
        decode_snapshots([(b"C", b"{}")], invalid)
        decode_watched([b"b"], invalid)
    assert [each["key"] for each in logs] == ["price_updates", "a", "meta", "C", "b"]
