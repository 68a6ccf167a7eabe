"""Names become topics: in memory at once, else from the store, in one place for both ways to ask."""

from collections.abc import Sequence
from typing import Any

import pytest

from server.fanout.hub import Hub
from server.gateway.auth import bearer_token
from server.gateway.budgets import COLD_A_COMMAND, Budget, Budgets
from server.gateway.selection import EVERYTHING, Selection, Selector, symbols_of
from server.store.catalogue import StoreUnavailable
from server.store.loader import Payer, TooManyLookups
from tests.fanout.peer import instruments


class Store:
    """A directory whose store has `symbols`, and fails with `error` if there is one."""

    def __init__(self, hub: Hub, *symbols: str, error: Exception | None = None) -> None:
        self.complete = False
        self.asked: list[str] = []
        self.payers: list[str] = []
        self._hub = hub
        self._symbols = symbols
        self._error = error

    async def list_symbols(
        self, symbols: Sequence[str], payer: Payer | None = None
    ) -> Sequence[str]:
        self.asked += symbols
        self.payers += [payer.name] if payer else []
        self._list([symbol for symbol in symbols if symbol in self._symbols])
        return [symbol for symbol in symbols if symbol.startswith("ODD")]

    async def list_everything(self) -> None:
        self._list(self._symbols)
        self.complete = True

    def _list(self, symbols: Sequence[str]) -> None:
        if self._error:
            raise self._error
        for instrument in instruments(*symbols):
            self._hub.list_instrument(instrument)


def selector(*symbols: str, error: Exception | None = None) -> Any:
    """Return a selector with AAPL in memory, `symbols` in its store and a clock that stands."""
    hub = Hub(instruments("AAPL"))
    store: Any = Store(hub, *symbols, error=error)
    return Selector(hub.topics, store, Budgets(commands=Budget(1.0, clock=lambda: 0.0)))


async def test_symbols_in_memory_need_no_store():
    """Each topic comes once, in the order of the names, in any spelling."""
    names = selector("MSFT")
    found = await names.resolve(["aapl", " AAPL "], "ann")
    assert symbols_of(found.topics) == ["AAPL"]
    assert not names.is_cold(names.select(["AAPL"]))
    assert names.directory.asked == []


async def test_other_symbols_are_asked_for():
    """The store knows one of them, does not know another, and cannot say for the third."""
    names = selector("MSFT")
    asked = ["MSFT", "AAPL", "NOPE", "ODD"]
    assert names.is_cold(names.select(asked))
    found = await names.resolve(asked, "ann")
    assert symbols_of(found.topics) == ["MSFT", "AAPL"]
    assert (found.unknown, found.unavailable) == (["NOPE"], ["ODD"])
    assert names.directory.payers == ["ann"]


async def test_user_is_charged_for_cold_symbols():
    """A command counts once more for each dozen of them."""
    names = selector()
    await names.resolve([f"U{number}" for number in range(3 * COLD_A_COMMAND)], "ann")
    assert names.budgets.commands.wait("ann", 5.0) == pytest.approx(3.0)


async def test_refused_lookups_keep_what_is_in_memory():
    """The others are not looked up, and the reason is told."""
    refused = TooManyLookups(2.0)
    found = await selector(error=refused).resolve(["AAPL", "MSFT"], "ann")
    assert symbols_of(found.topics) == ["AAPL"]
    assert (found.unknown, found.refused) == (["MSFT"], refused)


async def test_everything_lists_the_catalogue_first():
    """Without the store, `*` is unavailable as a whole."""
    names = selector("MSFT")
    assert names.is_cold(names.select([EVERYTHING]))
    found = await names.resolve([EVERYTHING], "ann")
    assert found.everything
    assert set(names.topics) == {"AAPL", "MSFT"}
    assert not names.is_cold(found)
    away = selector(error=StoreUnavailable("away"))
    found = await away.resolve([EVERYTHING, "AAPL"], "ann")
    assert found == Selection([], [], unavailable=[EVERYTHING])


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("Bearer a.b.c", "a.b.c"),
        ("bearer  a.b.c ", "a.b.c"),
        ("Bearer", ""),
        ("Basic abc", None),
        ("", None),
    ],
)
def test_bearer_token_is_read_in_one_way(header, token):
    """In any spelling of the scheme; another scheme has no token for this server."""
    assert bearer_token(header) == token
