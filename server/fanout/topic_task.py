"""The task that an active topic has: it publishes what comes into the topic's inbox, round by round."""

from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import trio

from server.fanout.flusher import Flusher
from server.fanout.inbox import Inbox
from server.quotes.patch import Operation
from server.quotes.quote import Update

if TYPE_CHECKING:
    from server.fanout.topic import Topic

ROUND_TRADES = 16
"""Trades published before a round's flush: a fast client's socket takes that much at once."""


class Shift(NamedTuple):
    """One task's turn at a topic, from activation to deactivation: it publishes what comes into
    `inbox` once the turn `before` is over, and sets `finished` at its end.
    """

    inbox: Inbox
    before: trio.Event
    finished: trio.Event


async def run_shift(shift: Shift, topic: "Topic", flusher: Flusher) -> None:
    """Publish what comes in until the inbox is closed and empty."""
    inbox, before, finished = shift
    await before.wait()
    with suppress(trio.EndOfChannel):
        while True:
            update = await inbox.take()
            if flusher.conflation:
                publish_conflated(topic, update, inbox, flusher)
                await trio.sleep(flusher.conflation)
            else:
                _publish_round(topic, update, inbox, flusher)
            await flusher.wait_round()
    finished.set()


def _publish_round(topic: "Topic", update: Update | None, inbox: Inbox, flusher: Flusher) -> None:
    for _ in range(ROUND_TRADES - 1):
        if update is None:
            return
        topic.publish(update, flusher)
        update = inbox.take_nowait()
    if update is not None:
        topic.publish(update, flusher)


def publish_conflated(
    topic: "Topic", update: Update | None, inbox: Inbox, flusher: Flusher
) -> None:
    """In an overload: take all there is, count each as a version, publish what they amount to."""
    version, operations = topic.version, list[Operation]()
    while update is not None:
        operations = topic.absorb(update) or operations
        update = inbox.take_nowait()
    if topic.watched:
        topic.stats.conflated += max(0, topic.version - version - 1)
    topic.publish_since(version, operations, flusher)
