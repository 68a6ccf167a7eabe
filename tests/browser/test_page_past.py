"""The page `/` shows the past: the last hour of each row, and the chart's history."""

import json
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from playwright.sync_api import Page, Route, WebSocketRoute, expect

from server.store.embedded import load_instruments
from tests.browser.board import Board
from tests.browser.waiting import until
from tests.processes import WITHOUT_BUDGETS, ServerProcess, make_token
from tests.publisher import post

SYMBOLS = [each.symbol for each in load_instruments()[:200]]

MINUTES = 10
"""Trades of each symbol before the page is opened, one a minute."""

MOST = 100
"""Symbols whose last hour fits into the 10,000 bars of an answer."""

TRENDS = """() => [...document.querySelectorAll("[data-symbol] .spark polyline")]
  .map((line) => line.getAttribute("points").split(" ").length)"""
"""The points of each row's trend."""

DRAWN = """
  window.drawn = new Set();
  const fillText = CanvasRenderingContext2D.prototype.fillText;
  CanvasRenderingContext2D.prototype.fillText = function (text, ...place) {
    drawn.add(text);
    return fillText.call(this, text, ...place);
  }
"""
"""Collects the texts that the chart draws."""

DATE = re.compile(r"[A-Z][a-z]{2} [0-9]{1,2}")

NOTES = """() => {
  window.notes = [];
  const note = document.getElementById("chart-note");
  new MutationObserver(() => notes.push(note.textContent)).observe(note, { childList: true });
}"""
"""Collects what the chart says in place of its prices."""


def test_each_row_gets_its_last_hour_after_a_wait(tmp_path, page, faults):
    """200 rows wait for a server that is busy. No request then asks for more bars than it gives."""
    faults.expect("429")
    asked: list[list[str]] = []

    def count(route: Route) -> None:
        asked.append(parse_qs(urlsplit(route.request.url).query)["symbols"][0].split(","))
        if len(asked) > 1:
            route.continue_()
            return
        error = {"error": {"code": "rate_limited", "message": "Too many requests, slow down."}}
        route.fulfill(status=429, headers={"Retry-After": "2"}, json=error)

    page.add_init_script(f"sessionStorage.setItem('quotestream.token', '{make_token()}')")
    # Each row is in view.
    page.set_viewport_size({"width": 1440, "height": 9000})
    page.route("**/bars?*", count)
    with ServerProcess(tmp_path, FEED="push", **WITHOUT_BUDGETS) as server:
        publish_past(server)
        board = Board(page, server)
        board.open(f"?symbols={','.join(SYMBOLS)}&timeframe=live")
        board.await_live()
        until(page, lambda: min(page.evaluate(TRENDS)) > MINUTES - 2)
        assert len(page.evaluate(TRENDS)) == len(SYMBOLS)
    assert max(len(symbols) for symbols in asked) <= MOST
    assert {symbol for symbols in asked[1:] for symbol in symbols} == set(SYMBOLS)


def publish_past(server: ServerProcess) -> None:
    """Publish a trade of each symbol in each of the last minutes."""
    now = time.time_ns() // 1000
    for minute in range(MINUTES, 0, -1):
        trades: list[dict[str, Any]] = [
            {"symbol": symbol, "price": 100 + minute, "size": 1, "ts": now - minute * 60_000_000}
            for symbol in SYMBOLS
        ]
        assert post(server, trades).body["rejected"] == []


def test_chart_of_a_refused_symbol_that_gets_a_price(board, page):
    """The chart says why it has no price. It comes with the next one, and the note goes."""
    sockets: list[WebSocketRoute] = []

    def pass_on(socket: WebSocketRoute) -> None:
        socket.connect_to_server()
        sockets.append(socket)

    page.route_web_socket("**/ws/quotes*", pass_on)
    page.add_init_script("localStorage.setItem('quotestream.format', 'json')")
    board.open("?symbols=AAPL,MSFT&chart=AAPL&timeframe=live")
    board.await_live()
    note = page.locator("#chart-note")
    expect(note).to_be_hidden()
    page.evaluate(NOTES)
    gone = {"op": "remove", "path": "/quotes/AAPL"}
    patch = {"type": "quotes_patch", "ts": 1, "versions": {}, "operations": [gone]}
    with page.expect_request("**/trades?symbol=AAPL*"):
        # The server goes on with the symbol, as if it was listed again.
        sockets[0].send(json.dumps(patch))
    expect(note).to_be_hidden()
    assert page.evaluate("notes") == ["No longer listed. You can remove it.", ""]
    board.await_move("AAPL")


def test_recording_of_another_year(tmp_path, page):
    """Its history is there under the days of its trades, in the chart and in the rows."""
    day = 1_381_132_800_000
    rows = [f"{day + 30_000 * n},{symbol},{100 + n % 7},10" for n in range(80) for symbol in "XY"]
    path = tmp_path / "trades.csv"
    path.write_text("\n".join(["timestamp_ms,symbol,price,size", *rows, ""]))
    variables = {"FEED": f"replay:{path}", "REPLAY_SPEED": "0", "JWT_SECRET": ""}
    with ServerProcess(tmp_path, **variables) as server:
        board = Board(page, server)
        with page.expect_response(lambda answer: "sort=desc" in answer.url) as history:
            board.open("?symbols=X,Y&chart=X&timeframe=1m")
        assert len(history.value.json()["bars"]["X"]) == 40
        until(page, lambda: min(page.evaluate(TRENDS), default=0) > 30)
        expect(page.locator("#chart-note")).to_be_hidden()
        page.goto("about:blank")


def test_days_have_the_date_of_their_session(tmp_path, page):
    """A bar of a day begins at midnight in Berlin, which is the evening before in UTC."""
    zone = ZoneInfo("Europe/Berlin")
    noon = datetime.now(zone).replace(hour=12, minute=0, second=0, microsecond=0)
    days = [noon - timedelta(days=back) for back in range(14, 0, -1)]
    days = [day for day in days if day.weekday() < 5]
    token = make_token()
    page.add_init_script(f"{DRAWN}; sessionStorage.setItem('quotestream.token', '{token}')")
    with ServerProcess(tmp_path, FEED="push", SESSION="09:00-17:30 Europe/Berlin") as server:
        trades: list[dict[str, Any]] = [
            {"symbol": "AAPL", "price": 100 + day.day, "ts": int(day.timestamp()) * 1_000_000}
            for day in days
        ]
        assert post(server, trades).body["rejected"] == []
        Board(page, server).open("?symbols=AAPL&timeframe=1d")
        # The chart names the first day, and some of the others.
        until(page, lambda: any(DATE.fullmatch(text) for text in page.evaluate("[...drawn]")))
        drawn = {text for text in page.evaluate("[...drawn]") if DATE.fullmatch(text)}
    assert drawn <= {f"{day:%b} {day.day}" for day in days}


def test_chart_that_was_moved_stays(tmp_path, page, faults):
    """The visitor looks at the past, in another kind of chart and after a reconnection as well."""
    faults.expect("503")
    page.add_init_script(f"{DRAWN}; sessionStorage.setItem('quotestream.token', '{make_token()}')")
    now = time.time_ns() // 60_000_000_000 * 60_000_000
    with ServerProcess(tmp_path, FEED="push") as server:
        trades: list[dict[str, Any]] = [
            {"symbol": "AAPL", "price": 100, "ts": now - back * 60_000_000}
            for back in range(400, 0, -1)
        ]
        assert post(server, trades).body["rejected"] == []
        board = Board(page, server)
        board.open("?symbols=AAPL&timeframe=1m")
        board.await_live()
        until(page, lambda: len(times(page)) > 2)
        newest = times(page)
        page.evaluate("drawn.clear()")
        place = page.get_by_role("img", name="Chart of AAPL").bounding_box()
        assert place is not None
        page.mouse.move(place["x"] + 200, place["y"] + 100)
        page.mouse.down()
        page.mouse.move(place["x"] + 900, place["y"] + 100, steps=5)
        page.mouse.up()
        page.mouse.move(0, 0)
        until(page, lambda: bool(times(page) - newest))
        for action in (
            page.get_by_role("button", name="Candles").click,
            lambda: page.get_by_role("slider", name="Format").fill("2"),
        ):
            page.evaluate("drawn.clear()")
            with page.expect_response(lambda answer: "sort=desc" in answer.url):
                action()
            until(page, lambda: bool(times(page)))
            assert not newest <= times(page)
        # Without an answer, the bars stay in the kind that they have.
        error = {"error": {"code": "store_unavailable", "message": "The store is away"}}
        page.route("**/bars?*", lambda route: route.fulfill(status=503, json=error))
        page.get_by_role("button", name="Line").click()
        expect(page.get_by_text("No history: The store is away")).to_be_visible()
        page.mouse.move(place["x"] + 200, place["y"] + 100)
        expect(page.locator("#legend")).not_to_be_empty()


def times(page: Page) -> set[str]:
    """Return the times that the chart drew."""
    texts: list[str] = page.evaluate("[...drawn]")
    return {text for text in texts if re.fullmatch("[0-9]{2}:[0-9]{2}", text)}


def test_clock_that_is_ahead(tmp_path, page):
    """The page asks for the past of a price without a time, by a clock that is two days ahead."""
    page.add_init_script(f"sessionStorage.setItem('quotestream.token', '{make_token()}')")
    page.clock.install(time=datetime.now(UTC) + timedelta(days=2))
    with ServerProcess(tmp_path, FEED="push") as server:
        with (
            page.expect_response(lambda answer: "sort=desc" in answer.url) as history,
            page.expect_response(lambda answer: "limit=60" in answer.url) as hour,
        ):
            Board(page, server).open("?symbols=AAPL&timeframe=1m")
        assert (history.value.status, hour.value.status) == (200, 200)


def test_last_hour_is_whole_after_an_absence(board, page):
    """A page that did not look for ten minutes asks for them, so that no line leaves them out."""
    asked: list[str] = []
    page.on("request", lambda request: asked.extend([request.url] * ("limit=60" in request.url)))
    page.clock.install()
    board.open("?symbols=AAPL&timeframe=live")
    board.await_live()
    until(page, lambda: len(asked) == 1)
    pause = page.get_by_role("button", name="Pause prices")
    pause.click()
    page.clock.fast_forward(600_000)
    pause.click()
    board.await_live()
    until(page, lambda: page.clock.run_for(1000) is None and len(asked) == 2)


def test_chart_goes_on_without_room_for_bars(tmp_path, page):
    """A list may have no room for the bars of the chart. Then the page asks for them again."""
    asked: list[str] = []
    page.on("request", lambda request: asked.extend([request.url] * ("sort=desc" in request.url)))
    page.clock.install()
    limits = {"JWT_SECRET": "", "WS_MAX_SYMBOLS": "1", "PRICE_UPDATE_INTERVAL": "100ms"}
    with ServerProcess(tmp_path, **limits) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL&chart=AAPL&timeframe=1m")
        board.await_live()
        until(page, lambda: page.clock.run_for(1000) is None and len(asked) > 2)
        board.await_move("AAPL")
        page.goto("about:blank")
