"""Bars of published trades, against plain Python: in any order, late, cancelled and corrected."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st

from server.fanout.hub import Hub
from server.history.bar import MinuteBar
from server.intake.intake import Intake
from server.intake.kept import Values
from server.intake.market import Notice, Rules
from server.intake.trades import SYMBOL_BYTES
from server.quotes.quote import from_microseconds
from server.quotes.traded import MINUTE_US
from tests.intake.harness import NOW, Desk

START = NOW // MINUTE_US - 5
"""Some minute before now."""

Trades = dict[int, tuple[float, int, int]]
"""Price, size and time in microseconds, by id, in the order in which they came."""


class BarDesk(Desk):
    """A desk whose effects also go to the topics of a hub."""

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.hub = Hub(self.instruments.values())

    def apply(self, effects: Any) -> None:
        """Move the quotes, and the topics."""
        effects = [*effects]
        super().apply(effects)
        for effect in effects:
            assert not isinstance(effect, Notice)
            self.hub.topics[effect.symbol].absorb(effect)

    def values(self, symbol: str) -> Values:
        """Return a symbol's present values, with its minutes."""
        minutes = self.hub.bars.minutes.trades_of(symbol)
        return super().values(symbol)._replace(minutes=minutes)

    def take_over(self) -> None:
        """Forget the kept trades, as an instance that begins to lead has none."""
        self.intake = Intake(self, Rules())

    def bars(self) -> list[MinuteBar]:
        """Return the bars of AAPL that have trades."""
        recent = self.hub.bars.minutes.recent(["AAPL"], 0, 2**40)
        return [bar for bar in recent if bar.count]


def oracle(trades: Trades) -> list[tuple[Any, ...]]:
    """Return the bars of some trades."""
    bars = []
    ordered = sorted(trades.values(), key=lambda trade: trade[2])
    for minute, some in groupby(ordered, key=lambda trade: trade[2] // MINUTE_US):
        prices, sizes, _ = zip(*(group := [*some]), strict=True)
        turnover = round(sum(price * size for price, size, _ in group), 6)
        ends = prices[0], max(prices), min(prices), prices[-1]
        bars.append((minute, *ends, sum(sizes), len(group), turnover))
    return bars


def values(bars: Iterable[MinuteBar]) -> list[tuple[Any, ...]]:
    """Return the same of bars."""
    return [
        (
            *(bar.minute, bar.open, bar.high, bar.low, bar.close),
            *(bar.volume, bar.count, round(bar.turnover, 6)),
        )
        for bar in bars
    ]


KINDS = ["trade"] * 10 + ["cancel"] * 3 + ["correct"] * 3 + ["takeover"]

operation = st.tuples(st.sampled_from(KINDS), st.integers(0, 20), st.integers(0, 60))
"""A kind; cents of the price, or how many operations ago the trade came; a size."""


@settings(max_examples=300)
@given(
    st.lists(operation, min_size=10, max_size=40),
    st.permutations(range(40)),
    st.sampled_from([3, 1000]),
)
def test_any_order_cancels_and_corrections(operations, order, most):
    """However they come, the bars are those of the trades that are left."""
    trio.run(check, operations, order, most)


async def check(operations: Any, order: Any, most: int) -> None:
    """Carry out operations, and compare the bars after each."""
    desk = BarDesk(Rules(trades_memory=SYMBOL_BYTES + most * 42))
    known, revisable = Trades(), set[int]()
    for number, (kind, first, size) in enumerate(operations):
        if kind == "trade":
            # Each has a time of its own: the source's numbers would decide between equal ones.
            time_us, price = START * MINUTE_US + order[number] * 7_000_000, (9990 + first) / 100
            known[number] = price, size, time_us
            ts = from_microseconds(time_us).isoformat()
            each = {"kind": "trade", "price": price, "size": size, "ts": ts, "id": number}
            desk.publish(each)
            revisable.add(number)
        elif kind == "takeover":
            desk.take_over()
            revisable.clear()
        elif (first := number - first) in revisable:
            price = known[first][0] + 1
            more = {"price": price, "size": size} if kind == "correct" else {}
            if desk.publish({"kind": kind, "id": first, **more}).accepted:
                if kind == "correct":
                    known[first] = price, size, known[first][2]
                else:
                    del known[first]
                    revisable.discard(first)
        assert values(desk.bars()) == oracle(known)


@pytest.mark.parametrize("kind", ["cancel", "correct"])
async def test_minute_of_which_only_the_store_has_the_other_trades(kind):
    """A server starts, and gets one more trade of a minute that ended long ago. A revision of it must
    not take the other trades out of the bar. It counts for the quote.
    """
    desk = BarDesk(Rules())

    def publish(number: int, minute: int, **more: Any) -> None:
        ts = from_microseconds(minute * MINUTE_US + number).isoformat()
        fields = {"kind": "trade", "price": 100.0 + number, "size": 10, "ts": ts, "id": number}
        assert desk.publish(fields | more).accepted

    for number in range(5):
        publish(number, START)
    minutes = desk.hub.bars.minutes
    minutes.close(START + 1)
    stored = minutes.unwritten(10)
    minutes.written(stored)
    minutes.close(START + 5)
    minutes.release()
    desk.take_over()
    publish(5, START)
    minutes.restore(stored, minutes.missing)
    assert [bar.count for bar in desk.bars()] == [6]
    version = desk.hub.topics["AAPL"].version
    assert desk.publish(
        {"kind": kind, "id": 5, **({"size": 1} if kind == "correct" else {})}
    ).accepted
    assert desk.hub.topics["AAPL"].version == version + 1
    assert desk.hub.topics["AAPL"].quote.volume == (51 if kind == "correct" else 50)
    assert [bar.count for bar in desk.bars()] == [6]
    # All trades of the next minute are known.
    publish(6, START + 5)
    assert desk.publish({"kind": "cancel", "id": 6}).accepted
    assert [bar.count for bar in desk.bars()] == [6]


@pytest.mark.parametrize("kind", ["cancel", "correct"])
async def test_revision_that_the_quote_does_not_show(kind):
    """A trade in the middle of the day counts for its bar alone. It makes a version all the same."""
    desk = BarDesk(Rules())
    for number, price in enumerate((100.0, 120.0, 90.0, 100.0)):
        ts = from_microseconds((START + number // 2) * MINUTE_US + number).isoformat()
        desk.publish({"kind": "trade", "price": price, "size": 0, "ts": ts, "id": number})
    version = desk.hub.topics["AAPL"].version
    more = {"price": 105.0} if kind == "correct" else {}
    desk.publish({"kind": kind, "id": 0, **more})
    assert desk.hub.topics["AAPL"].version == version + 1
    assert desk.bars()[0].count == (2 if kind == "correct" else 1)
    assert desk.bars()[0].open == (105.0 if kind == "correct" else 120.0)
