"""Takes trades off the one channel all feeds share and gives each to its symbol."""

from contextlib import suppress

import trio

from server.fanout.hub import Hub
from server.fanout.inbox import Inbox
from server.fanout.topic import Topic
from server.quotes.instrument import first_seen
from server.quotes.quote import Trade, Update

BROADCAST_TRADES = 1024
"""Trades between the feed and the broadcaster; small, so that waiting here stays under a round."""

BATCH_TRADES = 64
"""Trades routed without yielding, a tenth of a millisecond: what moves together reaches its topics
together, and so leaves in one write to each client.
"""


async def run_broadcaster(
    hub: Hub, trades: trio.MemoryReceiveChannel[Trade], *, lossless: bool
) -> None:
    """Route trades until the feed closes its end and every topic has published its last.

    Arguments:
        lossless: the feed can wait. A full inbox then holds it back; otherwise the inbox's
            newest price stands for those that found no room, and they are counted.
    """
    async for first in trades:
        await _route(hub, first, lossless=lossless)
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            for _ in range(BATCH_TRADES - 1):
                await _route(hub, trades.receive_nowait(), lossless=lossless)
    await hub.finish_topics()


async def _route(hub: Hub, trade: Trade, *, lossless: bool) -> None:
    """Waits only where a lossless feed meets a full inbox."""
    if trade.symbol in hub.delisted:
        return
    topic = hub.topics.get(trade.symbol) or hub.list_instrument(
        first_seen(trade.symbol, trade.price), trade
    )
    if full := give(hub, topic, trade):
        if lossless:
            hub.stats.feed_waits += 1
            with suppress(trio.ClosedResourceError):  # delisted in the meantime
                await full.put(trade)
        else:
            full.conflate(trade)


def give(hub: Hub, topic: Topic, update: Update) -> Inbox | None:
    """Count `update` as taken in and give it to its topic; the inbox if that has no room for it."""
    stats = hub.stats
    stats.feed_updates += 1
    stats.last_intake_us = update.ts
    inbox = topic.inbox or hub.open_inbox(topic)
    if inbox is None:
        topic.absorb(update)
        return None
    return None if inbox.offer(update) else inbox
