"""The operators' page in a real browser: what it shows, asks and confirms, and how it tells trouble."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, Page, Request, Route, expect

from tests.browser.looks import check_looks
from tests.browser.waiting import until
from tests.faults.test_slow_clients import MuteClient
from tests.gateway.wire import Client
from tests.ops.as_operator import ask
from tests.processes import WITHOUT_BUDGETS, ServerProcess, make_token

REFUSED = r"status of 40[13] .*/ops/"
"""The console's line about a request without a good token, or with one of another user."""

UNREACHABLE = (
    r"ERR_CONNECTION_REFUSED|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET|ERR_CONTENT_LENGTH_MISMATCH"
    r"|ERR_ABORTED"
)

FILE = "Ticker;Company;Last Sale\nPAGEA;Page A;1,25\nPAGEB;Page B;\nBAD;;3\n"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server that takes prices, and that keeps clients that do not read."""
    with ServerProcess(
        tmp_path_factory.mktemp("watched"),
        FEED="push",
        WS_CIRCUIT_BREAKER_THRESHOLD="1000",
        **WITHOUT_BUDGETS,
    ) as process:
        yield process


def open_page(page: Page, server: ServerProcess, *, role: str | None = "admin") -> None:
    """Open the page as a user of this tab who has entered a token before."""
    token = make_token("olivia", role=role)
    page.add_init_script(f"sessionStorage.setItem('quotestream.operator', '{token}')")
    page.goto(f"{server.http_url}/ops")


def row(page: Page, user: str) -> Locator:
    return page.locator("#client-rows tr").filter(has_text=user)


def test_operator_sees_who_is_behind_and_sends_the_client_away(page, watched):
    """Nothing happens without a confirmation. The page is accessible with its tables filled."""
    for path, body in (("import", FILE.encode()), ("prices", None)):
        query = "skip_bad=true" if body else "symbol=PAGEA&price=2"
        assert ask(watched, "POST", f"/ops/{path}?{query}", body)[0] == 200
    with MuteClient(watched, "*", "molly"), Client(watched, "AAPL", token=make_token("vera")):
        open_page(page, watched)
        expect(row(page, "molly")).to_be_visible()
        expect(page.locator("#client-rows tr").first).to_contain_text("molly")
        expect(row(page, "vera")).to_contain_text("Nothing waits")
        expect(page.locator("#pill-text")).to_have_text(re.compile("Healthy|Degraded"))
        expect(page.locator("#source-rows")).to_contain_text("operator")
        expect(page.locator("#components")).to_contain_text("Event loop")
        check_looks(page, "ops")

        page.get_by_role("button", name="Disconnect vera").click()
        dialog = page.get_by_role("dialog", name="Disconnect vera?")
        check_looks(page, "ops-confirm")
        dialog.get_by_role("button", name="Cancel").click()
        expect(row(page, "vera")).to_be_visible()

        page.get_by_role("button", name="Disconnect vera").click()
        dialog.get_by_role("button", name="Disconnect").click()
        expect(page.locator("#announcer")).to_have_text("vera was disconnected.")
        expect(row(page, "vera")).to_be_hidden()
        # The button that had the focus is gone.
        expect(page.get_by_role("searchbox", name="Search by user or address")).to_be_focused()
        watched.await_event("admin", action="disconnect", client_user="vera", user="olivia")

        page.get_by_role("button", name="Drain molly").click()
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Drain molly").click()
        page.get_by_role("dialog").get_by_role("button", name="Drain").click()
        watched.await_event("admin", action="drain", client_user="molly", user="olivia")


def test_clients_are_searched_and_turned_page_by_page(page, watched):
    """The search finds users and addresses; without a match it says what it looked for."""
    open_page(page, watched)
    expect(page.locator("#clients-empty")).to_contain_text("No client is connected")
    clients = [Client(watched, "AAPL", token=make_token(f"user{n:02}")) for n in range(23)]
    try:
        expect(page.locator("#client-rows tr")).to_have_count(20)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#client-rows tr")).to_have_count(3)
        expect(page.locator("#client-page")).to_have_text("21 to 23 of 23")
        page.get_by_role("button", name="Previous").click()
        expect(page.locator("#client-rows tr")).to_have_count(20)
        page.get_by_role("button", name="Next").click()
        expect(page.locator("#client-rows tr")).to_have_count(3)
        # The clients of this page leave: there is one page only.
        for client in clients[20:]:
            client.__exit__()
        expect(page.locator("#client-rows tr")).to_have_count(20)
        expect(page.locator("#client-pages")).to_be_hidden()
        search = page.get_by_role("searchbox", name="Search by user or address")
        search.fill("user07")
        expect(page.locator("#client-rows tr")).to_have_count(1)
        search.fill("nobody")
        expect(page.locator("#clients-empty")).to_contain_text("“nobody”")
    finally:
        for client in clients:
            client.__exit__()


def test_names_are_text(page, watched):
    """A user's name cannot become a part of the page, and the dialog shows it as it is."""
    user = "<img src=x onerror=alert(1)>"
    with Client(watched, "AAPL", token=make_token(user)):
        open_page(page, watched)
        expect(page.locator("#client-rows tr").filter(has_text=user)).to_be_visible()
        expect(page.get_by_title(user, exact=True)).to_be_visible()
        page.get_by_role("button", name=f"Drain {user}").click()
        expect(page.get_by_role("dialog", name=f"Drain {user}?")).to_be_visible()
        assert page.locator("main img, dialog img").count() == 0


def test_token_is_asked_for_and_kept_for_the_tab(page, faults, watched):
    """Without a token, with a bad one, and with one of another user, the page says what it needs."""
    faults.expect(REFUSED)
    page.goto(f"{watched.http_url}/ops")
    dialog = page.get_by_role("dialog", name="A token of an administrator")
    expect(dialog).to_be_visible()
    check_looks(page, "ops-token")
    # No request can carry this text.
    dialog.get_by_label("Token", exact=True).fill("clé €")
    page.keyboard.press("Enter")
    expect(dialog).to_contain_text("This is not a token")
    field = dialog.get_by_label("Token", exact=True)
    field.fill("not a token")
    # The dialog closes, and comes back with the refusal.
    with page.expect_response(lambda response: response.status == 401):
        field.press("Enter")
    expect(dialog).to_be_visible()
    expect(page.locator("#banner-text")).to_contain_text("A token of an administrator is needed")
    field.fill(make_token("alice"))
    field.press("Enter")
    expect(page.locator("#token-reason")).to_contain_text("not an administrator’s")
    dialog.get_by_role("button", name="Later").click()
    expect(page.locator("#age")).to_have_text("No access")
    check_looks(page, "ops-refused")
    page.get_by_role("button", name="Enter a token").click()
    field.fill(make_token("olivia", role="admin"))
    field.press("Enter")
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator("#age")).to_have_text("Up to date")
    page.reload()
    expect(page.locator("#age")).to_have_text("Up to date")
    assert page.evaluate("localStorage.length") == 0


def test_development_server_gives_a_token(page, tmp_path):
    """A developer sees the page without entering anything."""
    with ServerProcess(tmp_path, JWT_SECRET="") as server:
        page.goto(f"{server.http_url}/ops")
        expect(page.locator("#age")).to_have_text("Up to date")
        expect(page.locator("#worker-rows")).to_contain_text("This server")
        expect(page.locator("#price-submit")).to_be_disabled()
        expect(page.locator("#price-told")).to_contain_text("FEED=push")


def test_port_of_operators_needs_no_token(page, tmp_path):
    """With OPS_PORT, everybody who reaches the port is an operator."""
    with ServerProcess(tmp_path, OPS_PORT="0") as server, Client(server, "AAPL"):
        assert server.process.stdout is not None
        url = server.process.stdout.readline().split()[1].removesuffix("/health")
        page.goto(f"{url}/ops")
        expect(page.locator("#client-rows tr")).to_have_count(1)
        page.locator("#client-rows").get_by_role("button", name="Disconnect").click()
        page.get_by_role("dialog").get_by_role("button", name="Disconnect").click()
        expect(page.locator("#client-rows tr")).to_have_count(0)
        page.get_by_role("searchbox", name="Search by symbol or name").fill("AAPL")
        expect(page.locator("#instruments")).to_contain_text("Apple")


def test_old_numbers_are_told(page, faults, tmp_path):
    """When the server is gone the page says how old its numbers are, and goes on when it is back."""
    faults.expect(UNREACHABLE, r"AbortError|TimeoutError")
    page.clock.install()
    with ServerProcess(tmp_path) as server:
        port = server.http_address[1]
        open_page(page, server)
        expect(page.locator("#age")).to_have_text("Up to date")
    page.clock.run_for(20_000)
    expect(page.locator("#banner-title")).to_have_text(re.compile(r"These numbers are \d+ s old\."))
    expect(page.locator("#banner-text")).to_have_text("The server cannot be reached.")
    check_looks(page, "ops-old")
    with ServerProcess(tmp_path, HTTP_PORT=str(port)):
        until(page, lambda: _passed(page) and page.locator("#banner").is_hidden())
        expect(page.locator("#age")).to_have_text("Up to date")


def _passed(page: Page) -> bool:
    page.clock.run_for(1000)
    return True


def test_page_asks_nothing_while_nobody_looks(page, faults, watched):
    """A hidden page and a paused one send no request."""
    # The test's clock passes the page's patience while a request is under way.
    faults.expect(r"ERR_ABORTED .*/ops/")
    page.clock.install()
    open_page(page, watched)
    expect(page.locator("#age")).to_have_text("Up to date")
    asked: list[Request] = []

    def note(request: Request) -> None:
        asked.append(request)

    page.on("request", note)
    for begin, end in (
        (lambda: _set_hidden(page, hidden=True), lambda: _set_hidden(page, hidden=False)),
        (lambda: page.locator("#pause").click(), lambda: page.locator("#pause").click()),
    ):
        begin()
        page.clock.run_for(10_000)
        asked.clear()
        page.clock.run_for(60_000)
        assert not asked
        end()
        until(page, lambda: len(asked) >= 2)


def _set_hidden(page: Page, *, hidden: bool) -> None:
    page.evaluate(
        """(hidden) => {
          Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
          document.dispatchEvent(new Event("visibilitychange"));
        }""",
        hidden,
    )


def test_file_is_tried_before_it_is_imported(page, watched, tmp_path):
    """The dry run shows bad rows and how the file was read; then a confirmation lists the others."""
    path = Path(tmp_path / "list.csv")
    path.write_text(FILE.replace("PAGE", "FILE"))
    open_page(page, watched)
    page.get_by_label("Choose a CSV file").set_input_files(path)
    report = page.locator("#report")
    expect(report).to_contain_text("2 instruments would be listed, 1 without a price")
    report.get_by_text("1 bad row").click()
    expect(report).to_contain_text("Line 4")
    expect(report).to_contain_text("columns are separated by ';'")
    check_looks(page, "ops-import")
    assert watched.ask("/instruments/FILEA")[0] == 404
    report.get_by_role("button", name="List the 2 good rows").click()
    page.get_by_role("dialog").get_by_role("button", name="List the 2 good rows").click()
    expect(report).to_have_text("2 instruments are listed.")

    page.get_by_role("searchbox", name="Search by symbol or name").fill("FILEA")
    page.get_by_role("button", name="Delist FILEA").click()
    page.get_by_role("dialog").get_by_role("button", name="Delist").click()
    expect(page.locator("#announcer")).to_have_text("FILEA is delisted.")
    assert watched.ask("/instruments/FILEA")[0] == 404


def test_newer_file_wins(page, watched, tmp_path):
    """The report on a first file comes after that on the second one, which stays."""
    paths = [tmp_path / "first.csv", tmp_path / "second.csv"]
    paths[0].write_text("symbol,name\nONEA,One\n")
    paths[1].write_text("symbol,name\nTWOA,Two\nTWOB,Two\n")
    held: list[Route] = []

    def hold(route: Route) -> None:
        if held:
            route.continue_()
        else:
            held.append(route)

    open_page(page, watched)
    page.route("**/ops/import?*", hold)
    for path in paths:
        page.get_by_label(re.compile("Choose a CSV file|first.csv")).set_input_files(path)
        until(page, lambda: bool(held))
    report = page.locator("#report")
    expect(report).to_contain_text("2 instruments would be listed")
    with page.expect_response(lambda answer: answer.request == held[0].request):
        held[0].continue_()
    page.evaluate("new Promise(requestAnimationFrame)")
    expect(report).to_contain_text("2 instruments would be listed")


def test_late_answer_closes_no_other_dialog(page, watched):
    """The operator leaves a dialog whose action takes long, and opens another one. It stays."""
    held: list[Route] = []
    with Client(watched, "AAPL", token=make_token("slow")):
        open_page(page, watched)
        # Playwright marks a handler, so that it cannot be a method of a list.
        page.route("**/disconnect", lambda route: held.extend([route]))
        dialog = page.get_by_role("dialog")
        page.get_by_role("button", name="Disconnect slow").click()
        dialog.get_by_role("button", name="Disconnect").click()
        until(page, lambda: bool(held))
        page.keyboard.press("Escape")
        search = page.get_by_role("searchbox", name="Search by symbol or name")
        search.fill("AAPL")
        page.get_by_role("button", name="Delist AAPL").click()
        held[0].continue_()
        expect(page.locator("#announcer")).to_have_text("slow was disconnected.")
        expect(page.get_by_role("dialog", name="Delist AAPL?")).to_be_visible()


def test_file_that_cannot_be_read_is_told(page, faults, watched, tmp_path):
    """The reason names the columns that are missing."""
    faults.expect(r"status of 400 ")
    path = Path(tmp_path / "list.csv")
    path.write_text("a,b\n1,2\n")
    open_page(page, watched)
    page.get_by_label("Choose a CSV file").set_input_files(path)
    expect(page.locator("#report")).to_contain_text("the header has no column symbol, name")


def test_test_price_is_published(page, watched):
    """The page says what became of the price, also if nobody knows the symbol."""
    ask(watched, "POST", "/ops/import", b"symbol,name\nTEST,Test\n")
    open_page(page, watched)
    # This may be one and a bit, or above a thousand.
    page.get_by_label("Price", exact=True).fill("1,234")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#price-told")).to_contain_text("Write it without a comma.")
    page.get_by_label("Price", exact=True).fill("12,5")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#price-told")).to_have_text("TEST is at 12.5 now.")
    page.get_by_label("Symbol", exact=True).fill("NOSUCH")
    page.get_by_role("button", name="Publish").click()
    expect(page.locator("#price-told")).to_contain_text("Import a file that lists it first.")


def test_hour_has_gaps_where_no_server_was(page, watched):
    """A server that started anew has fewer points than time has passed. No point moves in time."""
    open_page(page, watched)
    points = page.evaluate("""async () => {
      const { Hour } = await import("/web/ops/hour.js");
      const hour = new Hour();
      const take = (last, points, name = "one") =>
        hour.take({ last, interval: 10, series: [{ name, unit: "", points }] });
      take(100, [1, 2]);
      take(101, [3]);
      take(105, [4]);
      take(106, [9], "other");
      return [hour.get("one").points, hour.get("other").points, hour.time(0)];
    }""")
    assert points == [[1, 2, 3, None, None, None, 4, None], [9], 1_060_000]


def test_charts_tell_the_values_of_a_moment(page, watched):
    """Pointer and arrow keys choose the moment for all charts at the same time."""
    open_page(page, watched)
    until(page, lambda: "–" not in page.locator(".chart .value").first.inner_text(), 30)
    charts = page.locator("#charts")
    expect(page.locator("#moment")).to_have_text("")
    charts.focus()
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#moment")).to_have_text(re.compile(r"\d+:\d\d:\d\d"))
    assert page.locator(".cursor[visibility=visible]").count() == page.locator(".chart").count()
    page.keyboard.press("Escape")
    expect(page.locator("#moment")).to_have_text("")
    page.locator(".plot").first.hover()
    expect(page.locator("#moment")).to_have_text(re.compile(r"\d+:\d\d:\d\d"))


@pytest.mark.parametrize("path", ["/", "/ops"])
def test_page_fits_a_narrow_screen(page, tmp_path, path):
    """At 320 pixels no page has to be scrolled in two directions (WCAG 2.2, 1.4.10)."""
    with ServerProcess(tmp_path, JWT_SECRET="") as server:
        page.set_viewport_size({"width": 320, "height": 800})
        page.goto(server.http_url + path)
        expect(page.get_by_text(re.compile("^(Live|Healthy)$")).first).to_be_visible(timeout=20_000)
        assert page.evaluate("document.documentElement.scrollWidth") == 320
