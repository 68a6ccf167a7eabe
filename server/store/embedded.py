"""The instruments shipped inside the package (see `instruments.md` for sources)."""

import csv
from importlib.resources import files

from server.quotes.instrument import Instrument


def load_instruments() -> list[Instrument]:
    """Return all shipped instruments: 503 companies and ten exchange-traded funds."""
    with files("server.store").joinpath("instruments.csv").open(encoding="utf-8") as lines:
        return [_instrument(row) for row in csv.DictReader(lines)]


def _instrument(row: dict[str, str]) -> Instrument:
    return Instrument(
        symbol=row["symbol"],
        name=row["name"],
        type="ETF" if row["type"] == "ETF" else "STOCK",
        base_price=float(row["price"]),
        market_cap=int(row["market_cap"]) if row["market_cap"] else None,
        made_up_price=row["price_source"] == "made-up",
    )
