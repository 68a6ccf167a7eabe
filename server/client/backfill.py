"""Fetches bars for the symbols that are seen, so that their lines begin before the first quote."""

from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from server.client.history import HistoryClient, HistoryRefused
from server.client.panel import SPANS, Span
from server.client.seen import Point
from server.client.table import Screen

LOOK_INTERVAL = 0.25
"""Seconds between two looks at what is seen."""

FRESH = 60.0
"""Seconds for which fetched bars of a long span are shown before they are fetched again."""

PAUSE_AFTER_REFUSAL = 60.0
"""Seconds for which a server that refuses is left alone."""

MOST_SYMBOLS = 100
"""Symbols of one request. With an hour of minutes they fit into one page."""

PAGE = "10000"


async def fill_in(screen: Screen, client: HistoryClient) -> None:
    """Fetch the last hour of each symbol that is seen, and the chosen span of the chosen one."""
    asked: set[str] = set()
    fetched: dict[tuple[str, Span], float] = {}
    while True:
        wanted = [each for each in screen.visible if each not in asked][:MOST_SYMBOLS]
        chart = (screen.cursor.chosen, screen.span)
        is_due = screen.now - fetched.get(chart, 0.0) > FRESH
        try:
            if wanted:
                asked.update(wanted)
                for symbol, points in (await _bars(client, wanted, SPANS[0], screen.now)).items():
                    screen.market.put_before(symbol, points)
                screen.changed.set()
            elif screen.span.timeframe and chart[0] and is_due:
                fetched[chart] = screen.now
                bars = await _bars(client, [chart[0]], screen.span, screen.now)
                screen.bars[chart] = bars.get(chart[0], [])
                screen.changed.set()
        except HistoryRefused:
            # The table is complete without history: live prices go on.
            screen.bars.setdefault(chart, [])
            await trio.sleep(PAUSE_AFTER_REFUSAL)
        await trio.sleep(LOOK_INTERVAL)


async def _bars(
    client: HistoryClient, symbols: Sequence[str], span: Span, now: float
) -> dict[str, list[Point]]:
    """Return the closing prices of `symbols` with the times at which their bars begin.

    Errors: HistoryRefused.
    """
    start = datetime.fromtimestamp(now - span.seconds, UTC)
    wanted = {
        "symbols": ",".join(symbols),
        "timeframe": span.timeframe or "1m",
        "start": start.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "limit": PAGE,
    }

    def fetch() -> dict[str, list[Point]]:
        page = next(iter(client.pages(wanted)))
        return {
            symbol: [
                (datetime.fromisoformat(bar["t"]).timestamp(), float(bar["c"])) for bar in bars
            ]
            for symbol, bars in page.bars.items()
        }

    return await trio.to_thread.run_sync(fetch, abandon_on_cancel=True)
