"""Reads the parameters of `GET /bars`, and makes the tokens of its pages."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as NotBase64
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from hashlib import blake2b
from typing import Any, Literal, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from server.history.timeframe import period_end, period_start
from server.ops.problems import BAD_REQUEST, ApiError
from server.quotes.instrument import normalize_symbol
from server.quotes.snapshot import LATEST_US
from server.quotes.traded import MINUTE_US, Timeframe

AHEAD = 2 * 24 * 60
"""Minutes after now at which every range ends. No bar begins later, even if a clock is wrong."""

LATER = 9 * 24 * 60
"""Minutes by which the present range may begin later than that of the first page. A range without a
`start` begins anew each day. On a Tuesday, one of weeks begins with the next Monday.
"""

SHOWN = 40
"""Characters of a wrong value that the error repeats."""

TIMES = "a time such as 2026-11-26T14:30:00Z, a day such as 2026-11-26, or microseconds since 1970"

_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_MICROSECONDS = re.compile(r"[0-9]{1,18}", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}.*", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Mark(msgspec.Struct, frozen=True, array_like=True):
    """Where a page ended: behind the bar of a symbol that begins at `minute`.

    `query` is the fingerprint of its parameters. The next page has the same range. `check` is that of
    all the other fields.
    """

    query: bytes
    first: int
    end: int
    symbol: str
    minute: int
    check: bytes = b""


class Query(NamedTuple):
    """The parameters of a request. The range is from the minute `first` to before the minute `end`."""

    timeframe: Timeframe
    tz: ZoneInfo
    first: int
    end: int
    limit: int
    descending: bool
    fill: bool
    fingerprint: bytes
    behind: Mark | None

    def token(self, symbol: str, minute: int) -> str:
        """Return the token of the page behind a bar."""
        mark = _checked(Mark(self.fingerprint, self.first, self.end, symbol, minute))
        return urlsafe_b64encode(msgspec.msgpack.encode(mark)).decode().rstrip("=")

    def rest_of(self, symbol: str) -> tuple[int, int]:
        """Return the limits of what is left of the range for a symbol. Symbols have their order."""
        mark = self.behind
        if mark is None or symbol > mark.symbol:
            return self.first, self.end
        if symbol < mark.symbol:
            return self.end, self.end
        if self.descending:
            return self.first, mark.minute
        return period_end(mark.minute, self.timeframe, self.tz), self.end


def read_query(values: Mapping[str, Any], default_zone: ZoneInfo, now_us: int) -> Query:
    """Return the parameters of a request. Errors: ApiError, which names the parameter."""
    timeframe: Timeframe = values["timeframe"]
    tz = _zone(values["tz"]) if values["tz"] else default_zone
    start = _moment("start", values["start"], tz)
    end = _moment("end", values["end"], tz, last=True)
    today = datetime.fromtimestamp(now_us // 1_000_000, tz).date()
    first_us = _midnight(today, tz) if start is None else start
    last_us = now_us if end is None else end
    if first_us > last_us:
        which = "the beginning of today, as no `start` is given" if start is None else "`start`"
        which += "; it is now, as no `end` is given" if end is None else ""
        raise ApiError(BAD_REQUEST, f"end: it is before {which}")
    # No bar is before 1970.
    first_us, last_us = max(first_us, 0), max(last_us, -1)
    latest = now_us // MINUTE_US + AHEAD
    first = min(-(-first_us // MINUTE_US), latest)
    if period_start(first, timeframe, tz) < first or first * MINUTE_US < first_us:
        first = period_end(first, timeframe, tz)
    query = Query(
        timeframe,
        tz,
        first,
        period_end(min(last_us // MINUTE_US, latest), timeframe, tz),
        values["limit"],
        values["sort"] == "desc",
        values["fill"] == "previous",
        _fingerprint(values, tz),
        None,
    )
    return _continued(query, values["page_token"]) if values["page_token"] else query


def _continued(query: Query, token: str) -> Query:
    """Return a query from where the page before ended. Errors: ApiError."""
    try:
        encoded = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        mark = msgspec.msgpack.decode(encoded, type=Mark)
    except (NotBase64, ValueError, msgspec.DecodeError):
        raise ApiError(BAD_REQUEST, "page_token: it is not a `next_page_token`") from None
    if mark != _checked(mark):
        raise ApiError(BAD_REQUEST, "page_token: it is damaged")
    if mark.query != query.fingerprint:
        message = "page_token: it belongs to other parameters; only `limit` may differ"
        raise ApiError(BAD_REQUEST, message)
    # A range that ends now has grown since the first page, and does not end later than that.
    if not query.first - LATER <= mark.first <= mark.minute < mark.end <= query.end:
        raise ApiError(BAD_REQUEST, "page_token: it is not a `next_page_token`")
    return query._replace(first=mark.first, end=mark.end, behind=mark)


def _checked(mark: Mark) -> Mark:
    """Return a mark with its check: a token that lost a letter would name another place."""
    bare = msgspec.structs.replace(mark, check=b"")
    check = blake2b(msgspec.msgpack.encode(bare), digest_size=4).digest()
    return msgspec.structs.replace(bare, check=check)


def _fingerprint(values: Mapping[str, Any], tz: ZoneInfo) -> bytes:
    names = ("timeframe", "start", "end", "sort", "fill")
    symbols = {normalize_symbol(each) for each in values["symbols"].split(",")} - {""}
    parts = [*sorted(symbols), tz.key, *(values[each] for each in names)]
    return blake2b(msgspec.msgpack.encode(parts), digest_size=8).digest()


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        message = f"tz: {name[:SHOWN]!r} is not a time zone such as America/New_York or UTC"
        raise ApiError(BAD_REQUEST, message) from None


def _moment(
    name: Literal["start", "end"], text: str, tz: ZoneInfo, *, last: bool = False
) -> int | None:
    """Return a time in microseconds; None if the text is empty. Errors: ApiError.

    Arguments:
        last: a day means its last microsecond, not its first.
    """
    if not text:
        return None
    if _MICROSECONDS.fullmatch(text):
        return min(int(text), LATEST_US)
    try:
        if _DAY.fullmatch(text):
            day = date.fromisoformat(text)
            return _midnight(day + timedelta(days=1), tz) - 1 if last else _midnight(day, tz)
        if _TIME.fullmatch(text):
            # A plus sign that the client did not escape arrives as a space.
            moment = datetime.fromisoformat(f"{text[:11]}{text[11:].upper().replace(' ', '+')}")
            if moment.tzinfo is not None:
                return min((moment - _EPOCH) // timedelta(microseconds=1), LATEST_US)
    except ValueError:
        pass
    except OverflowError:
        return LATEST_US
    raise ApiError(BAD_REQUEST, f"{name}: {text[:SHOWN]!r} is not {TIMES}")


def _midnight(day: date, tz: ZoneInfo) -> int:
    moment = datetime.combine(day, time(), tz)
    return min((moment - _EPOCH) // timedelta(microseconds=1), LATEST_US)
