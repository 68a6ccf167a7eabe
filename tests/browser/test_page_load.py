"""The page `/` under load: 500 symbols at full speed, and a day that passes within seconds."""

from pathlib import Path

from playwright.sync_api import CDPSession

from server.store.embedded import load_instruments
from tests.browser.board import LOST, Board, heap
from tests.browser.looks import take_picture
from tests.processes import ServerProcess

SYMBOLS = [each.symbol for each in load_instruments()[:500]]

ROUNDS = 100
"""Trades of each symbol in the recording, which is played again and again."""

MEASURE = """
(seconds) => new Promise((done) => {
  const long = [];
  const observer = new PerformanceObserver((list) => long.push(...list.getEntries()));
  observer.observe({ type: "longtask" });
  let frames = 0, longest = 0, last = performance.now();
  const end = last + 1000 * seconds;
  const frame = (now) => {
    frames += 1;
    longest = Math.max(longest, now - last);
    last = now;
    if (now < end) return requestAnimationFrame(frame);
    observer.disconnect();
    done({
      "frames a second": frames / seconds, "longest frame, ms": longest,
      "long tasks": long.length,
      "longest task, ms": Math.max(0, ...long.map(({ duration }) => duration)),
    });
  };
  requestAnimationFrame(frame);
})
"""

SECONDS = 4

STEP = 1_440_000
"""Milliseconds of a day's step. In each, all timers of the page are due once."""

QUARTER = 15
"""Steps of a quarter of a day."""


def record(path: Path) -> None:
    """Write a recording: each symbol trades in each second."""
    with path.open("w") as file:
        file.write("timestamp_ms,symbol,price,size\n")
        for number in range(ROUNDS):
            for place, symbol in enumerate(SYMBOLS):
                price = 100 + place + (number * 7 + place) % 20 / 10
                file.write(f"{1764012345000 + 1000 * number + place},{symbol},{price:.2f},10\n")


def layouts(devtools: CDPSession) -> float:
    """Return how often the page's layout was computed so far."""
    metrics = devtools.send("Performance.getMetrics")["metrics"]
    return float(next(each["value"] for each in metrics if each["name"] == "LayoutCount"))


def test_500_symbols_at_full_speed(tmp_path, page, context, record_property):
    """The page stays usable, and its memory does not grow with the updates."""
    record(tmp_path / "trades.csv")
    replay = {"FEED": f"replay:{tmp_path / 'trades.csv'}", "REPLAY_SPEED": "0", "REPLAY_LOOP": "1"}
    devtools = context.new_cdp_session(page)
    with ServerProcess(tmp_path, JWT_SECRET="", **replay) as server:
        board = Board(page, server)
        board.open(f"?symbols={','.join(SYMBOLS)}")
        board.await_live()
        board.await_title()
        before = heap(devtools)
        sent = server.metric("market_data_messages_sent_total")
        devtools.send("Performance.enable")
        laid_out = layouts(devtools)
        measured = page.evaluate(MEASURE, SECONDS)
        laid_out = layouts(devtools) - laid_out
        sent = server.metric("market_data_messages_sent_total") - sent
        for name, value in measured.items():
            record_property(name, round(value))
        record_property("messages a second", round(sent / SECONDS))
        record_property("layouts a second", round(laid_out / SECONDS))
        take_picture(page, "page-500")
        after = heap(devtools)
        record_property("heap, MB", f"{before:.1f}, then {after:.1f}")
        # The page is left before its server, whose end would be an error.
        page.goto("about:blank")
    # An idle machine shows far more. Other tests share this one.
    assert measured["frames a second"] > 1
    # A page that reads its layout between two writes has ten and more for each frame.
    assert laid_out < 3 * (SECONDS * measured["frames a second"] + 1)
    assert after < before + 20


def test_memory_over_a_day(tmp_path, page, context, faults, record_property):
    """The page's clock runs through a day in steps. The heap ends as it began."""
    faults.expect(*LOST)
    page.clock.install()
    devtools = context.new_cdp_session(page)
    heaps = []
    with ServerProcess(tmp_path, JWT_SECRET="", PRICE_UPDATE_INTERVAL="50ms") as server:
        board = Board(page, server)
        board.open()
        board.await_live()
        for _ in range(4):
            for _ in range(QUARTER):
                page.clock.fast_forward(STEP)
            board.await_live()
            board.await_title()
            heaps.append(heap(devtools))
    record_property("heap after each quarter, MB", [round(each, 1) for each in heaps])
    assert heaps[-1] < heaps[0] + 5
