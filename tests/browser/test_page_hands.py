"""Fingers and keys on the page `/`, and where the focus is after them."""

from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, expect

from bench.services import free_port
from tests.browser.board import LOST, Board
from tests.browser.waiting import until
from tests.processes import ServerProcess, make_token
from tests.publisher import post

PHONE = {"width": 390, "height": 700}

STEPS = 6
"""Moves of a finger on its way."""


class Finger:
    """Touches the page, as a screen does that reports points."""

    def __init__(self, context: BrowserContext, page: Page) -> None:
        self._devtools = context.new_cdp_session(page)
        self._devtools.send("Emulation.setTouchEmulationEnabled", {"enabled": True})

    def move(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        """Put the finger down, move it, and lift it."""
        self._send("touchStart", begin)
        for step in range(1, STEPS + 1):
            part = step / STEPS
            self._send(
                "touchMove",
                (begin[0] + part * (end[0] - begin[0]), begin[1] + part * (end[1] - begin[1])),
            )
        self._send("touchEnd")

    def _send(self, kind: str, *points: tuple[float, float]) -> None:
        touches = [{"x": x, "y": y} for x, y in points]
        self._devtools.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})


@pytest.fixture
def finger(context, page) -> Finger:
    return Finger(context, page)


def middle(part: Locator) -> tuple[float, float]:
    """Return the middle of a part of the page, in pixels of the view."""
    part.scroll_into_view_if_needed()
    box = part.bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def test_row_is_dragged_with_a_finger(board, page, finger):
    """The row goes to where the finger lifts, and the page does not scroll with it."""
    page.set_viewport_size(PHONE)
    board.open("?symbols=AAPL,MSFT,TSLA")
    board.await_live()
    x, y = middle(board.row("TSLA").get_by_role("button", name="Move TSLA", exact=True))
    _, above = middle(board.row("AAPL"))
    before = page.evaluate("scrollY")
    finger.move((x, y), (x, above - 20))
    assert board.symbols() == ["TSLA", "AAPL", "MSFT"]
    assert page.evaluate("scrollY") == before
    expect(board.announced).to_have_text("TSLA is now row 1 of 3.")
    # A press without a move changes nothing.
    x, y = middle(board.row("AAPL").get_by_role("button", name="Move AAPL", exact=True))
    finger.move((x, y), (x, y))
    assert board.symbols() == ["TSLA", "AAPL", "MSFT"]


def test_chart_is_dragged_with_a_finger(board, page, finger):
    """A finger moves the chart sideways. Up and down it scrolls the page."""
    page.set_viewport_size(PHONE)
    board.open("?symbols=AAPL,MSFT,TSLA")
    board.await_move("AAPL")
    page.get_by_role("button", name="Pause prices").click()
    board.await_state("Paused")
    chart = page.locator("#chart")
    until(page, lambda: chart.screenshot() == chart.screenshot())
    before = chart.screenshot()
    x, y = middle(chart)
    finger.move((x, y), (x - 120, y))
    until(page, lambda: chart.screenshot() != before)
    scrolled = page.evaluate("scrollY")
    x, y = middle(chart)
    finger.move((x, y), (x, y - 100))
    until(page, lambda: page.evaluate("scrollY") > scrolled)


def test_keys_of_one_letter_can_be_turned_off(board, page):
    """Speech input may press them by mistake (WCAG 2.2, 2.1.4). The choice is kept."""
    board.open("?symbols=AAPL")
    board.await_live()
    page.keyboard.press("p")
    board.await_state("Paused")
    page.keyboard.press("p")
    board.await_live()
    box = page.get_by_role("checkbox", name="Letter keys")
    box.uncheck()
    for _ in range(2):
        colours = page.evaluate("document.documentElement.dataset.theme")
        for key in "p/t":
            page.keyboard.press(key)
        board.await_live()
        expect(page.get_by_role("combobox")).not_to_be_focused()
        assert page.evaluate("document.documentElement.dataset.theme") == colours
        page.reload()
        board.await_live()
    box.check()
    page.keyboard.press("/")
    expect(page.get_by_role("combobox")).to_be_focused()


def test_prices_flash_unless_the_visitor_wants_less_motion(board, page):
    """A price that moves flashes. With `prefers-reduced-motion` nothing moves but the numbers."""
    board.open("?symbols=AAPL,MSFT,TSLA")
    board.await_live()
    until(page, lambda: page.evaluate("document.getAnimations().length") > 0)
    page.emulate_media(reduced_motion="reduce")
    page.reload()
    board.await_live()
    for _ in range(3):
        board.await_move("AAPL")
        assert page.evaluate("document.getAnimations().length") == 0


def test_last_row_is_removed(board, page):
    """A screen reader hears it, and the focus goes to what helps next."""
    board.open("?symbols=AAPL")
    board.await_live()
    board.row("AAPL").locator(".pick").focus()
    page.keyboard.press("Delete")
    expect(board.announced).to_have_text("AAPL was removed.")
    expect(page.get_by_role("button", name="Show a first list")).to_be_focused()


def test_row_that_moves_keeps_the_focus(tmp_path, page):
    """A sorted table moves a row whose price rises. The keyboard stays in the row."""
    with ServerProcess(tmp_path, FEED="push", PRICE_BAND="") as server:
        page.add_init_script(f"sessionStorage.setItem('quotestream.token', '{make_token()}')")
        publish(server, AAPL=1.0, MSFT=2.0)
        board = Board(page, server)
        board.open("?symbols=AAPL,MSFT")
        board.await_live()
        page.get_by_role("columnheader", name="Price").get_by_role("button").click()
        assert board.symbols() == ["MSFT", "AAPL"]
        board.row("AAPL").locator(".pick").click()
        page.mouse.move(1, 1)
        publish(server, AAPL=3.0)
        until(page, lambda: board.symbols() == ["AAPL", "MSFT"])
        expect(board.row("AAPL").locator(".pick")).to_be_focused()


def test_halt_that_ended_meanwhile(tmp_path, page, faults):
    """A row says that its symbol is halted, until a connection comes back without the halt."""
    faults.expect(*LOST)
    variables = {"FEED": "push", "WS_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    page.add_init_script(f"sessionStorage.setItem('quotestream.token', '{make_token()}')")
    with ServerProcess(tmp_path, **variables) as server:
        publish(server, AAPL=2.0)
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_live()
        age = board.row("AAPL").locator(".age")
        halt = {"kind": "status", "symbol": "AAPL", "status": "halted", "reason": "LUDP"}
        assert post(server, [halt]).counts[0] == 1
        expect(age).to_have_text("halted")
        server.process.kill()
        with ServerProcess(tmp_path, **variables):
            board.await_state("Live")
            expect(age).not_to_have_text("halted")


def publish(server: ServerProcess, **prices: float) -> None:
    """Publish a price of each symbol."""
    trades: list[Any] = [{"symbol": symbol, "price": price} for symbol, price in prices.items()]
    assert post(server, trades).counts[0] == len(trades)
