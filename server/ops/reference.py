"""The operators' routes for reference data: search, import of a file, delisting, and a test price."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Annotated

import msgspec
import trio
from msgspec import Meta

from server.gateway.auth import Identity
from server.intake.answer import Answer
from server.intake.batch import Desk
from server.ops.api import SYMBOL, Api, InstrumentView, unavailable_store, unknown_symbol
from server.ops.audit import DONE, REFUSED, audited
from server.ops.endpoint import Call, Endpoint, Parameter
from server.ops.http_request import MAX_FILE
from server.ops.problems import (
    BAD_FILE,
    BAD_REQUEST,
    MISDIRECTED,
    NOT_PUBLISHED_YET,
    RATE_LIMITED,
    STORE_UNAVAILABLE,
    UNKNOWN_SYMBOL,
    ApiError,
)
from server.ops.publishing import PriceDesk, plain_body
from server.quotes.instrument import MAX_SYMBOL_LENGTH, normalize_symbol
from server.store.catalogue import StoreUnavailable
from server.store.importing import HEADERS, BadFile, Contents, parse_instruments
from server.store.store import Store

MAX_PROBLEMS = 100
"""Bad rows that a report names; all are counted."""

MAX_ROWS = 100_000
"""Rows of a file, good or bad: twice as many as a file of instruments with MAX_FILE bytes has."""

SAMPLE = 10
"""Instruments that a report shows."""

OPERATOR = "operator"
"""The source of test prices, and the user of requests without a token."""

MAX_WAITING = 3
"""Files that wait while another one is imported: each holds up to MAX_FILE bytes."""

IMPORT_PATIENCE = 3.0
"""Seconds for which they wait."""

STORE_TIMEOUT = 20.0
"""Seconds for the database to take a file. An answer has 30, of which waiting and reading take a part.
If the database is too slow, nothing is listed.
"""


class BadRow(msgspec.Struct, frozen=True):
    """A row that is not an instrument."""

    line: Annotated[int, Meta(description="Line of the file, from 1")]
    problem: Annotated[str, Meta(description="Why it is not an instrument")]


class ImportedRow(msgspec.Struct, frozen=True):
    """One instrument of a file."""

    symbol: Annotated[str, Meta(description="Symbol in upper case")]
    name: Annotated[str, Meta(description="Name of the instrument")]
    price: Annotated[float | None, Meta(description="Base price, null without one")]


class ImportReport(msgspec.Struct, frozen=True):
    """How a file was read, and what was listed."""

    dry_run: Annotated[bool, Meta(description="True if nothing was changed")]
    listed: Annotated[int, Meta(description="Instruments that were listed, or would be")]
    without_price: Annotated[int, Meta(description="Those of them that wait for their first price")]
    assumed: Annotated[
        Sequence[str], Meta(description="How the file was read, if that was not obvious")
    ]
    bad_rows: Annotated[int, Meta(description="Rows that are not instruments")]
    problems: Annotated[
        Sequence[BadRow], Meta(description=f"The first {MAX_PROBLEMS} of these rows")
    ]
    sample: Annotated[
        Sequence[ImportedRow], Meta(description=f"The first {SAMPLE} instruments of the file")
    ]


class Delisted(msgspec.Struct, frozen=True):
    """An instrument that was delisted."""

    message: Annotated[str, Meta(description="What was done, for people")]
    symbol: Annotated[str, Meta(description="Its symbol")]


class Reference:
    """The handlers of the routes. `desk` takes test prices, None without published prices."""

    def __init__(self, api: Api, store: Store, desk: Desk | None) -> None:
        self._api = api
        self._store = store
        self._prices = PriceDesk(desk) if desk else None
        # Two files at a time would need twice the memory.
        self._importing = trio.CapacityLimiter(1)

    async def find_instruments(self, call: Call) -> list[InstrumentView]:
        """Return as `GET /instruments` does, on the operators' own port, too."""
        return await self._api.instruments(call)

    async def import_instruments(self, call: Call) -> ImportReport:
        """List the instruments of a file, all or none."""
        if call.values.get("dry_run"):
            return await self._import_in_turn(call, {})
        with audited("import", call) as record:
            return await self._import_in_turn(call, record)

    async def _import_in_turn(self, call: Call, record: dict[str, object]) -> ImportReport:
        busy = ApiError(RATE_LIMITED, "another file is being imported, try again", IMPORT_PATIENCE)
        if self._importing.statistics().tasks_waiting >= MAX_WAITING:
            raise busy
        with trio.move_on_after(IMPORT_PATIENCE) as waiting:
            await self._importing.acquire()
        if waiting.cancelled_caught:
            raise busy
        try:
            return await self._import(call, record)
        finally:
            self._importing.release()

    async def _import(self, call: Call, record: dict[str, object]) -> ImportReport:
        dry_run, skip_bad = call.values["dry_run"], call.values["skip_bad"]
        read = partial(_read, call.body, call.encoding, _columns(call.values["map"]))
        # Thousands of rows take a second, in which other clients get their prices.
        contents = await trio.to_thread.run_sync(read)
        if not dry_run:
            _require_good(contents, skip_bad=skip_bad)
            await self._list(contents)
            record["count"] = len(contents.instruments)
        return _report(contents, dry_run=dry_run)

    async def _list(self, contents: Contents) -> None:
        try:
            with trio.fail_after(STORE_TIMEOUT):
                await self._store.list_instruments(contents.instruments)
        except (StoreUnavailable, trio.TooSlowError) as error:
            raise unavailable_store(error) from error

    async def delist(self, call: Call) -> Delisted:
        """Delist an instrument on every instance."""
        symbol = normalize_symbol(call.values["symbol"])
        with audited("delist", call) as record:
            record["symbols"] = [symbol[:MAX_SYMBOL_LENGTH]]
            try:
                missing = await self._store.delist([symbol])
            except StoreUnavailable as error:
                raise unavailable_store(error) from error
            if missing:
                raise unknown_symbol(symbol, "/ops/instruments")
        return Delisted(f"{symbol} is delisted", symbol)

    async def publish_test_price(self, call: Call) -> Answer:
        """Publish one trade."""
        assert self._prices, "the route exists only if prices come from publishers"
        symbol, price = call.values["symbol"], call.values["price"]
        body = msgspec.json.encode({"symbol": symbol, "price": price})
        user = call.user or Identity(OPERATOR, "admin", 0.0)
        named = {"Source": OPERATOR, "Source-Epoch": "", "Idempotency-Key": ""}
        # The symbols that the token may publish bind publishers, not administrators.
        user = user._replace(symbols=None)
        price_call = call._replace(user=user, values=named, body=body, encoding="")
        with audited("publish", call) as record:
            record |= {"symbols": [symbol], "price": price}
            answer = await self._prices.publish(price_call)
            record.update(_became(answer))
        return answer


def _read(body: bytes, encoding: str, columns: Mapping[str, str]) -> Contents:
    """Return what is in a file. Errors: ApiError."""
    plain = plain_body(body, encoding, MAX_FILE)
    try:
        return parse_instruments("the file", plain, columns, MAX_ROWS)
    except BadFile as error:
        raise ApiError(BAD_FILE, str(error)) from None


def _require_good(contents: Contents, *, skip_bad: bool) -> None:
    """Errors: ApiError if a file with bad rows must not be listed, or has no instrument."""
    if contents.problems and not skip_bad:
        first = contents.problems[0]
        count = f"{len(contents.problems)} bad rows; skip_bad=true lists the others"
        raise ApiError(BAD_FILE, f"line {first.line}: {first.problem} ({count})")
    if not contents.instruments:
        raise ApiError(BAD_FILE, "the file holds no instrument")


def _report(contents: Contents, *, dry_run: bool) -> ImportReport:
    instruments, problems, assumed = contents
    return ImportReport(
        dry_run=dry_run,
        listed=len(instruments),
        without_price=sum(each.base_price is None for each in instruments),
        assumed=assumed,
        bad_rows=len(problems),
        problems=[BadRow(each.line, each.problem) for each in problems[:MAX_PROBLEMS]],
        sample=[
            ImportedRow(each.symbol, each.name, each.base_price) for each in instruments[:SAMPLE]
        ],
    )


def _columns(text: str) -> dict[str, str]:
    """Return the headers by their fields, of FIELD=HEADER separated by commas. Errors: ApiError."""
    columns = {}
    for each in filter(None, text.split(",")):
        field, separator, header = each.partition("=")
        if not (separator and header.strip()) or field not in HEADERS:
            raise ApiError(BAD_REQUEST, f"map: FIELD=HEADER with a field of {', '.join(HEADERS)}")
        columns[field] = header
    return columns


def _became(answer: Answer) -> dict[str, object]:
    """Return for the log what became of one published price."""
    if answer.rejected:
        first = answer.rejected[0]
        return {"outcome": REFUSED, "code": first.code, "problem": first.message}
    if answer.state == "queued":
        return {"outcome": "queued"}
    counts = {"late": answer.late, "held": answer.held, "duplicate": answer.duplicate}
    return {"outcome": next((name for name, count in counts.items() if count), DONE)}


def reference_endpoints(reference: Reference, search: Endpoint, *, prices: bool) -> list[Endpoint]:
    """Return the routes.

    Arguments:
        search: the route of users, whose parameters operators have, too.
        prices: whether operators may publish test prices.
    """
    admin = partial(Endpoint, role="admin")
    flag = partial(Parameter, type=bool, example=True, default=False)
    found = [
        admin(
            path="/ops/instruments",
            method="GET",
            handle=reference.find_instruments,
            result=list[InstrumentView],
            summary=search.summary,
            parameters=search.parameters,
            headers=search.headers,
            problems=(*search.problems, MISDIRECTED),
        ),
        admin(
            path="/ops/import",
            method="POST",
            handle=reference.import_instruments,
            result=ImportReport,
            takes_file="text/csv",
            summary="List the instruments of a file, as `quotestream import` does",
            parameters=[
                flag("dry_run", text="Report what would be listed, and change nothing"),
                flag("skip_bad", text="List the good rows of a file with bad ones"),
                Parameter(
                    "map",
                    Annotated[str, Meta(max_length=1000)],
                    "FIELD=HEADER of columns that are not recognized, separated by commas",
                    "price=Last Sale",
                    default="",
                ),
            ],
            problems=(BAD_FILE, MISDIRECTED, STORE_UNAVAILABLE),
        ),
        admin(
            path="/ops/instruments/{symbol}",
            method="DELETE",
            handle=reference.delist,
            result=Delisted,
            summary="Delist an instrument on every instance",
            parameters=[SYMBOL],
            problems=(UNKNOWN_SYMBOL, MISDIRECTED, STORE_UNAVAILABLE),
        ),
    ]
    if prices:
        found.append(_test_price(reference))
    return found


def _test_price(reference: Reference) -> Endpoint:
    return Endpoint(
        path="/ops/prices",
        method="POST",
        handle=reference.publish_test_price,
        result=Answer,
        role="admin",
        summary="Publish one test price",
        parameters=[
            Parameter(
                "symbol",
                Annotated[str, Meta(min_length=1, max_length=MAX_SYMBOL_LENGTH)],
                "The symbol of the price",
                "TEST",
                default="TEST",
            ),
            Parameter("price", float, "The price", 12.5),
        ],
        problems=(MISDIRECTED, NOT_PUBLISHED_YET),
    )
