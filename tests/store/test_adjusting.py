"""Splits, renames and new beginnings in each catalogue, beside servers that write prices."""

from functools import partial

import msgspec
import pytest

from server.quotes.adjustment import ChangeRefused, split, up_to_date
from server.quotes.snapshot import Snapshot
from server.store.catalogue import Catalogue
from tests.store.conftest import fill, instrument


async def row(catalogue: Catalogue, symbol: str) -> Snapshot:
    [found] = await catalogue.find([symbol])
    return found


async def moved(catalogue: Catalogue, symbol: str, price: float, version: int) -> Snapshot:
    """Write a price as a server does, and return it."""
    old = await row(catalogue, symbol)
    price_fields = {"last_quote": price, "volume": 100, "version": version, "quoted_at": 7}
    state = msgspec.structs.replace(old, **price_fields)
    await catalogue.save([state], [])
    return state


async def test_price_of_before_a_split_is_not_written(catalogue):
    """A server that has not heard of the split cannot overwrite it, whatever its version. Once it has
    heard, it can.
    """
    await fill(catalogue, instrument("AAPL", price=400.0))
    mark, _ = await catalogue.changes(None)
    live = await moved(catalogue, "AAPL", 404.0, 5)
    after = await catalogue.adjust("AAPL", partial(split, ratio="4:1", again=False))
    assert (after.base_price, after.last_quote, after.volume, after.version) == (100, 101, 400, 6)
    assert await row(catalogue, "AAPL") == after
    assert "AAPL" in {change.symbol for change in (await catalogue.changes(mark))[1]}
    live = msgspec.structs.replace(live, last_quote=408.0, version=900)
    await catalogue.save([live], [])
    assert await row(catalogue, "AAPL") == after
    await catalogue.save([up_to_date(live, after.instrument)], [])
    assert (await row(catalogue, "AAPL")).last_quote == 102.0
    with pytest.raises(ChangeRefused, match="already"):
        await catalogue.adjust("AAPL", partial(split, ratio="4:1", again=False))
    with pytest.raises(ChangeRefused, match="not listed"):
        await catalogue.adjust("NOPE", partial(split, ratio="4:1", again=False))
    await fill(catalogue, instrument("AAPL", "Apple", 99.0))
    assert (await row(catalogue, "AAPL")).adjustments == "4:1"


async def test_renamed_row_keeps_its_price(catalogue):
    """The new symbol has price and version. The old one is delisted and leads there, also later."""
    await fill(catalogue, instrument("FB", price=400.0), instrument("VOO"))
    await moved(catalogue, "FB", 404.0, 5)
    mark, _ = await catalogue.changes(None)
    await catalogue.rename("FB", "META")
    assert await catalogue.find(["FB"]) == []
    meta = await row(catalogue, "META")
    assert (meta.last_quote, meta.volume, meta.version) == (404.0, 100, 6)
    found = {each.symbol: each for each in (await catalogue.changes(mark))[1]}
    assert (found["FB"].delisted, found["FB"].renamed_to) == (True, "META")
    assert (found["META"].delisted, found["META"].renamed_to) == (False, None)
    await catalogue.rename("META", "MVRS")
    _, gone = await catalogue.changes(None)
    assert {each.symbol: each.renamed_to for each in gone} == {"FB": "MVRS", "META": "MVRS"}
    assert [each.symbol for each in await catalogue.search("fb inc", 9)] == ["MVRS"]
    for old, new in [("FB", "X"), ("MVRS", "VOO")]:
        with pytest.raises(ChangeRefused, match="listed"):
            await catalogue.rename(old, new)
    await catalogue.rename("MVRS", "FB")
    _, gone = await catalogue.changes(None)
    assert {each.symbol: each.renamed_to for each in gone} == {"META": "FB", "MVRS": "FB"}
    assert ((await row(catalogue, "FB")).last_quote, (await row(catalogue, "FB")).version) == (
        404,
        8,
    )


async def test_old_symbol_begins_anew(catalogue):
    """An import of a symbol that was renamed does not take over the other instrument's price."""
    await fill(catalogue, instrument("FB", price=400.0))
    await moved(catalogue, "FB", 404.0, 5)
    await catalogue.rename("FB", "META")
    await fill(catalogue, instrument("FB", "Fortune", 10.0))
    other = await row(catalogue, "FB")
    assert (other.last_quote, other.base_price, other.volume, other.version) == (10, 10, 0, 6)
    _, gone = await catalogue.changes(None)
    assert gone == []
    assert (await row(catalogue, "META")).last_quote == 404.0


async def test_fresh_import_forgets_the_price(catalogue):
    """The version goes on, and a server that has not heard of it cannot bring the price back."""
    await fill(catalogue, instrument("FB", price=400.0))
    live = await moved(catalogue, "FB", 404.0, 5)
    new = [instrument("FB", "Fortune", 10.0), instrument("NEW", price=5.0)]
    await catalogue.upsert(new, lambda _: None, anew=True)
    begun = await row(catalogue, "FB")
    assert (begun.last_quote, begun.volume, begun.version, begun.name) == (10, 0, 6, "Fortune")
    assert begun.quoted_at > 7
    assert (await row(catalogue, "NEW")).last_quote == 5.0
    await catalogue.save([msgspec.structs.replace(live, version=900)], [])
    assert await row(catalogue, "FB") == begun
