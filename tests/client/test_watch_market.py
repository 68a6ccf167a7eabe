"""The prices that `watch` has seen, its counts of updates, and its pause."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import trio
import trio.testing

from server.client.activity import Activity
from server.client.document import Document
from server.client.seen import KEPT, SPAN, PricesSeen
from server.client.stream import Listener
from server.client.subscription import Subscription
from server.client.table import Screen
from server.pacing import wait_until
from tests.client.patches import NOW, Followed, message


def test_sparkline_is_true_to_time():
    """Each part of the time has its last price; the hour is the most that it reaches back."""
    seen = PricesSeen()
    for moment, price in ((0, 1.0), (10, 2.0), (90, 3.0)):
        seen.note(NOW + moment, price)
    assert seen.sampled(10, NOW + 100) == [2.0] * 8 + [3.0, 3.0]
    assert seen.sampled(4, NOW + SPAN + 1000) == [3.0] * 4


def test_prices_seen_are_bounded():
    """They thin out evenly, so that a chart is as true on its left as on its right."""
    seen, end = PricesSeen(), 10 * KEPT
    for number in range(end):
        seen.note(NOW + number, float(number % 7))
    assert KEPT // 4 < len(seen) <= KEPT
    points = seen.points(NOW + end)
    assert max(0, end - SPAN) <= points[0][0] - NOW <= max(0, end - SPAN) + 4 * SPAN / KEPT
    assert max(after - before for (before, _), (after, _) in pairwise(points)) <= 5 * SPAN / KEPT
    assert points[-1] == (NOW + end, float((end - 1) % 7))
    assert all(price == (moment - NOW) % 7 for moment, price in points[1:-1])


def test_bars_come_before_what_was_seen():
    """Bars of the time in which live prices came are left out. They are not moves."""
    seen = PricesSeen()
    seen.note(NOW, 5.0)
    seen.put_before([(NOW - 120, 3.0), (NOW - 60, 4.0), (NOW + 60, 9.0)])
    assert [price for _, price in seen.points(NOW + 1)] == [3.0, 4.0, 5.0, 5.0]
    assert seen.direction == 0
    assert seen.rise == pytest.approx(2 / 3)


def test_clock_that_jumps_back_keeps_the_order():
    """A time before the newest one counts as that one."""
    seen = PricesSeen()
    for moment, price in ((0, 1.0), (-50, 2.0)):
        seen.note(NOW + moment, price)
    assert [moment for moment, _ in seen.points(NOW)] == [NOW, NOW, NOW]


def test_activity_counts_a_minute():
    """Older updates are forgotten, also those of symbols that became silent."""
    activity = Activity()
    for second in range(120):
        activity.note("A", NOW + second)
        if second < 30:
            activity.note("B", NOW + second)
        if second % 2:
            activity.note("C", NOW + second)
    assert activity.busiest(5, NOW + 119) == ["A", "C"]
    assert (activity.count("A"), activity.count("C"), activity.count("B")) == (60, 30, 0)


def test_top_shows_the_busiest():
    """A full quote that we had is not an update. Ranks change once a second."""
    followed = Followed(top=1)
    followed.take({"A": 1, "B": 1}, {"A": 1.0, "B": 1.0})
    followed.take({"A": 1, "B": 1}, {"A": 1.0, "B": 1.0})
    assert followed.market.symbols(NOW) == []
    followed.take({"B": 2}, {"B": 2.0})
    assert followed.market.symbols(NOW) == ["B"]
    for version in (2, 3):
        followed.take({"A": version}, {"A": 2.0 + version})
    assert followed.market.symbols(NOW + 0.5) == ["B"]
    assert followed.market.symbols(NOW + 1.5) == ["A"]
    assert followed.market.row("A", NOW).updates == 2


def test_pause_holds_quotes_prices_and_arrows():
    """Later updates are not lost."""
    followed = Followed()
    followed.take({"A": 1}, {"A": 1.0})
    followed.take({"A": 2}, {"A": 2.0}, NOW + 1)
    followed.market.pause(NOW + 2)
    followed.take({"A": 3}, {"A": 1.5}, NOW + 3)
    row = followed.market.row("A", NOW + 9)
    assert (row.quote["current_price"], row.version, row.now) == (2.0, 2, NOW + 2)
    assert row.seen.direction == 1
    assert followed.market.points("A", NOW + 9)[-1] == (NOW + 2, 2.0)
    followed.market.go_on()
    row = followed.market.row("A", NOW + 9)
    assert (row.quote["current_price"], row.version, row.seen.direction) == (1.5, 3, -1)


async def test_quiet_symbol_that_is_added_again_is_not_quiet(autojump_clock):
    """Each connection names the quiet symbols anew, so what an earlier one said does not count."""
    screen = Screen()
    connections: list[list[str]] = []

    async def follow(symbols: Sequence[str], listen: Listener) -> None:
        document = Document()
        connections.append([*symbols])
        document.apply(patch := message({"A": 1}, {"A": 1.0}))
        listen(document, patch)
        if len(connections) == 1:
            status = {"type": "status", "status": "stale", "reason": "quiet", "symbols": ["A"]}
            listen(document, status)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        subscription = Subscription(["A"], follow, screen)
        nursery.start_soon(subscription.run)
        await trio.testing.wait_all_tasks_blocked()
        assert screen.market.is_quiet("A")
        subscription.remove("A")
        await wait_until(lambda: not screen.connection.is_live)
        subscription.add("A")
        await wait_until(lambda: len(connections) == 2 and screen.connection.is_live)
        assert not screen.market.is_quiet("A")
        nursery.cancel_scope.cancel()
