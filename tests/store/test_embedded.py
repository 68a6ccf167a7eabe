"""The shipped instruments."""

from hashlib import sha256

from server.quotes.instrument import normalize_symbol
from server.store.embedded import load_instruments

SOURCE_SUM = "439ed8a356fedee61d9d117baade4d6560ba3361d6480e6a1e109081ba185516"
"""SHA-256 of the lines `symbol,name,price` of the list that `instruments.md` names, sorted."""

FUNDS = {"SPY", "QQQ", "VTI", "IWM", "EFA", "GLD", "TLT", "VNQ", "XLF", "XLK"}


def test_catalogue_is_complete():
    """It has 503 companies and ten funds, each once and with a price. Invented prices are marked."""
    instruments = load_instruments()
    symbols = [instrument.symbol for instrument in instruments]
    assert len(set(symbols)) == len(symbols) == 513
    assert all(symbol == normalize_symbol(symbol) for symbol in symbols)
    assert {each.symbol for each in instruments if each.type == "ETF"} == FUNDS
    assert all((each.base_price or 0) >= 1 and each.name for each in instruments)
    assert {each.symbol for each in instruments if each.made_up_price} >= FUNDS
    assert all(each.market_cap is None for each in instruments if each.made_up_price)


def test_catalogue_is_the_source_s():
    """Symbols, names and known prices have the checksum of the public-domain list."""
    lines = sorted(
        f"{each.symbol},{each.name},{'' if each.made_up_price else each.base_price}"
        for each in load_instruments()
        if each.symbol not in FUNDS
    )
    assert sha256("\n".join(lines).encode()).hexdigest() == SOURCE_SUM
