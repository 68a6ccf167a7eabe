"""The SQL of the catalogue in Postgres. Values are always parameters of a statement."""

from server.store.sql import COLUMNS, FIELDS, on_conflict


def _as_float(column: str) -> str:
    """Return SQL that gives NaN for a number outside a float's range.

    The plain cast would fail for it, and the whole query with it. Rounding is for numbers too close to
    zero, for which the cast fails as well.
    """
    rounded = f"round({column}::numeric, 100)::float8"
    is_float = f"{column} BETWEEN -1e300 AND 1e300"
    return f"CASE WHEN {is_float} THEN {rounded} WHEN {column} IS NOT NULL THEN 'NaN'::float8 END"


_SELECTED = {
    "last_quote": _as_float("last_quote"),
    "base_price": _as_float("base_price"),
    "volume": "volume + volume_fraction",
}

SELECTED = ", ".join(_SELECTED.get(field, field) for field in FIELDS)

_COLUMNS_OF = {
    "varchar": ("symbol", "name", "adjustments", "currency", "exchange", "isin"),
    "bigint": ("market_cap", "version", "quoted_at", "opened_at"),
    "smallint": ("price_decimals", "size_decimals"),
    "int": ("category",),
    "bool": ("made_up_price",),
}
"""The columns of each type. Those of prices and sizes are `float8`."""

_TYPES = {column: kind for kind, columns in _COLUMNS_OF.items() for column in columns}

_PARAMETERS = ", ".join(
    f"${number}::{_TYPES.get(field, 'float8')}[]" for number, field in enumerate(FIELDS, 1)
)

_WHOLE_VOLUME = ", ".join("trunc(volume)" if field == "volume" else field for field in FIELDS)

_INSERT = (
    f"INSERT INTO market_data ({COLUMNS}, volume_fraction) "
    f"SELECT {_WHOLE_VOLUME}, volume - trunc(volume) FROM unnest({_PARAMETERS}) AS new({COLUMNS}) "
)

_ENDS = on_conflict("volume_fraction")

LIST, BEGIN_ANEW = _INSERT + _ENDS.list, _INSERT + _ENDS.begin_anew
REPLACE, SAVE = _INSERT + _ENDS.replace, _INSERT + _ENDS.save

LOCK = """
SELECT id, symbol FROM market_data WHERE symbol = ANY($1) AND NOT delisted
ORDER BY symbol COLLATE "C" FOR UPDATE
"""
"""All writers lock rows in the order of symbols, so that two of them cannot deadlock."""

WATCHED = f"""
WITH locked AS ({LOCK})
UPDATE market_data SET watched_at = now() FROM locked WHERE market_data.id = locked.id
"""

_KEY = "translate(symbol, '-/. ', '')"
"""SQL for `search.symbol_key`; the index of migration 5 has the same words."""


def _begins(text: str, number: int) -> str:
    return f'{text} COLLATE "C" >= ${number} AND {text} COLLATE "C" < ${number} || U&\'\\+10FFFF\''


BY_SYMBOL = f"""
(SELECT {SELECTED} FROM market_data WHERE NOT delisted AND {_begins("symbol", 1)}
    ORDER BY symbol COLLATE "C" LIMIT $3)
UNION ALL
(SELECT {SELECTED} FROM market_data WHERE NOT delisted AND {_begins(_KEY, 2)}
    ORDER BY {_KEY} COLLATE "C" LIMIT $3)
"""

NOT_INDEXED = "SELECT symbol, name FROM market_data WHERE words_of IS DISTINCT FROM name"

INDEX_WORDS = """
UPDATE market_data
SET words_of = market_data.name, words = array_to_tsvector(string_to_array(new.words, ' '))
FROM unnest($1::text[], $2::text[]) AS new(symbol, words) WHERE market_data.symbol = new.symbol
"""
