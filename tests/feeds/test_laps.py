"""A replay's laps through its file: their numbers, and a wrong number that another program wrote."""

from pathlib import Path

import pytest
import trio

from server.app.prices import Prices
from server.cluster.stats import ClusterStats
from server.cluster.wire import Batch, decode_batch, encode_batch
from server.config.settings import Settings
from server.config.values import FeedChoice
from server.fanout.hub import Hub
from server.fanout.openings import Openings
from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.update import NOWHERE, FeedPosition
from tests.fanout.peer import instruments
from tests.feeds.test_replay import write

ROWS = ["1000,AAPL,175.50,100", "bad", "1500,MSFT,60.10,200"]


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Return a running hub."""
    hub = Hub(instruments("AAPL", "MSFT"))
    await nursery.start(hub.run)
    return hub


async def play(hub: Hub, path: Path, position: FeedPosition) -> None:
    """Run a replay of `path` to its end."""
    prices = Prices(Settings(feed=FeedChoice.parse(f"replay:{path}"), replay_speed=0.0))
    await prices._run(hub, hub, Openings(hub, prices.session), position)


async def test_each_replay_counts_on(tmp_path, hub):
    """A new replay's rows have larger numbers than all before, so none is taken for an old one."""
    path = write(tmp_path / "day.csv", ROWS)
    await play(hub, path, NOWHERE)
    first, rows = hub.journal.position, {s: hub.last_row(s) for s in ("AAPL", "MSFT")}
    assert rows == {"AAPL": first.row + 2, "MSFT": first.row + 4}
    await play(hub, path, NOWHERE)
    assert hub.topics["AAPL"].quote.volume == 200
    assert hub.journal.position.row > max(rows.values())


async def test_replay_goes_on_at_its_position(tmp_path, hub):
    """At the last position nothing is left to play. A position in another file counts for nothing."""
    path = write(tmp_path / "day.csv", ROWS)
    await play(hub, path, NOWHERE)
    position = hub.journal.position
    await play(hub, path, position)
    assert hub.topics["AAPL"].quote.volume == 100
    await play(hub, path, position._replace(file=position.file + 1))
    assert hub.topics["AAPL"].quote.volume == 200


@pytest.mark.parametrize("row", [LARGEST_WHOLE, LARGEST_WHOLE - 1])
async def test_foreign_row_does_not_exhaust_the_numbers(tmp_path, hub, row):
    """Another program wrote the largest row there is. Other instances can still read all rows."""
    hub.topics["AAPL"].row = row
    hub.journal.open()
    await play(hub, write(tmp_path / "day.csv", ROWS), NOWHERE)
    moves = hub.journal.take(10)
    assert {(move.symbol, move.row) for move in moves} == {("AAPL", 3), ("MSFT", 5)}
    batch = Batch(1, 1, moves, [], position=hub.journal.position)
    assert decode_batch(encode_batch(batch), ClusterStats().invalid) == batch
