"""A day of trades: the recorded day if it lies beside the project, else a generated one."""

import csv
import gzip
from pathlib import Path
from random import Random

from bench.schedule import HEADER

RECORDED = Path(__file__).parents[2] / "shared" / "data" / "trades-2013-10-07.csv.gz"

GENERATED_TRADES = 137_816
"""The number of trades of the recorded day."""

OPENING_MS = 1_381_152_600_000
SYMBOLS = {"AIG": 48.90, "BAC": 13.80, "IBM": 182.10}

Rows = list[list[str]]


def describe() -> str:
    """Return which day it is."""
    return "recorded, 2013-10-07" if RECORDED.exists() else "generated"


def load_day() -> Rows:
    """Return all rows, without the header, in time order."""
    if not RECORDED.exists():
        return generate_day(GENERATED_TRADES)
    with gzip.open(RECORDED, "rt") as lines:
        return list(csv.reader(lines))[1:]


def generate_day(trades: int) -> Rows:
    """Generate random walks of three symbols with quiet and busy seconds, the same every time."""
    random = Random(20131007)
    prices = dict(SYMBOLS)
    now = OPENING_MS
    rows = []
    for _ in range(trades):
        now += int(random.expovariate(1 / 150)) if random.random() < 0.3 else 0
        symbol = random.choices(list(prices), (2, 7, 2))[0]
        prices[symbol] = max(1.0, round(prices[symbol] + random.choice((-0.01, 0, 0, 0.01)), 2))
        size = 100 * random.randint(1, 9)
        rows.append([str(now), symbol, f"{prices[symbol]:.2f}", str(size)])
    return rows


def write_day(path: Path, rows: Rows) -> Path:
    """Write a replay file of `rows`."""
    with path.open("w", newline="") as lines:
        lines.write(HEADER + "\n")
        csv.writer(lines).writerows(rows)
    return path
