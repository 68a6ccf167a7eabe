"""The instruments that are shipped."""

import csv
from pathlib import Path

import pytest

from server.quotes.instrument import normalize_symbol
from server.store.embedded import load_instruments

SOURCE = Path(__file__).parents[3] / "shared" / "data" / "instruments.csv"

FUNDS = {"SPY", "QQQ", "VTI", "IWM", "EFA", "GLD", "TLT", "VNQ", "XLF", "XLK"}


def test_catalogue_is_complete():
    """503 companies and ten funds, each once, each with a price; invented ones are marked."""
    instruments = load_instruments()
    symbols = [instrument.symbol for instrument in instruments]
    assert len(set(symbols)) == len(symbols) == 513
    assert all(symbol == normalize_symbol(symbol) for symbol in symbols)
    assert {each.symbol for each in instruments if each.type == "ETF"} == FUNDS
    assert all(each.base_price >= 1 and each.name for each in instruments)
    assert {each.symbol for each in instruments if each.made_up_price} >= FUNDS
    assert all(each.market_cap is None for each in instruments if each.made_up_price)


@pytest.mark.skipif(not SOURCE.exists(), reason="the source lies beside the project, not in it")
def test_catalogue_is_the_source_s():
    """Symbols, names and known prices are those of the public-domain list."""
    shipped = {instrument.symbol: instrument for instrument in load_instruments()}
    with SOURCE.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert {row["symbol"] for row in rows} == set(shipped) - FUNDS
    for row in rows:
        instrument = shipped[row["symbol"]]
        assert instrument.name == row["name"]
        assert instrument.made_up_price == (not row["price_2017"])
        if row["price_2017"]:
            assert instrument.base_price == pytest.approx(float(row["price_2017"]), abs=0.005)
