"""`quotes.js` and the page `/` in a real browser stay away from a server for as long as that asks."""

import json
import signal
import time
from contextlib import ExitStack
from email.utils import formatdate
from itertools import pairwise
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from tests.browser.board import LOST, Board
from tests.browser.faults import Faults
from tests.browser.waiting import until
from tests.gateway.wire import Client
from tests.processes import ServerProcess, make_token

USER = "visitor"

CONNECT = """
async ([url, token]) => {
  const { connect } = await import("/quotes.js");
  window.log = [];
  const note = (type, detail) => log.push({ type, at: Date.now(), ...detail });
  class Spy extends WebSocket {
    constructor(...options) {
      super(...options);
      note("opened", {});
      this.addEventListener("message", ({ data }) => {
        if (data.includes('"reconnect"')) note("reconnect", JSON.parse(data));
      });
      this.addEventListener("close", ({ code, reason }) => note("closed", { code, reason }));
    }
  }
  window.quotes = connect({ url, getToken: () => token, symbols: ["AAPL"], WebSocket: Spy });
}
"""

HASTE = "() => { quotes.pause(); quotes.resume(); quotes.reconnect(); return quotes.state; }"
"""Each way back to the server that does not wait by itself."""

HASTE_AT_THE_END = f"() => quotes.addEventListener('state', {HASTE}, {{ once: true }})"


def follow(page: Page, server: ServerProcess, faults: Faults) -> None:
    """Open an answer of the server as a page, and connect. Only Chromium itself asks for an icon."""
    faults.expect("favicon.ico")
    page.goto(f"{server.http_url}/version")
    page.evaluate(CONNECT, [server.quotes_url, make_token(USER)])


def events(page: Page, *types: str) -> list[dict[str, Any]]:
    """Return what happened so far."""
    seen = json.loads(page.evaluate("JSON.stringify(log)"))
    return [each for each in seen if each["type"] in types]


def away(page: Page, since: str, times: int = 1) -> tuple[list[dict[str, Any]], list[float]]:
    """Wait until the client came back `times` times. Return the events `since`, and the milliseconds
    from each to the next connection.
    """
    until(page, lambda: len(events(page, "opened")) > times)
    seen, waits = events(page, "opened", since), []
    for before, after in pairwise(seen):
        if before["type"] == since and after["type"] == "opened":
            waits.append(after["at"] - before["at"])
    return events(page, since), waits


def test_spent_budget(tmp_path, page, faults):
    """The server's refusal names the seconds until the user's budget is enough. No call is quicker."""
    with ServerProcess(tmp_path, USER_COMMAND_RATE="1") as server:
        with Client(server, token=make_token(USER)):
            follow(page, server, faults)
            until(page, lambda: bool(events(page, "closed")))
            assert page.evaluate(HASTE) == "waiting"
            refusals, waits = away(page, "closed")
        assert refusals[0]["code"] == 4429
        assert refusals[0]["reason"].endswith("; retry after 5 s")
        assert waits[0] >= 5000
        until(page, lambda: page.evaluate("quotes.state") == "live")


@pytest.mark.parametrize(
    ("variables", "code"),
    [({"WS_MAX_CONNECTIONS_PER_USER": "1"}, 4409), ({"WS_MAX_CONNECTIONS": "1"}, 4503)],
)
def test_busy_server(tmp_path, page, faults, variables, code):
    """A server without room does not know when it has some. The client waits for a second at least."""
    with ServerProcess(tmp_path, **variables) as server, ExitStack() as clients:
        clients.enter_context(Client(server, token=make_token(USER)))
        follow(page, server, faults)
        until(page, lambda: bool(events(page, "closed")))
        assert page.evaluate(HASTE) == "waiting"
        refusals, waits = away(page, "closed", 2)
        assert {each["code"] for each in refusals} == {code}
        assert min(waits) >= 1000
        clients.close()
        until(page, lambda: page.evaluate("quotes.state") == "live")


def test_drained_server(tmp_path, page, faults):
    """A server that stops names a time. The client comes back later, even if it is called at once."""
    faults.expect(*LOST)
    with ServerProcess(tmp_path) as server:
        follow(page, server, faults)
        until(page, lambda: page.evaluate("quotes.state") == "live")
        page.evaluate(HASTE_AT_THE_END)
        server.process.send_signal(signal.SIGTERM)
        asked, waits = away(page, "reconnect")
    assert waits[0] >= asked[0]["after_ms"]


@pytest.mark.parametrize("is_date", [False, True])
def test_search_waits(board, page, faults, is_date):
    """Whatever the visitor types, no request leaves before the time in `Retry-After`."""
    faults.expect("429")
    asked: list[tuple[float, float]] = []

    def refuse(route: Route) -> None:
        # A date has whole seconds, so the time that it names may be up to a second shorter.
        end = time.time() + 3
        value = formatdate(end, usegmt=True) if is_date else "3"
        asked.append((time.time(), float(int(end)) if is_date else end))
        error = {"error": {"code": "rate_limited", "message": "Too many requests, slow down."}}
        route.fulfill(status=429, headers={"Retry-After": value}, json=error)

    board.open("?symbols=AAPL")
    board.await_live()
    page.route("**/instruments?*", refuse)
    page.get_by_role("combobox").fill("m")
    expect(page.get_by_text("Too many requests, slow down.").first).to_be_visible()
    for letter in "icrosoft":
        page.keyboard.type(letter)
        page.wait_for_timeout(200)
    until(page, lambda: len(asked) > 1)
    assert asked[1][0] >= asked[0][1]
    page.unroute("**/instruments?*")
    expect(page.get_by_role("option", name="MSFT")).to_be_visible()


def test_first_request_waits(page, development, faults):
    """A page that may not even ask for its configuration says so, and comes back in time."""
    faults.expect("429")
    asked: list[float] = []

    def refuse(route: Route) -> None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            route.continue_()
            return
        error = {
            "error": {"code": "rate_limited", "message": "too many requests from your address"}
        }
        route.fulfill(status=429, headers={"Retry-After": "3"}, json=error)

    page.route("**/web/config.json*", refuse)
    board = Board(page, development)
    board.open("?symbols=AAPL")
    expect(page.get_by_text("too many requests from your address").first).to_be_visible()
    board.await_live()
    assert asked[1] - asked[0] >= 3
