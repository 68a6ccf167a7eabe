"""The moves that a leader records for other instances, and how many."""

import trio

from server.fanout.journal import JOURNAL_MOVES, Journal
from server.quotes.update import FeedPosition, Move
from tests.fanout.peer import START_US, publish


def move(symbol: str, version: int) -> Move:
    return Move(symbol, version, 100.0, 0, START_US, START_US)


async def test_every_version_is_recorded(hub):
    """Each version has its running total, watched or not; without a cluster none is recorded."""
    publish(hub, "AAPL", 100.5)
    assert hub.journal.take(10) == []
    hub.journal.open()
    publish(hub, "AAPL", 101.0, size=200)
    # This one changes nothing.
    publish(hub, "AAPL", 101.0, size=0)
    publish(hub, "MSFT", 99.0)
    assert hub.journal.take(1) == [Move("AAPL", 3, 101.0, 300, START_US, START_US, size=200)]
    assert hub.journal.waiting == 1
    assert hub.journal.take(10) == [Move("MSFT", 2, 99.0, 100, START_US, START_US, size=100)]
    hub.journal.close()
    publish(hub, "AAPL", 102.0)
    assert hub.journal.waiting == 0


async def test_full_journal_remembers_which_symbols_moved():
    """A full journal gives up its moves and keeps their symbols; later moves are recorded again."""
    journal = Journal()
    journal.open()
    for version in range(JOURNAL_MOVES):
        journal.record(move(f"S{version % 7}", version))
    assert not journal.lost
    journal.record(move("LATE", 1))
    assert len(journal.lost) == 7
    assert journal.take(10) == [move("LATE", 1)]


async def test_wait_ends_when_there_is_something_to_tell(autojump_clock):
    """A move, a loss or `wake` ends a wait, also one that came before it; nothing else does."""
    journal = Journal()
    for wake in (lambda: journal.record(move("A", 1)), lambda: journal.lose(["A"]), journal.wake):
        journal.open()
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(journal.wait)
                await trio.testing.wait_all_tasks_blocked()
                wake()
    journal.wake()
    with trio.fail_after(1):
        await journal.wait()
    with trio.move_on_after(5) as waiting:
        await journal.wait()
    assert waiting.cancelled_caught


def test_position_follows_the_moves():
    """The next leader's feed goes on from `position`: not in a new lap while older moves wait."""
    journal = Journal()
    first, second = FeedPosition(7, 1), FeedPosition(7, 100)
    journal.open(first)
    journal.record(move("A", 1))
    journal.record(move("A", 2))
    journal.reached = second
    journal.take(1)
    assert journal.position == first
    journal.take(1)
    assert journal.position == second
    journal.record(move("A", 3))
    journal.begin_feed(first)
    assert journal.position == first
