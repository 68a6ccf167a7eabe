"""The bars with which the lines of `quotestream watch` begin."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import trio

from server.client.backfill import fill_in
from server.client.document import Document
from server.client.history import HistoryRefused, Page
from server.client.panel import SPANS
from server.client.table import Screen
from server.pacing import wait_until

NOW = 1_800_000_000.0


class Answers:
    """A server's `GET /bars` that has one bar of each symbol, or refuses."""

    def __init__(self, *, refuses: bool = False) -> None:
        self.asked: list[Mapping[str, str]] = []
        self._refuses = refuses

    def pages(self, parameters: Mapping[str, str]) -> Iterator[Page]:
        self.asked.append(parameters)
        if self._refuses:
            raise HistoryRefused("401 bad token")
        bar = {"t": "2027-01-15T07:30:00Z", "c": "1.5"}
        yield Page({symbol: [bar] for symbol in parameters["symbols"].split(",")}, "")


def screen_of(*symbols: str) -> Screen:
    """Return a screen that has drawn a quote of each symbol."""
    document, screen = Document(), Screen(clock=lambda: NOW, has_keys=True)
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": f"/quotes/{symbol}", "value": {"current_price": 2.0}}
        for symbol in symbols
    ]
    versions = dict.fromkeys(symbols, 1)
    patch = {"type": "quotes_patch", "versions": versions, "operations": operations}
    document.apply(patch)
    screen.update(document, patch)
    screen.draw(80, 24)
    return screen


async def test_seen_symbols_get_their_last_hour(nursery):
    """Only those on the screen are asked for, once, in one request."""
    screen, client = screen_of(*(f"S{number:02}" for number in range(50))), Answers()
    nursery.start_soon(fill_in, screen, client)
    with trio.fail_after(10):
        await wait_until(lambda: len(screen.market.points("S19", NOW)) == 3)
        assert [price for _, price in screen.market.points("S19", NOW)] == [1.5, 2.0, 2.0]
        assert len(screen.market.points("S20", NOW)) == 2
        (asked,) = client.asked
        assert (asked["timeframe"], asked["start"]) == ("1m", "2027-01-15T07:00:00Z")
        assert asked["symbols"].split(",") == screen.visible


async def test_chosen_span_is_fetched(nursery):
    """A longer span has bars of its own, for the chosen symbol only."""
    screen, client = screen_of("A", "B"), Answers()
    nursery.start_soon(fill_in, screen, client)
    with trio.fail_after(10):
        await wait_until(lambda: len(client.asked) == 1)
        screen.span = SPANS[3]
        await wait_until(lambda: ("A", SPANS[3]) in screen.bars)
    assert (client.asked[1]["symbols"], client.asked[1]["timeframe"]) == ("A", "1d")
    assert screen.bars["A", SPANS[3]][0][1] == pytest.approx(1.5)


async def test_table_lives_without_history(nursery):
    """A server that refuses is left alone, and the live prices go on."""
    screen, client = screen_of("A"), Answers(refuses=True)
    nursery.start_soon(fill_in, screen, client)
    with trio.fail_after(10):
        await wait_until(lambda: len(client.asked) == 1)
    assert len(screen.market.points("A", NOW)) == 2
