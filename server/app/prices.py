"""The source of prices: this server's own feed or, in a cluster, the leader's."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from random import Random
from typing import TypeVar

import structlog
import trio

from server.cluster.interest import Interest
from server.cluster.member import Feed, Member
from server.cluster.shared_prices import SharedPrices
from server.config.settings import Settings
from server.fanout.bars import BarsUnavailable
from server.fanout.broadcaster import BROADCAST_TRADES, run_broadcaster
from server.fanout.hub import Hub
from server.fanout.openings import Openings
from server.fanout.topic import Topic
from server.feeds.push import Push
from server.feeds.replay import Played, Replay, ReplayError
from server.feeds.simulator import run_simulator
from server.gateway.directory import Directory
from server.history.bar import MinuteBar
from server.quotes.instrument import LARGEST_WHOLE, Instrument, first_seen
from server.quotes.quote import Quote
from server.quotes.update import NOWHERE, FeedPosition, Update
from server.sessions.calendar import Calendar
from server.store.catalogue import StoreUnavailable
from server.store.store import Store

SIMULATED_PRICE = 100.0
"""US dollars: the base price of a simulated symbol that no catalogue has."""

JOIN_TIMEOUT = 3.0
"""Seconds that a start waits for the cluster. Then the server starts without it, and goes on trying."""

FIRST_LOOK_TIMEOUT = 2.0
"""Seconds that the feed's first run waits for a look at the catalogue, which may be away."""

T = TypeVar("T")

log = structlog.get_logger()


class Prices:
    """The feed that the settings choose. Errors: ReplayError if a replay's file cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._replay = _open_replay(settings)
        self._push: Push | SharedPrices | None = None

    @property
    def lossless(self) -> bool:
        """Whether the feed waits for the clients. Replay and push do, the simulator does not."""
        feed = self._settings.feed
        return self._replay is not None or feed.takes_prices or bool(feed.stream)

    @property
    def feeds(self) -> list[str]:
        """The names of the feeds that the settings choose."""
        return list(self._settings.feed.feeds)

    @property
    def session(self) -> Calendar:
        """The market's hours."""
        return self._settings.session

    def bad_rows(self) -> int:
        """Return the number of a replay's rows that were skipped."""
        return self._replay.bad_rows if self._replay else 0

    async def start(
        self,
        tasks: trio.Nursery,
        hub: Hub,
        member: Member | None,
        directory: Directory,
        push: Push | SharedPrices | None,
        look: Callable[[], Awaitable[None]],
    ) -> None:
        """Start the feed in `tasks` or, in a cluster, the member that runs the feed while it leads.

        Arguments:
            look: looks for changed instruments once more, also among those that the member has joined
                with.
        """
        self._push = push
        hub.bars.replaying = self._replay is not None
        missing = {
            each: first_seen(each, SIMULATED_PRICE) for each in self._settings.feed.simulated
        }
        for venue in push.venues if push else ():
            missing |= {each: venue.venue.instrument(each) for each in venue.venue.symbols}
        await _list_missing(missing, hub, directory)
        if self._replay:
            # Otherwise the replay's symbols would count as new ones.
            await _list_catalogue(directory)
        feed = partial(self._run_beside_openings, hub, member.interest if member else hub)
        if member is None:
            tasks.start_soon(feed, NOWHERE)
            return
        tasks.start_soon(member.run, _after_first(look, feed), directory.list_symbols)
        with trio.move_on_after(JOIN_TIMEOUT):
            await member.settled.wait()

    async def _run_beside_openings(
        self, hub: Hub, watching: Hub | Interest, position: FeedPosition
    ) -> None:
        """Run the feed, and open sessions until cancelled.

        Arguments:
            watching: knows which symbols are watched, here or in the whole cluster.
            position: where a replay goes on. At a position in another file, it begins anew.
        """
        openings = Openings(hub, self._settings.session)
        async with trio.open_nursery() as tasks:
            tasks.start_soon(openings.run)
            await self._run(hub, watching, openings, position)

    async def _run(
        self, hub: Hub, watching: Hub | Interest, openings: Openings, position: FeedPosition
    ) -> None:
        """Run the feed. When it ends, tell every client."""
        reason = "feed_ended"
        if self._replay is None:
            await self._broadcast(hub, partial(self._run_live, hub, watching, openings))
        else:
            try:
                await self._run_replay(hub, self._replay, position)
            except ReplayError as error:
                reason = "feed_failed"
                log.error("feed failed", problem=str(error))
        hub.bars.ended = True
        hub.set_status("stale", reason)
        bad_rows = {"bad_rows": self._replay.bad_rows} if self._replay else {}
        log.warning("feed ended", reason=reason, trades=hub.stats.feed_updates, **bad_rows)

    async def _run_live(
        self,
        hub: Hub,
        watching: Hub | Interest,
        openings: Openings,
        send: trio.MemorySendChannel[Update],
    ) -> None:
        """Run the simulator, the push feed, or both, until cancelled."""
        only = self._settings.feed.simulated

        def watched() -> list[Quote]:
            quotes = watching.watched_quotes()
            return [quote for quote in quotes if quote.symbol in only] if only else quotes

        def may_move(symbol: str) -> bool:
            return watching.is_watched(symbol) and openings.has_begun(symbol)

        simulate = partial(
            run_simulator,
            send,
            watched=watched,
            may_move=may_move,
            price_decimals=lambda symbol: hub.instrument(symbol).price_decimals,
            interval=self._settings.price_update_interval,
            random=Random(self._settings.simulator_seed),
            present=hub.present_quote,
        )
        async with trio.open_nursery() as feeds:
            if "simulator" in self._settings.feed.feeds:
                feeds.start_soon(simulate)
            if self._push:
                feeds.start_soon(self._push.run, send)

    async def _run_replay(self, hub: Hub, replay: Replay, position: FeedPosition) -> None:
        """Play one lap, or lap after lap until cancelled. A lap begins when every topic has published
        its trades of the last one. So the next leader needs no row of an earlier lap.

        Errors: ReplayError.
        """
        # Only a foreign value can be above half of the largest number.
        rows = (topic.row for topic in hub.known_topics() if topic.row <= LARGEST_WHOLE // 2)
        reached = max(rows, default=0)
        first_row = 1
        if position.file != replay.file:
            position = FeedPosition(replay.file, first_row := reached + 1)
        hub.journal.begin_feed(position)
        hub.bars.ended, hub.bars.minutes.repeats_from = False, 0
        while True:
            hub.bars.on_lap(position.row, first_row)
            played = Played(position, hub.last_row, reached)
            run = partial(replay.run, listed=hub.instrument, played=played)
            next_row = await self._broadcast(hub, run)
            if not replay.loop:
                return
            position = FeedPosition(replay.file, next_row)
            hub.journal.reached = position

    async def _broadcast(
        self, hub: Hub, feed: Callable[[trio.MemorySendChannel[Update]], Awaitable[T]]
    ) -> T:
        """Run `feed` through the broadcaster, until every topic has published its last trade.

        Errors: ReplayError.
        """
        result: T | ReplayError
        send, receive = trio.open_memory_channel[Update](BROADCAST_TRADES)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=self.lossless))
            async with send:
                # A nursery would wrap the error.
                try:
                    result = await feed(send)
                except ReplayError as error:
                    result = error
        if isinstance(result, ReplayError):
            raise result
        return result


def kept_topics(hub: Hub, member: Member | None, *, shared: bool) -> Iterable[Topic]:
    """Return the topics whose prices this instance writes to its catalogue.

    These are all topics, or none if another instance writes.
    """
    return hub.known_topics() if may_write(member, shared=shared) else ()


def may_write(member: Member | None, *, shared: bool) -> bool:
    """Return whether this instance writes prices and bars to its catalogue.

    It does not if the catalogue is `shared` and another instance has newer ones.
    """
    return member is None or not shared or member.authoritative


async def stored_bar(
    store: Store, symbol: str, first: int, end: int, without: Sequence[int]
) -> MinuteBar | None:
    """Return the stored minutes of a symbol as one bar, for `Bars`. Errors: BarsUnavailable."""
    try:
        return await store.bars.stored(symbol, first, end, without)
    except StoreUnavailable as error:
        raise BarsUnavailable(str(error)) from None


def _open_replay(settings: Settings) -> Replay | None:
    path = settings.feed.replay_path
    if path is None:
        return None
    try:
        return Replay(
            path,
            settings.replay_speed,
            loop=settings.replay_loop,
            longest_gap=settings.replay_longest_gap,
        )
    except ReplayError as error:
        raise ReplayError(f"FEED: {error}") from None


def _after_first(look: Callable[[], Awaitable[None]], feed: Feed) -> Feed:
    """Return a feed that looks before it runs for the first time.

    Redis may have quotes of before a split or a rename that was made while no instance ran. Otherwise
    such a change would also divide the price of the feed's first trade.
    """
    looked = False

    async def run(position: FeedPosition) -> None:
        nonlocal looked
        if not looked:
            with trio.move_on_after(FIRST_LOOK_TIMEOUT):
                await look()
            looked = True
        await feed(position)

    return run


async def _list_missing(made: Mapping[str, Instrument], hub: Hub, directory: Directory) -> None:
    """List symbols. Those that no catalogue has get the `made` reference data."""
    missing = [symbol for symbol in made if symbol not in hub.topics]
    unavailable = await directory.list_symbols(missing)
    for symbol in missing:
        if symbol not in hub.topics and symbol not in unavailable:
            hub.list_instrument(made[symbol])


async def _list_catalogue(directory: Directory) -> None:
    try:
        await directory.list_everything()
    except StoreUnavailable as error:
        log.warning("replayed symbols go without names and base prices", problem=str(error))
