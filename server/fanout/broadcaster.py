"""Takes trades off the one channel all feeds share and gives each to its symbol."""

import trio

from server.fanout.hub import Hub
from server.quotes.instrument import first_seen
from server.quotes.quote import Trade

BROADCAST_TRADES = 1024
"""Trades between the feed and the broadcaster; small, so that waiting here stays under a round."""


async def run_broadcaster(
    hub: Hub, trades: trio.MemoryReceiveChannel[Trade], *, lossless: bool
) -> None:
    """Route trades until the feed closes its end and every topic has published its last.

    Arguments:
        lossless: the feed can wait. A full inbox then holds it back; otherwise the inbox's
            newest price stands for those that found no room, and they are counted.
    """
    stats = hub.stats
    async for trade in trades:
        stats.feed_updates += 1
        stats.last_intake_us = trade.ts
        topic = hub.topics.get(trade.symbol) or hub.list_instrument(
            first_seen(trade.symbol, trade.price)
        )
        if topic.inbox is None:
            topic.absorb(trade)
        elif topic.offer(trade):
            pass
        elif lossless:
            stats.feed_waits += 1
            await topic.inbox.send(trade)
        else:
            topic.conflate(trade)
    await hub.finish_topics()
