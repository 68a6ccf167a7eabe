"""The parts of `quotestream watch`: chart, prices seen, counts, state, cursor, keys, texts."""

from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from rich.console import Console

from server.client.activity import Activity
from server.client.chart import draw_chart
from server.client.columns import COLUMNS, Row
from server.client.connection import Connection
from server.client.cursor import Cursor, Sorting
from server.client.document import Document
from server.client.figures import age_text, clean
from server.client.keys import Key, parse_keys, parse_typed
from server.client.lines import Busiest, json_objects, print_json, print_message
from server.client.market import Market
from server.client.painting import PLAIN
from server.client.seen import KEPT, SPAN, PricesSeen
from server.client.sparkline import BLOCKS
from server.client.table import HELP, KEYS, Screen

NOW = 1_800_000_000.0


def message(
    versions: dict[str, int], prices: dict[str, float] | None = None, **more: Any
) -> dict[str, Any]:
    """Return a `quotes_patch`: full quotes with `prices`, otherwise changes."""
    operations: list[dict[str, Any]] = [
        {
            "op": "add",
            "path": f"/quotes/{symbol}",
            "value": {"current_price": price, "name": symbol},
        }
        for symbol, price in (prices or {}).items()
    ]
    if not prices:
        operations = [{"op": "replace", "path": "/quotes/A/current_price", "value": 2.0}]
    patch: dict[str, Any] = {"type": "quotes_patch", "ts": int(NOW * 1e6), "versions": versions}
    return patch | {"operations": operations} | more


class Followed:
    """A document with a market that saw all its messages."""

    def __init__(self, top: int = 0) -> None:
        self.document, self.market = Document(), Market(top)

    def take(self, versions: dict[str, int], prices: dict[str, float], now: float = NOW) -> None:
        patch = message(versions, prices)
        self.document.apply(patch)
        self.market.take(self.document, patch, now)


def test_sparkline_is_true_to_time():
    """Each part of the time has its last price; the hour is the most that it reaches back."""
    seen = PricesSeen()
    for moment, price in ((0, 1.0), (10, 2.0), (90, 3.0)):
        seen.note(NOW + moment, price)
    assert seen.sampled(10, NOW + 100) == [2.0] * 8 + [3.0, 3.0]
    assert seen.sampled(4, NOW + SPAN + 1000) == [3.0] * 4


def test_prices_seen_are_bounded():
    """They thin out evenly, so that a chart is as true on its left as on its right."""
    seen, end = PricesSeen(), 10 * KEPT
    for number in range(end):
        seen.note(NOW + number, float(number % 7))
    assert KEPT // 4 < len(seen) <= KEPT
    points = seen.points(NOW + end)
    assert max(0, end - SPAN) <= points[0][0] - NOW <= max(0, end - SPAN) + 4 * SPAN / KEPT
    assert max(after - before for (before, _), (after, _) in pairwise(points)) <= 5 * SPAN / KEPT
    assert points[-1] == (NOW + end, float((end - 1) % 7))
    assert all(price == (moment - NOW) % 7 for moment, price in points[1:-1])


def test_bars_come_before_what_was_seen():
    """Bars of the time in which live prices came are left out. They are not moves."""
    seen = PricesSeen()
    seen.note(NOW, 5.0)
    seen.put_before([(NOW - 120, 3.0), (NOW - 60, 4.0), (NOW + 60, 9.0)])
    assert [price for _, price in seen.points(NOW + 1)] == [3.0, 4.0, 5.0, 5.0]
    assert seen.direction == 0
    assert seen.rise == pytest.approx(2 / 3)


def test_clock_that_jumps_back_keeps_the_order():
    """A time before the newest one counts as that one."""
    seen = PricesSeen()
    for moment, price in ((0, 1.0), (-50, 2.0)):
        seen.note(NOW + moment, price)
    assert [moment for moment, _ in seen.points(NOW)] == [NOW, NOW, NOW]


def test_activity_counts_a_minute():
    """Older updates are forgotten, also those of symbols that became silent."""
    activity = Activity()
    for second in range(120):
        activity.note("A", NOW + second)
        if second < 30:
            activity.note("B", NOW + second)
        if second % 2:
            activity.note("C", NOW + second)
    assert activity.busiest(5, NOW + 119) == ["A", "C"]
    assert (activity.count("A"), activity.count("C"), activity.count("B")) == (60, 30, 0)


def test_top_shows_the_busiest():
    """A full quote that we had is not an update. Ranks change once a second."""
    followed = Followed(top=1)
    followed.take({"A": 1, "B": 1}, {"A": 1.0, "B": 1.0})
    followed.take({"A": 1, "B": 1}, {"A": 1.0, "B": 1.0})
    assert followed.market.symbols(NOW) == []
    followed.take({"B": 2}, {"B": 2.0})
    assert followed.market.symbols(NOW) == ["B"]
    for version in (2, 3):
        followed.take({"A": version}, {"A": 2.0 + version})
    assert followed.market.symbols(NOW + 0.5) == ["B"]
    assert followed.market.symbols(NOW + 1.5) == ["A"]
    assert followed.market.row("A", NOW).updates == 2


def test_pause_holds_quotes_prices_and_arrows():
    """Later updates are not lost."""
    followed = Followed()
    followed.take({"A": 1}, {"A": 1.0})
    followed.take({"A": 2}, {"A": 2.0}, NOW + 1)
    followed.market.pause(NOW + 2)
    followed.take({"A": 3}, {"A": 1.5}, NOW + 3)
    row = followed.market.row("A", NOW + 9)
    assert (row.quote["current_price"], row.version, row.now) == (2.0, 2, NOW + 2)
    assert row.seen.direction == 1
    assert followed.market.points("A", NOW + 9)[-1] == (NOW + 2, 2.0)
    followed.market.go_on()
    row = followed.market.row("A", NOW + 9)
    assert (row.quote["current_price"], row.version, row.seen.direction) == (1.5, 3, -1)


@pytest.mark.parametrize("size", [(20, 4), (40, 10), (80, 24), (250, 100)])
@pytest.mark.parametrize("prices", [[1.0, 2.0], [5.0] * 9, [1e-8, 3e-8], [70_000.5, 0.01] * 90])
def test_chart_fills_its_size(size, prices):
    """The plot and both axes have exactly the width and the height, and the extremes are named."""
    width, height = size
    points = [(NOW + number, price) for number, price in enumerate(prices)]
    chart = draw_chart(points, width, height)
    assert chart is not None
    lines = [plot + price for plot, price in zip(chart.plot, chart.prices, strict=True)]
    assert len(lines) == height - 2
    assert {len(line) for line in lines} == {len(lines[0])}
    assert len(lines[0]) <= width
    assert len(chart.axis) == len(chart.plot[0]) + 1
    assert len(chart.times) == len(chart.plot[0])
    # A line from the left to the right.
    assert all(any(row[x] != " " for row in chart.plot) for x in range(len(chart.plot[0])))


def test_chart_has_the_shape_of_the_prices():
    """A rise goes from the lower left to the upper right, and the axis names both ends."""
    chart = draw_chart([(NOW + each, 100.0 + each) for each in range(200)], 60, 12)
    assert chart is not None
    heights = [
        next(y for y, row in enumerate(chart.plot) if row[x] != " ")
        for x in range(len(chart.plot[0]))
    ]
    assert heights == sorted(heights, reverse=True)
    assert (heights[0], heights[-1]) == (9, 0)
    assert chart.prices[0].split() == ["┤", "299.00"]
    assert chart.prices[-1].split() == ["┤", "100.00"]


def test_chart_needs_two_times():
    """Without them, or without room, there is none."""
    assert draw_chart([], 80, 24) is None
    assert draw_chart([(NOW, 1.0)], 80, 24) is None
    assert draw_chart([(NOW, 1.0), (NOW, 2.0)], 80, 24) is None
    assert draw_chart([(NOW, 1.0), (NOW + 1, 2.0)], 9, 24) is None
    assert draw_chart([(NOW, 1.0), (NOW + 1, 2.0)], 80, 3) is None


def words(connection: Connection, now: float = NOW) -> str:
    return "  ".join(word for word, _ in connection.words(now))


def test_state_counts_down_and_comes_back():
    """Connecting, live, lost with the wait, live again."""
    connection = Connection()
    assert words(connection) == "◌ connecting"
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    assert words(connection) == "● live  nothing missed"
    lost = {"type": "connection", "problem": "the connection ended", "retry_in": 7.0}
    connection.take(lost, NOW)
    assert words(connection, NOW + 2) == "✕ reconnecting in 5 s: the connection ended"
    assert words(connection, NOW + 9) == "✕ reconnecting: the connection ended"
    ack = {"type": "ack", "action": "resume", "recovered": {"A": "current", "B": "quote"}}
    connection.take(ack, NOW)
    assert words(connection) == "● live  nothing missed, 1 fetched again"


def test_gap_is_told_until_it_is_closed():
    """`since` names the update before, so a change of other fields is not a gap."""
    connection = Connection()
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    connection.take(message({"A": 2}), NOW)
    connection.take(message({"A": 5}, since={"A": 2}), NOW)
    assert "nothing missed" in words(connection)
    connection.take(message({"A": 7}), NOW)
    assert "asking again for 1" in words(connection)
    connection.take(message({"A": 7}, {"A": 1.0}), NOW)
    assert "nothing missed, 1 fetched again" in words(connection)


def test_stale_says_why_and_errors_pass():
    """A refusal is shown for a while."""
    connection = Connection()
    connection.take({"type": "status", "status": "stale", "reason": "feed_quiet"}, NOW)
    assert words(connection) == "◌ stale: feed_quiet"
    connection.take({"type": "status", "status": "live", "reason": "feed_live"}, NOW)
    connection.take({"type": "error", "message": "no such symbol", "symbols": ["X"]}, NOW)
    assert words(connection) == "● live  (no such symbol: X)"
    assert words(connection, NOW + 60) == "● live"


def test_latency_is_that_of_the_oldest_message_on_the_screen():
    """From the server's clock to the drawing. A clock that is ahead is not a latency."""
    connection = Connection()
    connection.take(message({"A": 1}, {"A": 1.0}), NOW)
    connection.take(message({"A": 2}), NOW)
    connection.shown(NOW + 0.04)
    assert words(connection).endswith("  40 ms behind")
    ahead = Connection()
    ahead.take(message({"A": 1}, {"A": 1.0}), NOW)
    ahead.shown(NOW - 3)
    assert words(ahead).endswith("the server's clock is 3.0 s ahead")


@pytest.mark.parametrize(
    "text", ["a\x1b[2Jb", "\x9b31m", "x\r\ny", "\u202eevil", "a\u2066b", "\u2028", "\x7f", "\ue000"]
)
def test_nothing_from_the_server_commands_the_terminal(text, capsys):
    """Names, symbols, reasons and errors are cleaned on each way to the terminal."""
    assert all(each.isprintable() for each in clean(text))
    document, screen, output = Document(), Screen(clock=lambda: NOW, has_keys=True), StringIO()
    value = {"current_price": 1.0, "name": text, "currency": text, "last_updated": text * 9}
    add = {"op": "add", "path": f"/quotes/{text}", "value": value}
    patch = {"type": "quotes_patch", "versions": {text: 1}, "operations": [add]}
    document.apply(patch)
    screen.update(document, patch)
    screen.market.put_before(text, [(NOW - 60, 1.0), (NOW - 30, 2.0)])
    others = (
        {"type": "error", "message": text, "symbols": [text]},
        {"type": "status", "status": text, "reason": text},
        {"type": "connection", "problem": text, "retry_in": 1.0},
    )
    for other in others:
        screen.update(document, other)
        screen.is_charted = not screen.is_charted
        Console(width=120, file=output).print(screen)
    for each in (patch, *others):
        print_message(document, each, ["currency"])
        print_json(document, each)
    printed = output.getvalue() + capsys.readouterr().out
    assert all(each.isprintable() or each == "\n" for each in printed)


@pytest.mark.parametrize("width", [20, 40, 80, 250])
@pytest.mark.parametrize("height", [5, 7, 8, 24, 100])
def test_state_is_in_sight_at_any_size(width, height):
    """A lost connection with a long reason takes the place of what can be left out."""
    document, screen = Document(), Screen(clock=lambda: NOW, has_keys=True)
    patch = message({}, {f"S{number:03}": 1234.5 for number in range(513)})
    patch["versions"] = {f"S{number:03}": 1 for number in range(513)}
    document.apply(patch)
    screen.update(document, patch)
    lost = {"type": "connection", "problem": "no route to the host " * 9, "retry_in": 7.0}
    for other, state in ((patch, "● live"), (lost, "✕ reconnecting in")):
        screen.update(document, other)
        output = StringIO()
        Console(width=width, height=height, file=output).print(screen)
        lines = output.getvalue().splitlines()
        assert len(lines) == height
        assert state in lines[-1]
        assert max(map(len, lines)) <= width
        assert "1,234.50" in lines[height - 3 if height < 8 else 2]
        if height >= 8 and width >= 40:
            assert "? all keys" in lines[-2]


def test_names_of_any_script_stay():
    """Only what a terminal could obey is replaced."""
    for text in ("Nestlé", "日本電信電話", "Газпром", "O’Reilly – é"):
        assert clean(text) == text


def test_ages_have_their_largest_unit():
    """Never negative, never longer than four characters within a year."""
    texts = [age_text(seconds) for seconds in (-1, 0.9, 59, 60, 3599, 3600, 86_400 * 364)]
    assert texts == ["0s", "0s", "59s", "1m", "59m", "1h", "364d"]


def test_letters_are_text_while_the_user_types():
    """Sequences keep their meaning, and characters of several bytes stay whole."""
    typed = "aq日\x7f\x1b[A\r".encode()
    assert [*parse_typed(typed)] == ["a", "q", "日", Key.BACKSPACE, Key.UP, Key.ENTER]
    assert [*parse_keys(b"\x1b[3~asrpct?\x1b")] == [
        Key.REMOVE,
        Key.ADD,
        Key.SORT,
        Key.REVERSE,
        Key.PAUSE,
        Key.CHART,
        Key.SPAN,
        Key.HELP,
        Key.ESCAPE,
    ]
    # The end of an unknown sequence is not a key.
    assert [*parse_keys(b"\x1b[1;5q\x1b[99a")] == []


def test_choice_stays_when_rows_are_sorted_anew():
    """It is a symbol, not a place, and it is always among the rows that are seen."""
    cursor = Cursor()
    assert cursor.window(["A", "B", "C", "D"], 2) == ["A", "B"]
    cursor.move(Key.DOWN)
    assert cursor.chosen == "B"
    assert cursor.window(["C", "D", "A", "B"], 2) == ["A", "B"]
    cursor.leave()
    assert cursor.window(["C", "D", "A"], 2) == ["D", "A"]
    assert cursor.chosen == "A"
    assert cursor.window([], 2) == []
    assert cursor.chosen == ""
    cursor.leave()
    cursor.move(Key.DOWN)


def row(symbol: str, price: float | None) -> Row:
    return Row(symbol, {"current_price": price}, 1, PricesSeen(), 0, NOW)


def test_rows_without_a_value_come_last():
    """In both directions; symbols with the same value stay in their order."""
    prices = {"A": 2.0, "B": None, "C": 1.0, "D": 2.0}
    sorting = Sorting()
    price = next(each for each in COLUMNS if each.heading == "price")
    sorting.step([COLUMNS[0], price], 1)

    def order() -> str:
        return "".join(sorting.sorted([*prices], lambda symbol: row(symbol, prices[symbol])))

    assert order() == "ADCB"
    sorting.reverse()
    assert order() == "CADB"


def test_every_column_can_be_sorted():
    """No key fails for a quote without values, nor for one with all of them."""
    full = {
        "current_price": 1.0,
        "bid": 1.0,
        "last_updated": "2026-01-01T00:00:00Z",
        "volume": 1.0,
        "change": 1.0,
        "change_percent": 1.0,
    }
    for column in COLUMNS:
        for quote in ({}, full):
            each = Row("A", quote, 1, PricesSeen(), 0, NOW)
            column.key(each)
            column.cell(each)


def test_json_of_removals_and_renames():
    """A symbol that went away is an object, too, with its new name if it has one."""
    document = Document()
    document.apply(message({"FB": 1}, {"FB": 1.0}))
    remove = {"op": "remove", "path": "/quotes/FB"}
    patch = {"type": "quotes_patch", "versions": {"FB": 1}, "operations": [remove]}
    document.apply(patch)
    renamed = patch | {"renamed": {"FB": "META"}}
    assert [*json_objects(document, patch)] == [{"type": "removed", "symbol": "FB"}]
    assert [*json_objects(document, renamed)] == [
        {"type": "removed", "symbol": "FB", "renamed": "META"}
    ]


def test_busiest_passes_on_changes_only():
    """Opening quotes are not changes; other messages pass."""
    shown: list[dict[str, Any]] = []
    busiest = Busiest(1, lambda _, message: shown.append(message), lambda: NOW)
    document = Document()
    busiest(document, message({"A": 1, "B": 1}, {"A": 1.0, "B": 1.0}))
    assert not shown
    busiest(document, message({"A": 2}))
    busiest(document, message({"B": 2}))
    busiest(document, {"type": "status"})
    assert [each.get("versions", each["type"]) for each in shown] == [{"A": 2}, "status"]


def test_drawing_has_ascii_for_each_character():
    """A terminal without Unicode gets no question marks."""
    screen = Screen(clock=lambda: NOW + 100, has_keys=True)
    document = Document()
    for version, price in ((1, 1.0), (2, 2.0), (3, 1.5)):
        patch = message({"A": version}, {"A": price})
        document.apply(patch)
        screen.update(document, patch)
    screen.market.put_before("A", [(NOW - 60, 1.0), (NOW - 30, 2.0)])
    output = StringIO()
    for screen.is_helping in (False, True):
        Console(width=120, height=40, file=output).print(screen)
    text = output.getvalue() + BLOCKS + "".join(KEYS) + "".join(keys for keys, _ in HELP)
    assert text.translate(PLAIN).isascii()
