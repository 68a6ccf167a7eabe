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


_REFERENCE_FIELDS = [each for each in FIELDS if each not in ("symbol", *PRICE_FIELDS)]


def on_conflict_list(*price_columns: str) -> str:
    """Return the end of an import's INSERT: an instrument that was traded keeps its last price."""
    keep_price = ", ".join(
        f"{column} = CASE WHEN market_data.version > 1 AND {_SOUND} THEN market_data.{column} "
        f"ELSE excluded.{column} END"
        for column in price_columns
    )
    return f"""
ON CONFLICT (symbol) DO UPDATE SET
    {_set_excluded(*_REFERENCE_FIELDS)},
    {keep_price},
    delisted = false
"""


def on_conflict_save(*price_columns: str) -> str:
    """Return the end of a write-back's INSERT: only a newer price replaces a valid one."""
    return f"""
ON CONFLICT (symbol) DO UPDATE SET {_set_excluded(*price_columns)}
WHERE excluded.version > market_data.version OR ({_SOUND}) IS NOT TRUE
"""


RECENTLY_WATCHED = (
    "SELECT symbol FROM market_data WHERE watched_at IS NOT NULL AND NOT delisted "
    "ORDER BY watched_at DESC LIMIT "
)
"""The caller adds the placeholder of the limit."""

SELECT_CHANGES = "SELECT symbol, delisted, changed_in FROM market_data WHERE "
"""The caller adds the condition."""
