"""The API for other services: names, prices, search, live quotes, and control of the cache."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated
from urllib.parse import quote as escape

import msgspec
import structlog
import trio
from msgspec import UNSET, Meta, UnsetType

from server.fanout.hub import Hub
from server.gateway.budgets import SEARCH
from server.ops.audit import audited
from server.ops.endpoint import Call, Endpoint, Parameter, limit
from server.ops.problems import (
    STORE_UNAVAILABLE,
    TOO_MANY_SYMBOLS,
    UNKNOWN_SYMBOL,
    ApiError,
)
from server.quotes.instrument import (
    MAX_SYMBOL_LENGTH,
    InstrumentType,
    known_at_tick,
    normalize_symbol,
)
from server.quotes.quote import Quote, resumed_quote
from server.quotes.snapshot import Snapshot
from server.store.catalogue import StoreUnavailable
from server.store.loader import Loaded
from server.store.store import Store

MAX_SYMBOLS = 500
"""Symbols of one request: as many as one WebSocket connection may have by default."""

MAX_SYMBOLS_LENGTH = MAX_SYMBOLS * (MAX_SYMBOL_LENGTH + 1)
"""Characters of `symbols`: enough for the longest symbols with commas, and below a head's limit."""

NEXT_PAGE = "Next-Page-Token"
"""The header that names where the next page of a list begins."""

MAX_RESULTS = 100
"""Instruments that a search returns at most."""

SEARCH_TIMEOUT = 3.0
"""Seconds for a search, which takes milliseconds."""

UNAVAILABLE = "Unavailable-Symbols"
"""Header with the symbols left out because the store gave no answer. Unknown symbols are not in it."""

MAY_LEAVE_OUT = {
    UNAVAILABLE: "Symbols left out because the store gives no answer, separated by commas and "
    "escaped as in a query; without any other symbol, the answer is 503"
}
"""The description of that header."""

LOGGED_SYMBOLS = 20
"""Symbols named in one line of the log or one error."""

log = structlog.get_logger()


Stale = Annotated[
    bool | UnsetType,
    Meta(
        description="Present, and true, if the price is older than CACHE_TTL because the database "
        "gives no answer"
    ),
]


class MarketData(msgspec.Struct, frozen=True):
    """Name and last price."""

    symbol: Annotated[str, Meta(description="Symbol in upper case")]
    name: Annotated[str, Meta(description="Name of the instrument")]
    category: Annotated[
        int,
        Meta(
            description="1 for STOCK, 2 ETF, 3 INDEX, 4 FUND, 5 CRYPTO, 6 FX, 7 FUTURE, 8 OPTION, "
            "9 BOND, 10 OTHER"
        ),
    ]
    last_quote: Annotated[
        float | None,
        Meta(description="Last price, null while it waits for its first price"),
    ]
    stale: Stale = UNSET


class InstrumentView(msgspec.Struct, frozen=True):
    """An instrument."""

    symbol: Annotated[str, Meta(description="Symbol in upper case")]
    name: Annotated[str, Meta(description="Name of the instrument")]
    type: Annotated[InstrumentType, Meta(description="The kind of instrument")]
    base_price: Annotated[
        float | None,
        Meta(
            description="Price from which changes are counted, null while it waits for its first "
            "price. Those of the shipped list are closing prices of March 2017, or invented"
        ),
    ]
    last_quote: Annotated[
        float | None,
        Meta(description="Last price, null while it waits for its first price"),
    ]
    market_cap: Annotated[
        int | None,
        Meta(description="Market capitalisation in whole units of `currency`, null if unknown"),
    ]
    price_decimals: Annotated[int, Meta(description="Decimals of its prices, 0 to 12")]
    made_up_price: Annotated[
        bool, Meta(description="True if the list had no base price, so that it is invented")
    ]
    currency: Annotated[
        str, Meta(description="Currency of its prices: ISO 4217, or the code of a crypto currency")
    ]
    exchange: Annotated[str | None, Meta(description="Exchange: a MIC or a name, null if unknown")]
    isin: Annotated[str | None, Meta(description="ISIN (ISO 6166), null if unknown")]
    size_decimals: Annotated[int, Meta(description="Decimals of its sizes and volumes, 0 to 12")]
    previous_close: Annotated[
        float | None, Meta(description="Last price of the session before, null if unknown")
    ]


class QuoteView(msgspec.Struct, frozen=True):
    """A quote as WebSocket clients get it, and its version. While the instrument waits for its first
    price, WebSocket clients get none, and the prices here are null.
    """

    version: Annotated[int, Meta(description="Version of the quote: each change adds one")]
    quote: Annotated[Quote, Meta(description="The quote")]
    stale: Stale = UNSET


class CacheAction(msgspec.Struct, frozen=True):
    """The result of an action on the cache."""

    message: Annotated[str, Meta(description="What was done, for people")]
    symbols: Annotated[Sequence[str], Meta(description="Symbols that the request named")]
    count: Annotated[int, Meta(description="How many of them were cached, or are loaded now")]
    status: Annotated[str, Meta(description="`invalidated` or `warmed`")]


SYMBOLS = Parameter(
    "symbols",
    Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOLS_LENGTH)],
    f"Up to {MAX_SYMBOLS} symbols separated by commas, in upper or lower case",
    "AAPL,MSFT",
)

SYMBOL = Parameter("symbol", str, "A symbol, in upper or lower case", "AAPL", "path")


class Api:
    """The handlers of the routes."""

    def __init__(self, hub: Hub, store: Store) -> None:
        self._hub = hub
        self._store = store

    async def market_data(self, call: Call) -> list[MarketData]:
        """Return names and last prices of those symbols that exist."""
        loaded = await load_known(self._store, call)
        return [
            MarketData(
                each.symbol,
                each.name,
                each.category,
                each.price,
                True if each.symbol in loaded.stale else UNSET,
            )
            for each in loaded.found.values()
        ]

    async def quotes(self, call: Call) -> list[QuoteView]:
        """Return quotes of those symbols that exist. Streaming symbols have their present quote."""
        loaded = await load_known(self._store, call)
        return [self._quote(each, loaded) for each in loaded.found.values()]

    async def instruments(self, call: Call) -> list[InstrumentView]:
        """Return the best matches, the best first; without a query a page of all, by symbol."""
        query, most = call.values["query"], call.values["limit"]
        text = "".join(c if c.isprintable() else " " for c in query).strip()
        if query and not text:
            return []
        call.pay(SEARCH)
        try:
            with trio.fail_after(SEARCH_TIMEOUT):
                if text:
                    found = await self._store.search(text, most)
                else:
                    found = await self._store.page(call.values["page_token"], most)
        except (StoreUnavailable, trio.TooSlowError) as error:
            raise unavailable_store(error) from error
        if not text and len(found) == most:
            call.headers[NEXT_PAGE] = escape(found[-1].symbol)
        return [_view(self._hub.snapshot(each.symbol) or each) for each in found]

    async def instrument(self, call: Call) -> InstrumentView:
        """Return one instrument."""
        return _view(await load_one(self._store, call))

    async def invalidate(self, call: Call) -> CacheAction:
        """Forget symbols on every instance."""
        with audited("invalidate", call) as record:
            symbols = _recorded_symbols(call, record)
            try:
                record["count"] = count = await self._store.invalidate(symbols)
            except StoreUnavailable as error:
                raise unavailable_store(error) from error
        return CacheAction(f"{count} symbols were cached", symbols, count, "invalidated")

    async def warm(self, call: Call) -> CacheAction:
        """Load symbols into the cache."""
        with audited("warm", call) as record:
            symbols = _recorded_symbols(call, record)
            try:
                record["count"] = count = await self._store.warm(symbols, call.payer)
            except StoreUnavailable as error:
                raise unavailable_store(error) from error
        return CacheAction(f"{count} symbols are loaded", symbols, count, "warmed")

    def _quote(self, snapshot: Snapshot, loaded: Loaded) -> QuoteView:
        if topic := self._hub.topics.get(snapshot.symbol):
            return QuoteView(topic.version, topic.quote)
        stale = True if snapshot.symbol in loaded.stale else UNSET
        return QuoteView(snapshot.version, resumed_quote(snapshot), stale)


async def load_known(store: Store, call: Call) -> Loaded:
    """Load the requested symbols. Errors: ApiError if all known ones are unavailable."""
    loaded = await store.loader.load(_symbols(call), payer=call.payer)
    if loaded.unavailable:
        if not loaded.found:
            raise _not_loaded(loaded)
        call.headers[UNAVAILABLE] = ",".join(escape(each) for each in loaded.unavailable)
    return loaded


async def load_one(store: Store, call: Call) -> Snapshot:
    """Load the requested symbol. Errors: ApiError."""
    symbol = normalize_symbol(call.values["symbol"])
    loaded = await store.loader.load([symbol], payer=call.payer)
    if loaded.unavailable:
        raise _not_loaded(loaded)
    if symbol not in loaded.found:
        raise unknown_symbol(symbol)
    return loaded.found[symbol]


def unknown_symbol(symbol: str, search: str = "/instruments") -> ApiError:
    """Return the error of a request for a symbol that does not exist. `search`: a route that finds
    symbols.
    """
    letters = (each if each.isprintable() else "\ufffd" for each in symbol[:MAX_SYMBOL_LENGTH])
    shown = "".join(letters) or "an empty symbol"
    message = f"{shown} is not an instrument; GET {search}?query= finds symbols"
    return ApiError(UNKNOWN_SYMBOL, message)


def endpoints(api: Api) -> list[Endpoint]:
    """Return all routes of the API. The OpenAPI document is made from them too."""
    problems = (TOO_MANY_SYMBOLS, STORE_UNAVAILABLE)
    of_symbols = partial(
        Endpoint, method="GET", parameters=[SYMBOLS], problems=problems, headers=MAY_LEAVE_OUT
    )
    of_cache = partial(
        Endpoint,
        result=CacheAction,
        parameters=[SYMBOLS],
        problems=problems,
        role="admin",
    )
    query = Parameter(
        "query",
        Annotated[str, Meta(min_length=1, max_length=100)],
        "The beginning of a symbol, or words of the name; without it, all instruments are listed",
        "micro",
        default="",
    )
    page_token = Parameter(
        "page_token",
        Annotated[str, Meta(max_length=100)],
        f"Without `query`: the last page's {NEXT_PAGE}, which is its last symbol",
        "AAPL",
        default="",
    )
    return [
        of_symbols(
            path="/market-data",
            handle=api.market_data,
            result=list[MarketData],
            summary="Names and last prices; unknown symbols are left out",
        ),
        of_symbols(
            path="/quotes",
            handle=api.quotes,
            result=list[QuoteView],
            summary="Live quotes with their versions; unknown symbols are left out",
        ),
        Endpoint(
            path="/instruments",
            method="GET",
            handle=api.instruments,
            result=list[InstrumentView],
            summary="Search by symbol or words of the name, or list all by symbol",
            parameters=[query, limit(MAX_RESULTS, 20), page_token],
            headers={
                NEXT_PAGE: "The `page_token` of the next page, escaped as in a query; not on the last"
            },
            problems=[STORE_UNAVAILABLE],
            cacheable=True,
        ),
        Endpoint(
            path="/instruments/{symbol}",
            method="GET",
            handle=api.instrument,
            result=InstrumentView,
            summary="One instrument",
            parameters=[SYMBOL],
            problems=(UNKNOWN_SYMBOL, STORE_UNAVAILABLE),
            cacheable=True,
        ),
        of_cache(
            path="/admin/market-data/cache/invalidate",
            method="DELETE",
            handle=api.invalidate,
            summary="Forget symbols, on every instance",
        ),
        of_cache(
            path="/admin/market-data/cache/warm",
            method="POST",
            handle=api.warm,
            summary="Load symbols into the cache",
        ),
    ]


def _symbols(call: Call) -> list[str]:
    names = [normalize_symbol(name) for name in call.values["symbols"].split(",")]
    symbols = list(dict.fromkeys(name for name in names if name))
    if len(symbols) > MAX_SYMBOLS:
        raise ApiError(TOO_MANY_SYMBOLS, f"at most {MAX_SYMBOLS} symbols a request")
    return symbols


def _view(snapshot: Snapshot) -> InstrumentView:
    instrument = snapshot.instrument
    return InstrumentView(
        instrument.symbol,
        instrument.name,
        instrument.type,
        known_at_tick(instrument.base_price, instrument.price_decimals),
        snapshot.price,
        instrument.market_cap,
        instrument.price_decimals,
        instrument.made_up_price,
        instrument.currency,
        instrument.exchange,
        instrument.isin,
        instrument.size_decimals,
        known_at_tick(instrument.previous_close, instrument.price_decimals),
    )


def _not_loaded(loaded: Loaded) -> ApiError:
    """Return the error of a request for symbols that the store gives no answer about."""
    names = ", ".join(loaded.unavailable[:LOGGED_SYMBOLS])
    return ApiError(STORE_UNAVAILABLE, f"cannot be told at the moment: {names}")


def unavailable_store(error: Exception) -> ApiError:
    """Return the error of a request that the store does not answer, and log the problem."""
    log.warning("a request found the store unavailable", problem=str(error))
    return ApiError(STORE_UNAVAILABLE, "the store gives no answer at the moment")


def _recorded_symbols(call: Call, record: dict[str, object]) -> list[str]:
    symbols = _symbols(call)
    record |= {"symbols": symbols[:LOGGED_SYMBOLS], "asked": len(symbols)}
    return symbols
