"""Instruments of every kind in every catalogue: their reference data and their last prices."""

import sqlite3
from contextlib import closing
from typing import get_args

import msgspec
import pytest
import trio_asyncio

from server.quotes.instrument import CATEGORY_OF, SIGNED_TYPES, Instrument, InstrumentType
from server.quotes.quote import opening_quote, quote_after, resumed_quote, snapshot_of
from server.quotes.update import TopOfBook, Trade
from server.store.catalogue_postgres import open_postgres
from server.store.catalogue_sqlite import open_sqlite
from server.store.stats import StoreStats
from tests.store.conftest import fill

TYPES: tuple[InstrumentType, ...] = get_args(InstrumentType)

SYMBOLS = [
    "BTC/USD",
    "EURUSD=X",
    "^GSPC",
    "7203.T",
    "BRK.B",
    "0700.HK",
    "ESZ6",
    "AAPL~C",
    "T+10",
    "*X",
]


def every_kind() -> list[Instrument]:
    """Return one instrument of each type, with every field set."""
    return [
        Instrument(
            symbol=symbol,
            name=f"One of {kind}",
            type=kind,
            base_price=-37.63 if kind in SIGNED_TYPES else 0.000001234567,
            market_cap=10**12,
            price_decimals=12,
            currency="JPY",
            exchange="XTKS",
            isin="JP3633400001",
            size_decimals=8,
            previous_close=-1.5 if kind in SIGNED_TYPES else 1.5,
        )
        for symbol, kind in zip(SYMBOLS, TYPES, strict=True)
    ]


@pytest.mark.parametrize("instrument", every_kind(), ids=lambda each: each.type)
async def test_every_kind_goes_through_the_catalogue(catalogue, instrument):
    """Its quote is the same after a restart: fractional volume, the day's values and the book."""
    await fill(catalogue, instrument)
    (row,) = await catalogue.find([instrument.symbol])
    assert row.instrument == instrument
    assert row.category == CATEGORY_OF[instrument.type]
    quote = opening_quote(instrument, 1)
    low = -5.25 if instrument.type in SIGNED_TYPES else 0.25
    for update in (
        Trade(instrument.symbol, 7.000000000001, 0.00000001, 5, 6),
        Trade(instrument.symbol, low, 12_345_678.5, 7, 8),
        Trade(instrument.symbol, 3.5, 2, 9, 10),
        TopOfBook(instrument.symbol, low, None, 0.125, None, 11, 12),
    ):
        quote = quote_after(quote, update, 12, 8)
    snapshot = snapshot_of(instrument, quote, 5)
    await catalogue.save([snapshot], [])
    (row,) = await catalogue.find([instrument.symbol])
    assert row == snapshot
    assert resumed_quote(row) == quote
    assert quote.volume == 12_345_680.50000001


async def test_import_keeps_all_prices(catalogue):
    """Also those that older versions do not know."""
    (btc,) = (each for each in every_kind() if each.type == "CRYPTO")
    await fill(catalogue, btc)
    quote = quote_after(opening_quote(btc, 1), Trade(btc.symbol, 7.5, 0.5, 5, 6), 12, 8)
    quote = quote_after(quote, TopOfBook(btc.symbol, 7.25, 7.75, 1, 2, 5, 6), 12, 8)
    await catalogue.save([snapshot_of(btc, quote, 3)], [])
    renamed = msgspec.structs.replace(btc, name="Bitcoin", previous_close=9.0)
    await fill(catalogue, renamed)
    (row,) = await catalogue.find([btc.symbol])
    assert row == snapshot_of(renamed, quote, 3)


async def test_reference_data_of_every_kind_are_noticed(catalogue):
    """A changed currency, exchange, ISIN, precision or previous close is a change for every server."""
    (bond,) = (each for each in every_kind() if each.type == "BOND")
    await fill(catalogue, bond)
    for field, value in {
        "type": "OTHER",
        "currency": "EUR",
        "exchange": "XETR",
        "isin": None,
        "size_decimals": 2,
        "previous_close": None,
    }.items():
        mark, _ = await catalogue.changes(None)
        bond = msgspec.structs.replace(bond, **{field: value})
        await fill(catalogue, bond)
        _, changes = await catalogue.changes(mark)
        assert [each.symbol for each in changes] == [bond.symbol], field


async def test_whole_volume_is_an_integer(catalogue):
    """As it always was, also where the column holds floats."""
    share = Instrument(symbol="AAPL", name="Apple", base_price=1.0)
    await catalogue.save(
        [
            snapshot_of(
                share, quote_after(opening_quote(share, 1), Trade("AAPL", 2.0, 300, 5, 6), 2), 2
            )
        ],
        [],
    )
    (row,) = await catalogue.find(["AAPL"])
    assert repr(row.volume) == "300"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ("7, 0, -37.63", -37.63),
        ("7, NULL, -37.63", -37.63),
        ("7, 0, 0", 0.0),
        ("7, -5, -37.63", -5.0),
        ("1, 0, 5", 5.0),
        ("1, NULL, 0", None),
        ("99, NULL, -1", -1.0),
    ],
)
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_row_of_another_service_gets_its_base_price(
    request, tmp_path, kind, values, expected
):
    """Of any kind: the last price is the base price if the row names none."""
    statement = (
        "INSERT INTO market_data (symbol, name, category, base_price, last_quote) "
        f"VALUES ('A', 'A', {values})"
    )
    if kind == "sqlite":
        file = tmp_path / "quotes.db"
        async with open_sqlite(file, (), StoreStats()) as catalogue:
            await catalogue.migrate()
            with closing(sqlite3.connect(file)) as other, other:
                other.execute(statement)
            (row,) = await catalogue.find(["A"])
    else:
        url, database = (request.getfixturevalue(each) for each in ("database_url", "database"))
        async with trio_asyncio.open_loop(), open_postgres(url, 4, StoreStats()) as postgres:
            await postgres.migrate()
            request.getfixturevalue("shared_postgres").sql(statement, database)
            (row,) = await postgres.find(["A"])
    assert row.base_price == expected
