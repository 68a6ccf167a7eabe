"""What instances read from Redis, where anybody may have written anything."""

import msgspec
from structlog.testing import capture_logs

from server.cluster.stats import ClusterStats
from server.cluster.wire import (
    Batch,
    Mark,
    decode_batch,
    decode_mark,
    decode_snapshots,
    decode_watched,
    encode_batch,
    encode_json,
)
from server.quotes.quote import FeedPosition, Move
from server.quotes.snapshot import LiveSnapshot


def snapshot(symbol: str) -> LiveSnapshot:
    return LiveSnapshot(symbol, symbol, 1, 10.0, 10.0, version=3, quoted_at=1, ts=2)


def test_batch_is_read_as_it_was_written():
    """With all its parts."""
    invalid = ClusterStats().invalid
    batch = Batch(
        5, 6, [Move("A", 3, 1.0, 2, 1, 1)], [snapshot("A")], "feed_lost", "me", FeedPosition(7, 8)
    )
    assert decode_batch(encode_batch(batch), invalid) == batch
    empty = Batch(5, 6, [], [])
    assert decode_batch(encode_batch(empty), invalid) == empty
    assert invalid.counts == {}


def test_batch_without_the_symbols_that_are_none():
    """One bad name takes nothing else away; what is no batch is none."""
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
