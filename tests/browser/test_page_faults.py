"""The page `/` while its server, network or machine fails: it says so, and comes back by itself."""

import re
import signal
from datetime import UTC, datetime, timedelta

from playwright.sync_api import expect

from bench.services import free_port
from tests.browser.board import LIVE_TIMEOUT, LOST, Board
from tests.browser.looks import check_looks
from tests.processes import ServerProcess, eventually

QUICK = {"PRICE_UPDATE_INTERVAL": "100ms", "JWT_SECRET": ""}

HOUR = 3600_000
"""Milliseconds."""

TIMES = """[-3, -2, -1, 0, 1].map((seconds) => new Date(Date.now() + 1000 * seconds)
    .toLocaleTimeString([], { hourCycle: "h23", timeStyle: "medium" }))"""
"""The times about now, as the page writes them."""


def test_server_killed_and_restarted(tmp_path, page, faults):
    """The page counts the seconds to its next attempt, and then goes on with nothing missed."""
    faults.expect(*LOST)
    ports = {"WS_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    with ServerProcess(tmp_path, **QUICK, **ports) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL,MSFT")
        board.await_live()
    board.await_state(re.compile("^Reconnecting"))
    expect(board.announced).to_contain_text("Reconnecting")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    check_looks(page, "page-lost")
    with ServerProcess(tmp_path, **QUICK, **ports):
        board.await_live()
        board.await_move("AAPL")


def test_leader_killed(tmp_path, redis, page, faults):
    """Clients of the other instance see stale prices at most, and then those of the new leader."""
    faults.expect(*LOST)
    # Stale prices last for some seconds, so that the test sees them on a busy machine.
    variables = {"REDIS_URL": redis.url, "BUS_LEASE": "5s", "BUS_STALE_AFTER": "500ms", **QUICK}
    folders = [tmp_path / name for name in ("leader", "other")]
    for folder in folders:
        folder.mkdir()
    with ServerProcess(folders[0], **variables) as leader:
        eventually(lambda: leader.metric("market_data_leader") == 1)
        with ServerProcess(folders[1], **variables) as other:
            board = Board(page, other)
            board.open("?symbols=AAPL,MSFT")
            board.await_live()
            board.await_move("AAPL")
            leader.process.kill()
            board.await_state("Stale")
            check_looks(page, "page-stale")
            board.await_live()
            board.await_move("AAPL")


def test_closed_market(tmp_path, page):
    """The page says when the market opens, by the visitor's clock."""
    opening = (datetime.now(UTC) + timedelta(hours=6)).replace(second=0, microsecond=0)
    session = f"{opening:%H:%M}-{opening + timedelta(hours=1):%H:%M} UTC"
    with ServerProcess(tmp_path, SESSION=session, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_state("Stale")
        local = opening.astimezone()
        told = f"It opens at {local:%a, %b} {local.day}, {local:%H:%M}."
        expect(board.connection.get_by_text(told)).to_be_visible()
        page.goto("about:blank")


def test_silent_server(tmp_path, page, faults):
    """Without answers, the versions prove nothing. The page says until when they did."""
    faults.expect(*LOST)
    with ServerProcess(tmp_path, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_live()
        server.process.send_signal(signal.SIGSTOP)
        try:
            heard = page.evaluate(TIMES)
            board.await_state("Stale")
            told = board.connection.get_by_text(
                re.compile(r"^Nothing missed until \d\d:\d\d:\d\d\.")
            )
            expect(told).to_be_visible()
            assert told.inner_text().removeprefix("Nothing missed until ").rstrip(".") in heard
        finally:
            server.process.send_signal(signal.SIGCONT)
        board.await_live()


def test_laptop_asleep_for_an_hour(tmp_path, page, faults):
    """After the sleep the page finds out whether its connection still lives. Prices go on."""
    faults.expect(*LOST)
    page.clock.install()
    with ServerProcess(tmp_path, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_live()
        page.clock.fast_forward(HOUR)
        board.await_live()
        board.await_move("AAPL")


def test_laptop_asleep_while_the_server_left(tmp_path, page, faults):
    """The server closed the connection meanwhile, and its development token has ended."""
    faults.expect(*LOST)
    page.clock.install()
    ports = {"WS_PORT": str(free_port()), "HTTP_PORT": str(free_port())}
    with ServerProcess(tmp_path, **QUICK, **ports) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_live()
    page.clock.fast_forward(HOUR)
    with ServerProcess(tmp_path, **QUICK, **ports):
        page.clock.fast_forward(60_000)
        board.await_live()
        board.await_move("AAPL")


def test_search_without_an_answer(tmp_path, page):
    """A server that takes a request and does not answer does not stop the search for ever."""
    with ServerProcess(tmp_path, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_live()
        page.route("**/instruments?*", lambda _: None)
        search = page.get_by_role("combobox")
        search.fill("micros")
        expect(board.announced).to_contain_text("gives no answer in time", timeout=LIVE_TIMEOUT)
        page.unroute("**/instruments?*")
        search.fill("micro")
        expect(page.get_by_role("option", name="MSFT")).to_be_visible()


def test_chart_library_is_not_loaded(tmp_path, page, faults):
    """The page says so, and shows prices all the same."""
    faults.expect("ERR_FAILED")
    page.route("**/lightweight-charts.js", lambda route: route.abort())
    with ServerProcess(tmp_path, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        expect(page.get_by_text("The chart cannot be drawn")).to_be_visible()
        board.await_live()
        board.await_move("AAPL")


def test_history_that_fails_leaves_the_chart(tmp_path, page, faults):
    """Without an answer about history, the chart stays. The page shows the reason and asks again."""
    faults.expect("503", *LOST)
    page.clock.install()
    with ServerProcess(tmp_path, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL,MSFT&chart=AAPL&timeframe=1m")
        board.await_live()
        answer = {"error": {"code": "store_unavailable", "message": "The store is away"}}
        page.route("**/bars?*", lambda route: route.fulfill(status=503, json=answer))
        page.get_by_role("button", name="5m", exact=True).click()
        expect(page.get_by_text("No history: The store is away")).to_be_visible()
        page.unroute("**/bars?*")
        page.clock.run_for(6000)
        expect(page.get_by_text("No history")).to_be_hidden()


def test_network_cut(tmp_path, page, context, faults):
    """No packet arrives: the page says that the server is silent. The search says that it cannot
    ask. Both work again afterwards.
    """
    faults.expect(*LOST)
    with ServerProcess(tmp_path, **QUICK) as server:
        board = Board(page, server)
        board.open("?symbols=AAPL")
        board.await_live()
        server.process.send_signal(signal.SIGSTOP)
        context.set_offline(offline=True)
        try:
            board.await_state(re.compile("^(Stale|Offline|Reconnecting.*)$"))
            search = page.get_by_role("combobox")
            search.fill("micros")
            expect(board.announced).to_contain_text("The server cannot be reached")
        finally:
            server.process.send_signal(signal.SIGCONT)
            context.set_offline(offline=False)
        board.await_live()
        search.fill("micro")
        expect(page.get_by_role("option", name="MSFT")).to_be_visible()
        board.await_move("AAPL")
