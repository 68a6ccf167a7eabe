"""The settings of prices from outside: what they allow, and what they mean."""

from types import SimpleNamespace
from typing import cast

import pytest

from server.app.publishing import open_push, trades_memory
from server.config.environment import BadSetting
from server.config.loading import load_settings
from server.config.values import FeedChoice
from server.fanout.hub import Hub
from server.feeds.push import Push
from server.gateway.directory import Directory
from server.intake.kept import Row, Values


@pytest.mark.parametrize(
    ("text", "feeds", "simulated"),
    [
        ("simulator", ["simulator"], []),
        ("push", ["push"], []),
        ("bus", ["bus"], []),
        ("replay:/tmp/a+b.csv", ["replay"], []),
        ("replay:push+simulator:A", ["replay"], []),
        ("simulator:test1", ["simulator"], ["TEST1"]),
        ("push+simulator:TEST1, brk.b", ["push", "simulator"], ["BRK.B", "TEST1"]),
        ("simulator:TEST1+push", ["simulator", "push"], ["TEST1"]),
        ("stream:ticks:eu", ["stream"], []),
        ("push+stream:ticks+simulator:TEST1", ["push", "stream", "simulator"], ["TEST1"]),
    ],
)
def test_feed_may_be_several(text, feeds, simulated):
    """A simulator beside another feed names its symbols."""
    choice = FeedChoice.parse(text)
    assert list(choice.feeds) == feeds
    assert sorted(choice.simulated) == simulated
    assert (choice.replay_path is not None) == ("replay" in feeds)
    assert choice.stream == {"stream:ticks:eu": "ticks:eu"}.get(text, "ticks" * ("stream" in feeds))


@pytest.mark.parametrize(
    "text",
    [
        "push+simulator", "push+", "+push", "push:", "push:x", "push+push", "bus+push", "replay:",
        "stream:", "push+stream", "stream:a+stream:b",
        "simulator:", "simulator:,", "push+replay:x", "push+simulator:", "stream", "Push",
    ],
)  # a table # fmt: skip
def test_feed_that_cannot_be_is_refused(text):
    """The start fails with one line."""
    with pytest.raises(BadSetting, match="FEED="):
        load_settings({"FEED": text})


def test_stream_needs_redis():
    """The start fails with one line."""
    with pytest.raises(BadSetting, match="FEED='stream:ticks' is not allowed without REDIS_URL"):
        load_settings({"FEED": "stream:ticks"})
    load_settings({"FEED": "stream:ticks", "REDIS_URL": "redis://localhost"})


@pytest.mark.parametrize(
    ("text", "share"),
    [("off", 0), ("0", 0), ("10%", 0.1), ("10", 0.1), ("0.1", 0.1), ("1", 0.01), ("100%", 1)],
)
def test_band_is_a_share(text, share):
    """A number from 1 on is a percentage."""
    assert load_settings({"PRICE_BAND": text}).price_band == share


@pytest.mark.parametrize("text", ["x", "-1", "101", "nan", "inf", "10%%", "1e9", "%"])
def test_band_that_is_not_a_share_is_refused(text):
    """The start fails with one line."""
    with pytest.raises(BadSetting, match="PRICE_BAND="):
        load_settings({"PRICE_BAND": text})


@pytest.mark.parametrize(("feed", "size"), [("simulator", 40_000), ("push", 20_000)])
def test_both_kinds_of_last_trades_share_one_memory(feed, size):
    """Those of `GET /trades` have all of it, unless others can be revised."""
    settings = load_settings({"FEED": feed, "TRADES_MEMORY": "40000"})
    assert trades_memory(settings) == size
    push = open_push(settings, Hub(), cast(Directory, SimpleNamespace()), None)
    if isinstance(push, Push):
        kept = push.intake.trades
        kept.begin("IBM", Values(None, 0, None, None, traded=False))
        for number in range(1, 2000):
            kept.add("IBM", Row(number, number, -1, 1.0, 1.0, 1), late=False)
        assert size / 2 < kept.used <= size


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("1000", 1000), ("64MiB", 2**26), ("2 gib", 2**31), ("512KiB", 2**19)],
)
def test_memory_is_in_bytes(text, size):
    """With a binary unit, in any case."""
    assert load_settings({"TRADES_MEMORY": text}).trades_memory == size


@pytest.mark.parametrize("text", ["x", "-1", "1.5MiB", "5MB", "MiB", "٣"])
def test_memory_that_is_no_size_is_refused(text):
    """The start fails with one line."""
    with pytest.raises(BadSetting, match="TRADES_MEMORY="):
        load_settings({"TRADES_MEMORY": text})
