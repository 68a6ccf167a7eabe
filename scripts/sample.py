"""Write examples/trades.csv, a small file to replay: five minutes of made-up trades of three symbols.

`.venv/bin/python scripts/sample.py > examples/trades.csv` writes it anew. The prices are a random walk
around the base prices of the shipped instruments. No market has seen these trades.
"""

from collections.abc import Iterator
from random import Random

BEGIN_MS = 1_767_623_400_000
"""The first trade's time: 5 January 2026, 14:30 UTC, when New York opens."""

TRADES = 300

LONGEST_PAUSE_MS = 2000

CENTS = {"AAPL": 13_952, "MSFT": 6_440, "TSLA": 28_010}
"""The first prices."""


def sample() -> Iterator[str]:
    """Yield the lines of the file, the same ones each time."""
    random = Random(2026)
    cents, time_ms = dict(CENTS), BEGIN_MS
    yield "timestamp_ms,symbol,price,size"
    for _ in range(TRADES):
        symbol = random.choice(list(cents))
        cents[symbol] += random.randint(-6, 6)
        yield f"{time_ms},{symbol},{cents[symbol] / 100:.2f},{100 * random.randint(1, 9)}"
        time_ms += random.randint(1, LONGEST_PAUSE_MS)


if __name__ == "__main__":
    print(*sample(), sep="\n")
