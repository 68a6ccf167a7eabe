"""The table of the page `/`: its order, its numbers, and a long list."""

import os
import re
import subprocess
import sys
from csv import DictReader
from importlib.resources import files

import pytest
from playwright.sync_api import expect

from server.store.embedded import load_instruments
from tests.browser.board import Board
from tests.browser.waiting import until
from tests.processes import ServerProcess

FORMAT = "async ([name, ...values]) => (await import('/web/page/format.js'))[name](...values)"
"""Calls a function of the page's module for numbers."""

TREND = """async ([seconds, rise]) => {
  const { Trail } = await import("/web/page/sparkline.js");
  const trail = new Trail();
  for (let second = 0; second < seconds; second += 1) trail.push(second < rise ? 1 : 2, 1000 * second);
  const heights = trail.shape().line.split(" ").map((point) => point.split(",")[1]);
  return heights.filter((each) => each === heights[0]).length / heights.length;
}"""
"""The part of a trend's points before its price rises."""

OVERFLOWS = """() => [...document.querySelectorAll(".cell.price, .cell.change, .cell.book")]
  .filter((cell) => cell.scrollWidth > cell.clientWidth).map((cell) => cell.textContent)"""
"""Returns the texts of cells that are wider than their column."""

THEME = "() => getComputedStyle(document.body).backgroundColor"

ROOM = """(table) => [table, table.parentElement].map(({ scrollWidth, clientWidth }, i) =>
    i ? clientWidth : scrollWidth)"""
"""The pixels of the table, and of the part of the screen that it has."""


def test_row_is_dragged(board, page):
    """A row goes to where the mouse drops it, and the address follows."""
    board.open("?symbols=AAPL,MSFT,TSLA")
    board.await_live()
    grip = board.row("TSLA").get_by_role("button", name="Move TSLA", exact=True)
    grip.hover()
    page.mouse.down()
    above = board.row("AAPL").bounding_box()
    page.mouse.move(above["x"] + 8, above["y"] + 20)
    page.mouse.move(above["x"] + 8, above["y"] + 4)
    page.mouse.up()
    assert board.symbols() == ["TSLA", "AAPL", "MSFT"]
    assert "symbols=TSLA,AAPL,MSFT" in page.url
    expect(board.announced).to_have_text("TSLA is now row 1 of 3.")


def test_row_is_dragged_out_of_a_long_list(board, page):
    """Below the window it goes behind the last row in view, and above it before the first one."""
    symbols = [each.symbol for each in load_instruments()[:150]]
    board.open(f"?symbols={','.join(symbols)}")
    board.await_live()
    for far, least, most in ((1500, 5, 40), (-900, 0, 3)):
        grip = board.row(symbols[2]).get_by_role("button", name=f"Move {symbols[2]}", exact=True)
        grip.hover()
        page.mouse.down()
        page.mouse.move(100, 700)
        page.mouse.move(100, far)
        page.mouse.up()
        place = re.search(r"is now row (\d+) of 150", board.announced.inner_text())
        assert place is not None
        assert least <= int(place[1]) <= most


def test_table_sorts_by_a_column(board, page):
    """A press on a head sorts: up, down, and back to the visitor's own order."""
    board.open("?symbols=TSLA,AAPL,MSFT")
    board.await_live()
    table = page.get_by_role("table", name="Quotes")
    head = table.get_by_role("columnheader", name="Symbol")
    head.get_by_role("button").click()
    expect(head).to_have_attribute("aria-sort", "ascending")
    assert board.symbols() == ["AAPL", "MSFT", "TSLA"]
    head.get_by_role("button").click()
    assert board.symbols() == ["TSLA", "MSFT", "AAPL"]
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert board.symbols() == ["TSLA", "AAPL", "MSFT"]
    table.get_by_role("columnheader", name="Price").get_by_role("button").click()
    # The simulator keeps prices within one percent of the base price.
    assert board.symbols() == ["TSLA", "AAPL", "MSFT"]
    assert "symbols=TSLA,AAPL,MSFT" in page.url


def test_table_fits_every_screen(board, page):
    """All its columns are in view on usual screens: none is cut off beside the connection's panel."""
    board.open("?symbols=AAPL,GOOGL,TSLA,BRK.B")
    board.await_live()
    cut = []
    for width in (320, 390, 720, 980, 1024, 1100, 1180, 1240, 1280, 1360, 1440, 1720, 1920):
        page.set_viewport_size({"width": width, "height": 800})
        wide, room = page.locator("#quotes").evaluate(ROOM)
        if wide > room:
            cut.append(f"{width}: the table has {wide} pixels in {room}")
    assert not cut


def test_theme_is_kept(board, page):
    """The switch wins over the system's colours, also after the visitor comes back."""
    board.open("?symbols=AAPL")
    board.await_live()
    light = page.evaluate(THEME)
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate(THEME)
    assert dark != light
    page.reload()
    assert page.evaluate(THEME) == dark
    page.get_by_role("button", name="Light theme").click()
    assert page.evaluate(THEME) == light


def test_numbers(board, page):
    """Numbers have the instrument's decimals, whatever their size and sign."""
    board.open("?symbols=AAPL")
    for asked, shown in (
        (["number", 175.5, 2], "175.50"),
        (["number", -37.63, 2], "\N{MINUS SIGN}37.63"),
        (["number", -0.001, 2], "0.00"),
        (["number", 1234567, 0], "1,234,567"),
        (["number", 1e-7, 12], "0.000000100000"),
        (["number", None, 2], "–"),
        (["move", -0.42, 2], "▼\u00a00.42"),
        (["move", 0.42, 2, "%"], "▲\u00a00.42%"),
        (["move", 0, 2], "0.00"),
        (["move", None, 2], "–"),
        (["volume", 12_345_678], "12.3M"),
        (["volume", 0.125], "0.125"),
        (["decimalsOf", 1e-7], 7),
        (["decimalsOf", 1.5e-7], 8),
        (["decimalsOf", 1e21], 0),
        (["duration", 400], "0.4 s"),
        (["duration", 59_999], "59 s"),
        (["duration", 3_600_000], "1 h"),
        (["bytes", 999_600], "1.0 MB"),
    ):
        assert page.evaluate(FORMAT, asked) == shown, asked


def test_trend_grows_to_an_hour(board, page):
    """A line without history begins with seconds, and then shows all up to the last hour."""
    board.open("?symbols=")
    # Of each line, three quarters come before the rise.
    for seconds, rise in ((40, 30), (1000, 750), (7200, 6300)):
        share = page.evaluate(TREND, [seconds, rise])
        assert share == pytest.approx(0.75, abs=0.05), seconds


def test_decimals_are_the_instruments(board, page):
    """A price that ends in zero keeps its decimals, and every price of the row has the same."""
    board.open("?symbols=AAPL")
    board.await_live()
    for _ in range(20):
        board.await_move("AAPL")
        assert re.fullmatch(r"\d+\.\d\d", board.price("AAPL"))


def test_long_list_has_few_rows_in_the_document(board, page):
    """Of a long list only the rows in view cost time. The keyboard still reaches every one."""
    with (files("server.store") / "instruments.csv").open() as shipped:
        symbols = [each["symbol"] for each in DictReader(shipped)][:100]
    board.open(f"?symbols={','.join(symbols)}")
    board.await_live()
    table = page.get_by_role("table", name="Quotes")
    expect(table).to_have_attribute("aria-rowcount", "101")
    assert board.rows.count() < 60
    board.row(symbols[0]).locator(".pick").focus()
    page.keyboard.press("End")
    expect(board.row(symbols[-1])).to_be_in_viewport()
    board.await_move(symbols[-1])
    page.keyboard.press("Delete")
    expect(table).to_have_attribute("aria-rowcount", "100")
    until(page, lambda: page.evaluate("document.activeElement.textContent").startswith(symbols[-2]))


def test_page_names_the_authors_of_the_chart(board, page):
    """The notice of the chart's licence and its link are on the page."""
    board.open("?symbols=AAPL")
    notice = files("server.web").joinpath("vendor", "lightweight-charts.NOTICE.txt").read_text()
    foot = page.get_by_role("contentinfo")
    expect(foot).to_contain_text(" ".join(notice.split()))
    expect(foot.get_by_role("link", name="tradingview")).to_have_attribute(
        "href", "https://www.tradingview.com/"
    )


def test_every_kind_of_price(tmp_path, page):
    """Prices of 12 decimals and below zero have their room, and a name is text whatever it holds."""
    kinds = tmp_path / "kinds.csv"
    kinds.write_text(
        "symbol,name,type,currency,price,price_decimals\n"
        "TINY,<img src=x onerror=alert(1)>,CRYPTO,USD,0.000000012345,12\n"
        "CL=F,Crude oil,FUTURE,USD,-37.63,2\n"
        "7203.T,Toyota Motor,STOCK,JPY,2503,0\n"
    )
    variables = {"XDG_STATE_HOME": str(tmp_path), "JWT_SECRET": "", "FEED": "push"}
    command = [sys.executable, "-m", "server", "import", str(kinds)]
    subprocess.run(command, cwd=tmp_path, env=os.environ | variables, check=True)
    with ServerProcess(tmp_path, **variables) as server:
        board = Board(page, server)
        board.open("?symbols=TINY,CL=F,7203.T")
        board.await_live()
        expect(board.row("TINY")).to_contain_text("<img src=x onerror=alert(1)>")
        for symbol, price in (
            ("TINY", "0.000000012345"),
            ("CL=F", "\N{MINUS SIGN}37.63"),
            ("7203.T", "2,503"),
        ):
            expect(board.row(symbol).get_by_role("cell").nth(2)).to_have_text(price)
        assert page.evaluate(OVERFLOWS) == []
