"""An inbox that its topic does not empty in time."""

from server.fanout.inbox import INBOX_TRADES, Inbox
from server.fanout.stats import FanoutStats
from server.quotes.update import Change, DayRange
from tests.fanout.peer import trade


def test_trades_beyond_its_room_are_merged_into_one():
    """No shares are lost, the newest price counts, and the trades that are not seen are counted."""
    stats = FanoutStats()
    inbox = Inbox(stats)
    assert not inbox.waiting
    for number in range(INBOX_TRADES):
        assert inbox.offer(trade("A", 100 + number, size=1))
    for number in range(4):
        update = trade("A", 10 + number, size=1 + number)
        assert not inbox.offer(update)
        inbox.conflate(update)
        assert stats.conflated == number
    assert inbox.waiting
    *first, last = inbox.drain()
    assert first == [trade("A", 100 + number, size=1) for number in range(INBOX_TRADES)]
    assert isinstance(last, Change)
    assert (last.price, last.volume) == (13, 1 + 2 + 3 + 4)
    assert last.day == DayRange(10, 13, 10)
    assert not inbox.waiting


def test_no_trade_overtakes_a_merged_one():
    """While it waits, later trades are merged into it, though the channel has room again."""
    inbox = Inbox(FanoutStats())
    for number in range(INBOX_TRADES):
        inbox.offer(trade("A", 100 + number))
    inbox.conflate(trade("A", 1.0))
    for _ in range(INBOX_TRADES):
        assert inbox.take_nowait() is not None
    assert not inbox.offer(trade("A", 2.0))
    assert inbox.take_nowait() == trade("A", 1.0)
    assert inbox.offer(trade("A", 2.0))
    assert inbox.waiting
    inbox.discard()
    assert not inbox.waiting
    assert inbox.take_nowait() is None
