"""Takes updates from the channel that all feeds share, and gives each to its symbol's topic."""

from contextlib import suppress

import msgspec
import trio

from server.fanout.hub import Hub
from server.fanout.inbox import Inbox
from server.fanout.topic import Topic
from server.quotes.instrument import first_seen
from server.quotes.update import Change, Trade, Update

BROADCAST_TRADES = 1024
"""Trades between the feed and the broadcaster: few, so that a trade waits here less than a round."""

BATCH_TRADES = 64
"""Trades routed without yielding, a tenth of a millisecond. Symbols that move together reach their
topics together, and so leave in one write to each client.
"""


async def run_broadcaster(
    hub: Hub, updates: trio.MemoryReceiveChannel[Update], *, lossless: bool
) -> None:
    """Route updates until the feed closes its end and every topic has published its last.

    Arguments:
        lossless: the feed can wait, so a full inbox holds it back. Otherwise the updates that find
            no room are merged into one, and counted.
    """
    async for first in updates:
        await _route(hub, first, lossless=lossless)
        with suppress(trio.WouldBlock, trio.EndOfChannel):
            for _ in range(BATCH_TRADES - 1):
                await _route(hub, updates.receive_nowait(), lossless=lossless)
    await hub.topic_tasks.finish()


async def _route(hub: Hub, update: Update, *, lossless: bool) -> None:
    """Give `update` to its topic. Wait only if a lossless feed meets a full inbox.

    A symbol that is not listed begins with a price.
    """
    if update.symbol in hub.delisted:
        present = hub.present_symbol(update.symbol)
        if present in hub.delisted:
            return
        # The feed still has the old name.
        update = msgspec.structs.replace(update, symbol=present)
    topic = hub.topics.get(update.symbol)
    if topic is None:
        first = update.change if isinstance(update, Trade | Change) else None
        if first is None or first.price is None:
            return
        topic = hub.list_instrument(first_seen(update.symbol, first.price), first)
    if full := give(hub, topic, update):
        if lossless:
            hub.stats.feed_waits += 1
            await _wait_for_room(topic, full, update)
        else:
            full.conflate(update)


async def _wait_for_room(topic: Topic, full: Inbox | None, update: Update) -> None:
    """Put `update` into the inbox `full`, or into the topic's next one if it is closed meanwhile. A
    topic that is delisted has no inbox, and drops the update. A renamed one's goes to the new topic.
    """
    while full is not None:
        try:
            await full.put(update)
        except trio.ClosedResourceError:
            full = topic.present.inbox
        else:
            return


def give(hub: Hub, topic: Topic, update: Update) -> Inbox | None:
    """Count `update` as received and give it to its topic. Return the inbox if it has no room."""
    stats = hub.stats
    stats.feed_updates += 1
    stats.last_intake_us = update.ts
    inbox = topic.inbox or hub.topic_tasks.open_inbox(topic)
    if inbox is None:
        topic.absorb(update)
        return None
    return None if inbox.offer(update) else inbox
