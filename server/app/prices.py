"""The source of prices: this server's own feed or, in a cluster, the leader's."""

from collections.abc import Iterable
from functools import partial
from random import Random

import structlog
import trio

from server.cluster.interest import Interest
from server.cluster.member import Member
from server.config.settings import Settings
from server.fanout.broadcaster import BROADCAST_TRADES, run_broadcaster
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.feeds.push import Push
from server.feeds.replay import Replay, ReplayError
from server.feeds.simulator import run_simulator
from server.gateway.directory import Directory
from server.quotes.instrument import first_seen
from server.quotes.quote import Quote
from server.quotes.update import Update
from server.store.catalogue import StoreUnavailable

SIMULATED_PRICE = 100.0
"""US dollars: the base price of a simulated symbol that no catalogue has."""

JOIN_TIMEOUT = 3.0
"""Seconds that a start waits for the cluster. Then the server starts without it, and goes on trying."""

log = structlog.get_logger()


class Prices:
    """The feed that the settings choose. Errors: ReplayError if a replay's file cannot be read."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._replay = _open_replay(settings)
        self._push: Push | None = None

    @property
    def lossless(self) -> bool:
        """Whether the feed waits for the clients. Replays and publishers do, the simulator does not."""
        return self._replay is not None or "push" in self._settings.feed.feeds

    def bad_rows(self) -> int:
        """Return the number of a replay's rows that were skipped."""
        return self._replay.bad_rows if self._replay else 0

    async def start(
        self,
        tasks: trio.Nursery,
        hub: Hub,
        member: Member | None,
        directory: Directory,
        push: Push | None,
    ) -> None:
        """Start the feed in `tasks` or, in a cluster, the member that runs the feed while it leads."""
        self._push = push
        if simulated := self._settings.feed.simulated:
            await _list_simulated(simulated, hub, directory)
        if self._replay:
            # Otherwise the replay's symbols would count as new ones.
            await _list_catalogue(directory)
        feed = partial(self._run, hub, member.interest if member else hub)
        if member is None:
            tasks.start_soon(feed, 0)
            return
        tasks.start_soon(member.run, feed, directory.list_symbols)
        with trio.move_on_after(JOIN_TIMEOUT):
            await member.settled.wait()

    async def _run(self, hub: Hub, watching: Hub | Interest, position: int) -> None:
        """Run the feed through the broadcaster. When it ends, tell every client.

        Arguments:
            watching: knows which symbols are watched, here or in the whole cluster.
            position: where a replay goes on, as in `Replay.run`.
        """
        send, receive = trio.open_memory_channel[Update](BROADCAST_TRADES)
        reason = "feed_ended"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=self.lossless))
            async with send:
                if self._replay is None:
                    await self._run_live(hub, watching, send)
                else:
                    try:
                        await self._replay.run(send, hub.price_decimals, position)
                    except ReplayError as error:
                        reason = "feed_failed"
                        log.error("feed failed", problem=str(error))
        hub.set_status("stale", reason)
        bad_rows = {"bad_rows": self._replay.bad_rows} if self._replay else {}
        log.warning("feed ended", reason=reason, trades=hub.stats.feed_updates, **bad_rows)

    async def _run_live(
        self, hub: Hub, watching: Hub | Interest, send: trio.MemorySendChannel[Update]
    ) -> None:
        """Run the simulator, the push feed, or both, until cancelled."""
        only = self._settings.feed.simulated

        def watched() -> list[Quote]:
            quotes = watching.watched_quotes()
            return [quote for quote in quotes if quote.symbol in only] if only else quotes

        simulate = partial(
            run_simulator,
            send,
            watched,
            watching.is_watched,
            hub.price_decimals,
            self._settings.price_update_interval,
            Random(self._settings.simulator_seed),
        )
        async with trio.open_nursery() as feeds:
            if "simulator" in self._settings.feed.feeds:
                feeds.start_soon(simulate)
            if self._push:
                feeds.start_soon(self._push.run, send)


def kept_topics(hub: Hub, member: Member | None, *, shared: bool) -> Iterable[Topic]:
    """Return the topics whose prices this instance writes to its catalogue.

    These are all topics, or none if the catalogue is `shared` and another instance has newer prices.
    """
    writes = member is None or not shared or member.authoritative
    return hub.known_topics() if writes else ()


def _open_replay(settings: Settings) -> Replay | None:
    path = settings.feed.replay_path
    try:
        return Replay(path, settings.replay_speed, loop=settings.replay_loop) if path else None
    except ReplayError as error:
        raise ReplayError(f"FEED: {error}") from None


async def _list_simulated(symbols: Iterable[str], hub: Hub, directory: Directory) -> None:
    """List the symbols that the simulator moves. One that no catalogue has gets an invented price."""
    missing = [symbol for symbol in symbols if symbol not in hub.topics]
    unavailable = await directory.list_symbols(missing)
    for symbol in missing:
        if symbol not in hub.topics and symbol not in unavailable:
            hub.list_instrument(first_seen(symbol, SIMULATED_PRICE))


async def _list_catalogue(directory: Directory) -> None:
    try:
        await directory.list_everything()
    except StoreUnavailable as error:
        log.warning("replayed symbols go without names and base prices", problem=str(error))
