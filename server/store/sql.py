"""SQL that Postgres and SQLite share. Values are always parameters of a statement."""

from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.snapshot import LARGEST_PRICE, LATEST_US, PRICE_FIELDS, Snapshot

FIELDS = Snapshot.__struct_fields__

COLUMNS = ", ".join(FIELDS)

_SOUND = (
    f"market_data.version BETWEEN 1 AND {LARGEST_WHOLE} "
    f"AND market_data.volume BETWEEN 0 AND {LARGEST_WHOLE} "
    f"AND market_data.quoted_at BETWEEN 0 AND {LATEST_US} "
    f"AND market_data.last_quote BETWEEN -{LARGEST_PRICE:.0f} AND {LARGEST_PRICE:.0f}"
)
"""Whether a row's last price is valid. Any write replaces an invalid one."""


def _set_excluded(*fields: str) -> str:
    return ", ".join(f"{field} = excluded.{field}" for field in fields)


_BASE_FIELDS = ("base_price", "price_decimals", "made_up_price")

_KEEP_BASE = ", ".join(
    f"{field} = CASE WHEN excluded.base_price IS NULL AND market_data.base_price IS NOT NULL "
    f"THEN market_data.{field} ELSE excluded.{field} END"
    for field in _BASE_FIELDS
)

_REFERENCE_FIELDS = [
    each for each in FIELDS if each not in ("symbol", *_BASE_FIELDS, *PRICE_FIELDS)
]


def on_conflict_list(*price_columns: str) -> str:
    """Return the end of an import's INSERT: an instrument that was traded keeps its last price. An
    instrument that the import has no price for keeps the price that it has.
    """
    keep_price = ", ".join(
        f"{column} = CASE WHEN {_SOUND} AND (excluded.base_price IS NULL "
        "OR market_data.base_price IS NOT NULL AND market_data.version > 1) "
        f"THEN market_data.{column} ELSE excluded.{column} END"
        for column in price_columns
    )
    return f"""
ON CONFLICT (symbol) DO UPDATE SET
    {_set_excluded(*_REFERENCE_FIELDS)},
    {_KEEP_BASE},
    {keep_price},
    delisted = false
"""


def on_conflict_save(*price_columns: str) -> str:
    """Return the end of a write-back's INSERT: only a newer price replaces a valid one, or the price of
    the same version, which another program has overwritten. The first price becomes the base price.
    """
    return f"""
ON CONFLICT (symbol) DO UPDATE SET
    {_set_excluded(*price_columns)},
    base_price = coalesce(market_data.base_price, excluded.base_price)
WHERE excluded.version > market_data.version
    OR excluded.version > 1 AND excluded.version = market_data.version
        AND excluded.last_quote <> market_data.last_quote
    OR ({_SOUND}) IS NOT TRUE
"""


RECENTLY_WATCHED = (
    "SELECT symbol FROM market_data WHERE watched_at IS NOT NULL AND NOT delisted "
    "ORDER BY watched_at DESC LIMIT "
)
"""The caller adds the placeholder of the limit."""

SELECT_CHANGES = "SELECT symbol, delisted, changed_in FROM market_data WHERE "
"""The caller adds the condition."""
