"""What a visitor sees and does on the page `/`, by roles, labels and texts only."""

import re

from playwright.sync_api import CDPSession, Locator, Page, expect

from tests.processes import ServerProcess

LIVE_TIMEOUT = 20_000
"""Milliseconds until a page is live again: it waits for some seconds between two attempts."""

LOST = (
    "WebSocket connection to .* failed",
    "ERR_CONNECTION_REFUSED",
    "ERR_CONNECTION_RESET",
    "ERR_CONTENT_LENGTH_MISMATCH",
    "ERR_EMPTY_RESPONSE",
    "ERR_INTERNET_DISCONNECTED",
)
"""Errors of a page whose server goes away."""


class Board:
    """The page `/` of `server` in `page`."""

    def __init__(self, page: Page, server: ServerProcess) -> None:
        self.page = page
        self.server = server

    def open(self, query: str = "") -> None:
        """Open the page; `query` is the part of the address that a visitor may share."""
        self.page.goto(f"{self.server.http_url}/{query}")

    @property
    def connection(self) -> Locator:
        """Return the panel that tells the connection's state."""
        return self.page.get_by_role("complementary", name="Connection")

    @property
    def announced(self) -> Locator:
        """Return what a screen reader hears."""
        return self.page.get_by_role("status")

    def await_state(self, state: str | re.Pattern[str], timeout: float = LIVE_TIMEOUT) -> None:
        """Wait until the panel shows a state, such as Live or Stale."""
        found = self.connection.get_by_text(state, exact=True)
        expect(found.first).to_be_visible(timeout=timeout)

    def await_live(self) -> None:
        """Wait until prices come, and the versions prove that none is missing."""
        self.await_state("Live")
        expect(self.connection.get_by_text("Nothing missed:")).to_be_visible(timeout=LIVE_TIMEOUT)

    @property
    def rows(self) -> Locator:
        """Return the rows of the table, without its head."""
        cell = self.page.get_by_role("button", name=re.compile("^Remove "))
        return self.page.get_by_role("table", name="Quotes").get_by_role("row").filter(has=cell)

    def row(self, symbol: str) -> Locator:
        """Return the row of a symbol."""
        cell = self.page.get_by_role("button", name=f"Remove {symbol}", exact=True)
        return self.page.get_by_role("table", name="Quotes").get_by_role("row").filter(has=cell)

    def price(self, symbol: str) -> str:
        """Return the price in the row of a symbol, as text."""
        return self.row(symbol).get_by_role("cell").nth(2).inner_text().strip()

    def symbols(self) -> list[str]:
        """Return the symbols of the rows, from top to bottom."""
        names = [row.get_by_role("button", name=re.compile("^Remove ")) for row in self.rows.all()]
        return [(name.get_attribute("aria-label") or "").removeprefix("Remove ") for name in names]

    def await_move(self, symbol: str) -> None:
        """Wait until the price in a row is another one."""
        before = self.price(symbol)
        cell = self.row(symbol).get_by_role("cell").nth(2)
        expect(cell).not_to_have_text(before, timeout=LIVE_TIMEOUT)

    def await_title(self) -> None:
        """Wait until the price in the page's title is another one. This is quick with many rows."""
        expect(self.page).not_to_have_title(self.page.title(), timeout=LIVE_TIMEOUT)


def heap(devtools: CDPSession) -> float:
    """Return the megabytes of the page's heap, after its garbage was collected."""
    for _ in range(2):
        devtools.send("HeapProfiler.collectGarbage")
    return float(devtools.send("Runtime.getHeapUsage")["usedSize"]) / 1e6
