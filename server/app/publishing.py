"""Connects the push feed with the hub and the store."""

from collections.abc import Iterable, Sequence

import trio

from server.cluster.member import Member
from server.cluster.shared_prices import SharedPrices
from server.cluster.work import source_of
from server.config.settings import Settings
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.feeds.push import Push
from server.gateway.directory import Directory
from server.intake.intake import Intake
from server.intake.kept import Values
from server.intake.market import Notice, Rules
from server.pacing import wait_until
from server.quotes.instrument import Instrument
from server.quotes.quote import to_microseconds
from server.quotes.snapshot import opening_snapshot


class HubExchange:
    """The market of the intake: the symbols that the hub has in memory."""

    def __init__(
        self,
        hub: Hub,
        directory: Directory,
        member: Member | None = None,
        *,
        lists_symbols: bool,
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._member = member
        self._lists_symbols = lists_symbols

    def instrument(self, symbol: str) -> Instrument | None:
        """Return a symbol's reference data, None if it is not in memory. After a rename, the old
        symbol has those of the new one.
        """
        topic = self._hub.topics.get(self._present(symbol))
        return topic.instrument if topic else None

    def may_list(self, symbol: str) -> bool:
        """Return whether a trade may list a symbol that does not exist."""
        return self._lists_symbols and symbol not in self._hub.delisted

    def values(self, symbol: str) -> Values:
        """Return a symbol's present values."""
        topic = self._hub.topics.get(symbol)
        if topic is None:
            return Values(None, 0, None, None, traded=False)
        quote = topic.quote
        updated = to_microseconds(quote.last_updated) if quote.last_updated else 0
        traded = quote.open is not None or quote.volume > 0 or _was_opened(topic)
        minutes = self._hub.bars.minutes.trades_of(symbol)
        return Values(quote.current_price, updated, quote.high, quote.low, traded, minutes)

    async def look_up(self, symbols: Sequence[str]) -> Sequence[str]:
        """List those symbols that exist. Return those about which neither the store nor the cluster
        can say anything.
        """
        present = {symbol: self._present(symbol) for symbol in symbols}
        away = await self._directory.list_symbols([*{*present.values()}])
        if self._member:
            # A follower may have taken their prices: it knew them while its store was there.
            await self._member.list_known(away)
        return [
            symbol
            for symbol, each in present.items()
            if each in away and each not in self._hub.topics
        ]

    def _present(self, symbol: str) -> str:
        hub = self._hub
        return hub.renamed.get(symbol, symbol) if symbol in hub.delisted else symbol

    async def list_new(self, instruments: Sequence[Instrument]) -> None:
        """List symbols that no store has, in the state that the whole cluster has."""
        await self._directory.list_new([opening_snapshot(each) for each in instruments])

    def announce(self, notice: Notice) -> None:
        """Tell a symbol's subscribers that its market was halted or closed, or is open again."""
        self._hub.announce(notice.symbol, notice.status, notice.reason)

    async def published(self, symbols: Iterable[str]) -> None:
        """Wait until the topics of `symbols` have published all updates that they have now."""
        # A topic's task that slept gets its update in the next pass of the loop.
        await trio.lowlevel.checkpoint()
        topics = self._hub.topics
        waiting = [topic for symbol in symbols if (topic := topics.get(self._present(symbol)))]

        def published() -> bool:
            # It is enough to see each inbox empty once. All at one time may never be empty, if another
            # feed moves the symbols, too.
            waiting[:] = [each for each in waiting if each.inbox and each.inbox.waiting]
            return not waiting

        await wait_until(published)


def _takes_trades(settings: Settings) -> bool:
    feed = settings.feed
    return bool(feed.takes_prices or feed.venues or feed.stream)


def trades_memory(settings: Settings) -> int:
    """Return the bytes for the last trades of `GET /trades`. If FEED takes trades from outside, those
    that can be revised have as many.
    """
    return settings.trades_memory // 2 if _takes_trades(settings) else settings.trades_memory


def open_push(
    settings: Settings, hub: Hub, directory: Directory, member: Member | None
) -> Push | SharedPrices | None:
    """Return the desk and feed of prices from outside, None if FEED names none of their ways in."""
    feed = settings.feed
    if not _takes_trades(settings):
        return None
    rules = Rules(
        settings.price_band or None,
        settings.source_priority,
        settings.source_silent_after,
        trades_memory(settings),
        [*feed.venues, *([source_of(feed.stream)] if feed.stream else [])],
        settings.session,
    )
    exchange = HubExchange(hub, directory, member, lists_symbols=settings.push_lists_symbols)
    intake = Intake(exchange, rules)
    push: Push | SharedPrices
    if member:
        push = directory.rules = SharedPrices(intake, exchange, member, feed.stream)
    else:
        push, directory.rules = Push(intake, exchange), intake
    if feed.venues:
        # It imports a WebSocket client and the venues, a megabyte.
        from server.app.venues import open_venues

        open_venues(settings, hub, push)
    return push


def _was_opened(topic: Topic) -> bool:
    """Whether the price is a trade's of an earlier session."""
    return topic.instrument.opened_at > 0 and topic.quote.last_updated is not None
