"""The first replies to a client, and what its subscriptions say about the next ones."""

import time
from typing import Any

import pytest

from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.gateway.auth import Identity
from server.gateway.handshake import Admission
from server.gateway.opening import welcome
from server.gateway.selection import EVERYTHING, Selection
from server.gateway.subscriptions import (
    SendRecovery,
    SetInterval,
    StartAllUpdates,
    StartUpdates,
    Subscriptions,
)
from server.quotes.messages import Ack, Error, Recovered
from server.quotes.position import Position
from tests.fanout.peer import instruments
from tests.gateway.harness import SessionHarness
from tests.gateway.test_admission import Door, door

ANN = Identity("ann", None, time.time() + 600)


def first_replies(entry: Door, selection: Selection, **wishes: Any) -> list[Any]:
    admission = Admission(ANN, selection, **wishes)
    return list(welcome(admission, Subscriptions(), entry.policy.context))


def topics_of(entry: Door) -> list[Topic]:
    return list(entry.policy.context.selector.topics.values())


async def test_quotes_come_after_the_subscription():
    """So that no update between them is lost. Symbols that do not exist are refused by name."""
    entry = door("A", "B")
    a, _ = topics_of(entry)
    start, quotes, error = first_replies(entry, Selection([a], ["NOPE"]))
    assert start == StartUpdates([a])
    assert isinstance(quotes, SendRecovery)
    assert (quotes.recovery.quotes, quotes.recovery.recovered) == ([a], {})
    assert isinstance(error, Error)
    assert (error.code, error.symbols) == ("unknown_symbol", ["NOPE"])
    assert entry.pool.commands == {("connect", "unknown_symbol"): 1}


@pytest.mark.parametrize("everything", [False, True])
async def test_client_that_resumes_learns_how(everything):
    """By symbol, before anything is sent; for `*`, of all symbols."""
    entry = door("A", "B")
    a, b = topics_of(entry)
    chosen = Selection([], [], everything=True) if everything else Selection([a, b], [])
    start, ack, recovery = first_replies(entry, chosen, position=Position(a.epoch, {"A": 1}))
    assert start == (StartAllUpdates([]) if everything else StartUpdates([a, b]))
    recovered: dict[str, Recovered] = {"A": "current", "B": "quote"}
    names = [EVERYTHING] if everything else ["A", "B"]
    assert ack == Ack("resume", names, recovered=recovered)
    assert (recovery.recovery.quotes, recovery.recovery.held) == ([b], [a])


async def test_throttled_client_learns_its_interval():
    """The next longer one that there is."""
    _, interval, ack, _ = first_replies(door("A"), Selection([], []), interval=0.3)
    assert (interval, ack) == (SetInterval(0.5), Ack("throttle", [], interval=0.5))


def test_subscriber_to_everything_needs_no_single_symbol():
    """Until all subscriptions end."""
    topics = topics_of(door("A", "B"))
    mine = Subscriptions()
    assert mine.new_among(topics) == topics
    mine.start(topics[:1])
    assert mine.new_among(topics) == topics[1:]
    mine.start_everything()
    assert mine.new_among(topics) == []
    mine.clear()
    assert mine.new_among(topics) == topics


async def test_ways_of_coming_back_are_counted(nursery):
    """Of each symbol."""
    hub = Hub(instruments("A", "B", "C"))
    await nursery.start(hub.run)
    harness = SessionHarness(hub)
    position = Position(hub.epoch, {"A": 1, "B": 1})
    selection = Selection(list(hub.topics.values()), [])
    harness.session.begin(Admission(ANN, selection, position=position))
    assert hub.stats.recovered == {"current": 2, "quote": 1}
    harness.end()
