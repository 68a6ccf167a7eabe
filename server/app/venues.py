"""The live public feeds that FEED names, as publishers to the push feed."""

from collections.abc import Callable, Sequence

import msgspec

from server.cluster.shared_prices import SharedPrices
from server.config.settings import Settings
from server.config.values import VENUES
from server.fanout.hub import Hub
from server.feeds.live.alpaca import Alpaca
from server.feeds.live.binance import Binance
from server.feeds.live.coinbase import Coinbase
from server.feeds.live.feed import LiveFeed
from server.feeds.live.kraken import Kraken
from server.feeds.live.venue import Published, Venue
from server.feeds.push import Push
from server.intake.answer import Answer
from server.intake.batch import Batch

AWAY, BACK = "venue_away", "venue_connected"
"""Reasons of the status that clients get if all prices come from venues."""


def open_venues(settings: Settings, hub: Hub, push: Push | SharedPrices) -> None:
    """Let the venues that FEED names publish to `push`."""
    watch = _Watch(hub, push, only=set(settings.feed.feeds) <= set(VENUES))

    async def deliver(source: str, objects: Sequence[Published]) -> None:
        batch = Batch([msgspec.json.encode(objects)], source, "", None)
        await push.put(batch, _ignore)

    push.venues = [
        LiveFeed(
            _MAKERS[name](settings, settings.feed.symbols(name)), deliver, watch, hub.stats.invalid
        )
        for name in settings.feed.venues
    ]


class _Watch:
    """Tells clients whether prices flow, if all come from venues (`only`)."""

    def __init__(self, hub: Hub, push: Push | SharedPrices, *, only: bool) -> None:
        self._hub = hub
        self._push = push
        self._only = only

    def on_connected(self) -> None:
        if self._hub.status.message.reason == AWAY:
            self._hub.set_status("live", BACK)

    def on_away(self) -> None:
        if self._only and not any(venue.connected for venue in self._push.venues):
            self._hub.set_status("stale", AWAY)


def _ignore(_: Answer) -> None:
    """Leave the answer: the push feed logs what it rejects."""


def _alpaca(settings: Settings, symbols: Sequence[str]) -> Venue:
    return Alpaca(settings.alpaca_url, symbols, settings.alpaca_key_id, settings.alpaca_secret_key)


_MAKERS: dict[str, Callable[[Settings, Sequence[str]], Venue]] = {
    "coinbase": lambda settings, symbols: Coinbase(settings.coinbase_url, symbols),
    "kraken": lambda settings, symbols: Kraken(settings.kraken_url, symbols),
    "binance": lambda settings, symbols: Binance(settings.binance_url, symbols),
    "alpaca": _alpaca,
}
