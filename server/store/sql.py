"""SQL that Postgres and SQLite share. Values are always parameters of a statement."""

from typing import NamedTuple

from server.quotes.instrument import LARGEST_WHOLE
from server.quotes.snapshot import LARGEST_PRICE, LATEST_US, PRICE_FIELDS, Snapshot

FIELDS = Snapshot.__struct_fields__

COLUMNS = ", ".join(FIELDS)

_SOUND = (
    f"market_data.version BETWEEN 1 AND {LARGEST_WHOLE} "
    f"AND market_data.volume BETWEEN 0 AND {LARGEST_WHOLE} "
    f"AND market_data.quoted_at BETWEEN 0 AND {LATEST_US} "
    f"AND market_data.opened_at BETWEEN 0 AND {LATEST_US} "
    f"AND market_data.last_quote BETWEEN -{LARGEST_PRICE:.0f} AND {LARGEST_PRICE:.0f}"
)
"""Whether a row's last price is valid. Any write replaces an invalid one."""


def _set_excluded(*fields: str) -> str:
    return ", ".join(f"{field} = excluded.{field}" for field in fields)


_BASE_FIELDS = ("base_price", "price_decimals", "made_up_price")

_NO_NEW_PRICE = """excluded.base_price IS NULL AND market_data.base_price IS NOT NULL
        AND market_data.renamed_to IS NULL"""
"""Whether the row has a price, and the import none. That of a renamed symbol is not its own."""

_KEEP_BASE = ", ".join(
    f"{field} = CASE WHEN {_NO_NEW_PRICE} THEN market_data.{field} ELSE excluded.{field} END"
    for field in _BASE_FIELDS
)


_NEXT_SESSION = "excluded.opened_at > market_data.opened_at"
"""Whether a write-back is the first of a session. Then its base price and previous close are new."""


def _keep_price(field: str) -> str:
    """Return SQL that keeps a valid last price. A symbol that was renamed, or that has no base price,
    keeps all but the price itself.
    """
    its_own = (
        " AND market_data.renamed_to IS NULL AND market_data.base_price IS NOT NULL"
        if field == "last_quote"
        else ""
    )
    return (
        f"{field} = CASE WHEN {_SOUND} AND (market_data.version > 1{its_own} OR {_NO_NEW_PRICE}) "
        f"THEN market_data.{field} ELSE excluded.{field} END"
    )


_REFERENCE_FIELDS = [
    each for each in FIELDS if each not in ("symbol", "adjustments", *_BASE_FIELDS, *PRICE_FIELDS)
]


class OnConflict(NamedTuple):
    """Ends of an INSERT, for rows that are there already.

    `list`: of an import. An instrument that was traded keeps its last price. An instrument that the
    import has no price for keeps the price that it has.

    `begin_anew`: of an import of symbols that belonged to other instruments. The version goes on.

    `replace`: of rows that were read in the same transaction.

    `save`: of a write-back. Only a newer price replaces a valid one, or the price of the same version,
    which another program has overwritten. The first price becomes the base price, and at the opening of
    a session the last one does. A price of before a split is not written. Its server hears of the split
    within seconds, and then writes the price after it.
    """

    list: str
    begin_anew: str
    replace: str
    save: str


def on_conflict(*further: str) -> OnConflict:
    """Return the ends of INSERTs for a table with `further` columns of the last price."""
    prices = (*PRICE_FIELDS, *further)
    unversioned = [each for each in prices if each != "version"]
    return OnConflict(
        f"""
ON CONFLICT (symbol) DO UPDATE SET
    {_set_excluded(*_REFERENCE_FIELDS)},
    {_KEEP_BASE},
    {", ".join(map(_keep_price, prices))},
    delisted = false, renamed_to = NULL
""",
        f"""
ON CONFLICT (symbol) DO UPDATE SET
    {_set_excluded(*_REFERENCE_FIELDS, *_BASE_FIELDS, *unversioned)},
    version = CASE WHEN {_SOUND} AND (market_data.version > 1
            OR excluded.base_price IS NULL AND market_data.base_price IS NOT NULL)
        THEN CASE WHEN market_data.version < {LARGEST_WHOLE} THEN market_data.version + 1
            ELSE market_data.version END
        ELSE 1 END,
    adjustments = ltrim(market_data.adjustments || ' ' || excluded.adjustments),
    delisted = false, renamed_to = NULL
""",
        f"""
ON CONFLICT (symbol) DO UPDATE SET {_set_excluded(*FIELDS[1:], *further)}
""",
        f"""
ON CONFLICT (symbol) DO UPDATE SET
    {_set_excluded(*prices)},
    base_price = CASE WHEN {_NEXT_SESSION} THEN excluded.base_price
        ELSE coalesce(market_data.base_price, excluded.base_price) END,
    previous_close = CASE WHEN {_NEXT_SESSION} THEN excluded.previous_close
        ELSE market_data.previous_close END
WHERE excluded.adjustments = market_data.adjustments AND (
    excluded.version > market_data.version
    OR excluded.version > 1 AND excluded.version = market_data.version
        AND excluded.last_quote <> market_data.last_quote
    OR ({_SOUND}) IS NOT TRUE)
""",
    )


RECENTLY_WATCHED = (
    "SELECT symbol FROM market_data WHERE watched_at IS NOT NULL AND NOT delisted "
    "ORDER BY watched_at DESC LIMIT "
)
"""The caller adds the placeholder of the limit."""

SELECT_CHANGES = (
    "SELECT symbol, delisted, changed_in, renamed_to, CAST(adjustments AS text) "
    "FROM market_data WHERE "
)
"""The caller adds the condition."""
