"""A follower that misses batches of the leader: its clients end with the bars of `GET /bars`."""

from random import Random

import pytest
import trio

from server.fanout import bar_topic
from server.fanout.bars import TICK
from server.fanout.hub import Hub
from server.history.minutes import Minutes
from server.quotes.snapshot import LiveSnapshot
from server.quotes.traded import Closing
from server.store.bar_reader import BarReader
from server.store.component import Component
from tests.fanout.peer import Peer, instruments
from tests.fanout.test_bar_sequences import (
    LENGTHS,
    OWED,
    STEPS,
    Client,
    Market,
    World,
    traded,
)
from tests.fanout.test_bars import MONDAY, Clock

MISSED = 0.3
"""The part of the batches that a follower misses."""


async def nothing() -> None:
    """Settle nothing: only the leader asks for the bars of late trades."""


class Follower(Market):
    """The market as a follower has it. The leader's publisher and this one's follower are in `beat`."""

    def __init__(self, leader: Market, hub: Hub, random: Random) -> None:
        super().__init__(hub, leader.clock)
        self._leader, self._random = leader, random
        self._hash: dict[str, LiveSnapshot] = {}
        self._closing = Closing()
        self._in_sync = False
        self.tables = leader.tables
        self.reader = BarReader(
            self.tables, Component("catalogue", "the tables"), hub.bars.minutes, nothing
        )
        leader.hub.bars.own_clock = False
        leader.hub.journal.open()

    async def run(self) -> None:
        """Publish and follow, until cancelled."""
        while True:
            await trio.sleep(TICK * 0.9)
            self.beat()

    def beat(self) -> None:
        """Publish a batch. The follower gets it, or misses it and reads the hash with the next one."""
        bars, journal = self._leader.hub.bars, self._leader.hub.journal
        closing = bars.due
        journal.lose(bars.minutes.restored)
        moves = journal.take(journal.waiting)
        lost = [*journal.lost]
        journal.lost.clear()
        if closing:
            bars.close(closing)
        bars.minutes.take_restored()
        topics = self._leader.hub.topics
        changed = {*lost, *(each.symbol for each in moves)}
        self._hash |= {symbol: topics[symbol].live_snapshot() for symbol in changed}
        self._closing = bars.minutes.closing
        if self._random.random() < MISSED:
            self._in_sync = False
        elif lost or not self._in_sync:
            self._synchronise()
        else:
            for move in moves:
                self.hub.topics[move.symbol].publish(move)
            self._close(self._closing)

    def _synchronise(self) -> None:
        self.hub.bars.follow(self._closing, exactly=False)
        self.hub.adopt(self._hash.values())
        self.hub.bars.close(self.hub.bars.minutes.closed_to)
        self._in_sync = True

    def _close(self, closing: Closing) -> None:
        minutes: Minutes = self.hub.bars.minutes
        if closing.to > minutes.closed_to:
            self.hub.bars.close(closing.to)
            minutes.forget(closing.whole_from)


@pytest.mark.parametrize("seed", range(6))
async def test_clients_of_a_follower(autojump_clock, hub, nursery, monkeypatch, seed):
    """The leader may have written and forgotten what the follower missed, or has not told yet."""
    monkeypatch.setattr(bar_topic, "OWED_BARS", OWED)
    random, clock = Random(seed), Clock(hub, MONDAY + 30)
    hub.bars.minutes.whole_from = MONDAY + random.choice((0, 30, 31))
    other = Hub(instruments("AAPL"))
    other.bars.own_clock = False
    await nursery.start(other.run)
    await clock.reach(30, 1)
    world = World(Market(hub, clock), random)
    follower = Follower(world.market, other, random)
    nursery.start_soon(follower.run)
    for number in range(STEPS):
        await world.step()
        if number % 40 == 10:
            world.clients.append(Client(follower, Peer(other)))
        for client in world.clients:
            await client.take()
            await client.ask()
    await world.settle()
    for timeframe, minutes in LENGTHS.items():
        bars = await world.market.bars(timeframe)
        assert {t: traded(bar) for t, bar in bars.items()} == world.market.oracle(minutes)
        assert await follower.bars(timeframe) == bars
        for client in world.clients:
            client.check(timeframe, bars)
    for client in world.clients:
        client.peer.close()
