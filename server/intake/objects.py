"""Reads the objects that publishers send, in NDJSON or as a JSON array, one by one."""

import re
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import islice
from typing import Annotated, Literal

import msgspec
import structlog
from msgspec import UNSET, Meta

from server.intake.answer import INTERNAL_ERROR, Answer, Code, Reason, Refused, Rejection
from server.quotes.instrument import LARGEST_WHOLE, is_symbol, normalize_symbol
from server.quotes.messages import MarketState
from server.quotes.quote import to_microseconds
from server.quotes.snapshot import LATEST_US

MAX_BATCH_BYTES = 1024 * 1024
"""Bytes of one batch, before and after decompression: 12,000 trades."""

MAX_OBJECTS = 50_000
"""Objects of one batch. The shortest have 25 bytes. The answer to empty ones would be far larger."""

MAX_PARTS = MAX_BATCH_BYTES // 8
"""Commas of an array, or lines: three times those of the shortest objects. More is not of objects."""

MAX_OBJECT_BYTES = 4 * 1024
"""Bytes of one object: ten times the longest that is of use."""

MAX_ID_LENGTH = 64
"""Characters of a trade's `id`."""

MAX_MESSAGE_LENGTH = 200
"""Characters of a rejection's message, which may repeat the publisher's text. Answers are kept."""

MAX_REASON_LENGTH = 100
"""Characters of a status' `reason`, which every subscriber gets."""

EARLIEST_US = 10**14
"""March 1973 in microseconds. A smaller number is a time in milliseconds or seconds."""

FUTURE_US = 5_000_000
"""Microseconds by which an event may be ahead of this server's clock."""

log = structlog.get_logger()

Size = int | float
WholeId = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Published(msgspec.Struct, gc=False):
    """One object. Which of the fields it has depends on `kind`; others are ignored."""

    symbol: str
    kind: Literal["trade", "quote", "status", "cancel", "correct"] = "trade"
    price: float | None = None
    size: Size | None = None
    ts: int | Annotated[datetime, Meta(tz=True)] | None = None
    seq: Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)] | None = None
    id: Annotated[str, Meta(min_length=1, max_length=MAX_ID_LENGTH)] | WholeId | None = None
    bid: float | None = None
    ask: float | None = None
    bid_size: Size | None = None
    ask_size: Size | None = None
    status: MarketState | None = None
    reason: Annotated[str, Meta(max_length=MAX_REASON_LENGTH)] = ""


class Line(msgspec.Struct, frozen=True, gc=False):
    """One object of a batch, or the reason why it cannot be read.

    `number` counts from 1. `frame` is the number of its frame on a connection, 0 in a request.
    """

    number: int
    content: Published | Reason
    frame: int = 0

    @property
    def is_status(self) -> bool:
        """Whether it is a status, which clients see behind all prices before it."""
        return isinstance(self.content, Published) and self.content.kind == "status"

    def judge(self, judge: Callable[[Published], None], answer: Answer, **about: str) -> bool:
        """Let `judge` count the object. If it does not count, note the reason in `answer`.

        Return whether it counts. `about` is what the log says of the batch after a fault.
        """
        try:
            if isinstance(self.content, Published):
                judge(self.content)
                return True
            reason = self.content
        except Refused as refused:
            reason = refused.reason
        except Exception:
            # A fault of the server costs neither the other objects nor the feed.
            log.exception("published object failed", line=self.number, **about)
            reason = INTERNAL_ERROR
        answer.rejected.append(self.reject(reason))
        return False

    def reject(self, reason: Reason) -> Rejection:
        """Return that this object does not count."""
        code, message = reason
        if len(message) > MAX_MESSAGE_LENGTH:
            message = message[: MAX_MESSAGE_LENGTH - 1] + "…"
        return Rejection(self.number, code, message, self.frame or UNSET)


_FORMS: dict[str, tuple[Code, str]] = {
    "symbol": ("bad_json", "a text"),
    "kind": ("bad_json", "trade, quote, status, cancel or correct"),
    "seq": ("bad_json", f"a whole number from 0 to {LARGEST_WHOLE}"),
    "id": ("bad_json", f"a text of 1 to {MAX_ID_LENGTH} characters, or a whole number of 64 bits"),
    "status": ("bad_json", "open, halted or closed"),
    "reason": ("bad_json", f"a text of up to {MAX_REASON_LENGTH} characters"),
    "price": ("bad_price", "a number"),
    "bid": ("bad_price", "a number"),
    "ask": ("bad_price", "a number"),
    "size": ("bad_size", "a number"),
    "bid_size": ("bad_size", "a number"),
    "ask_size": ("bad_size", "a number"),
    "ts": ("bad_time", "whole microseconds since 1970, or RFC 3339 with an offset or Z"),
}
"""The code for a field of the wrong type, and the right type."""

_HALF = re.compile(
    rb"\\u(?<!\\\\u)[dD](?:[89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD])[c-fC-F][0-9a-fA-F]{2})"
)
"""An escape of half a surrogate pair, which JSON allows (RFC 8259 §8.2). An escaped backslash before it
hides it.
"""

MOST_ESCAPES = 10_000
"""Escapes among which halves are looked for: 10 ms of work."""

_FIELD = re.compile(r" - at `\$\.(\w+)`$")
_BLANK = b" \t\r"

_object_decoder = msgspec.json.Decoder(Published)
_array_decoder = msgspec.json.Decoder(list[msgspec.Raw])
_any_decoder = msgspec.json.Decoder()


def read_batch(body: bytes, frame: int = 0) -> Iterator[Line]:
    """Return each object of a body: NDJSON, or an array if it begins with a bracket.

    An array that is not JSON is one line that cannot be read. Behind MAX_OBJECTS, one line stands for
    the rest.
    """
    body = body.removeprefix(b"\xef\xbb\xbf")
    is_array = body.lstrip()[:1] == b"["
    if body.count(b"," if is_array else b"\n") > MAX_PARTS:
        yield Line(1, Reason("too_large", f"more than {MAX_PARTS} parts are not objects"), frame)
        return
    try:
        texts = enumerate(map(bytes, _split(body)), 1) if is_array else _lines(body)
    except (ValueError, RecursionError) as error:
        yield Line(1, Reason("bad_json", f"the array is not JSON: {error}"), frame)
        return
    for number, text in islice(texts, MAX_OBJECTS):
        yield Line(number, read_object(text), frame)
    for number, _ in islice(texts, 1):
        rest = f"a batch has at most {MAX_OBJECTS} objects; none from this one on counts"
        yield Line(number, Reason("too_large", rest), frame)


def _split(body: bytes) -> list[msgspec.Raw]:
    """Return the objects of an array. Errors: ValueError, RecursionError."""
    try:
        return _array_decoder.decode(body)
    except msgspec.DecodeError:
        # A reason that was cut within an emoji costs its own object only: that is not UTF-8 then.
        if body.count(b"\\u") > MOST_ESCAPES or not _HALF.search(body):
            raise
        return _array_decoder.decode(_HALF.sub(b"\xff", body))


def _lines(body: bytes) -> Iterator[tuple[int, bytes]]:
    lines = enumerate(body.split(b"\n"), 1)
    return ((number, text) for number, line in lines if (text := line.strip(_BLANK)))


def read_object(text: bytes) -> Published | Reason:
    """Return one object, or why it cannot be read."""
    if len(text) > MAX_OBJECT_BYTES:
        return Reason("too_large", f"{len(text)} bytes are more than {MAX_OBJECT_BYTES}")
    try:
        found = _object_decoder.decode(text)
        found.symbol = normalize_symbol(found.symbol)
    except (ValueError, RecursionError) as error:
        return _unreadable(text, error)
    if not is_symbol(found.symbol):
        return Reason("unknown_symbol", "not a symbol")
    return found


def _unreadable(text: bytes, error: Exception) -> Reason:
    """Name the field of the wrong type, unless the text is not JSON at all."""
    try:
        found = _any_decoder.decode(text)
    except (ValueError, RecursionError) as syntax:
        if isinstance(syntax, UnicodeDecodeError) or _HALF.search(text):
            return Reason("bad_json", "a text is not UTF-8, or has half of a surrogate pair")
        return Reason("bad_json", f"{syntax}: a line must be one whole JSON object")
    if not isinstance(found, dict):
        return Reason("bad_json", "not a JSON object")
    if "symbol" not in found:
        return Reason("bad_json", "symbol is missing")
    field = _FIELD.search(str(error))
    if field is None or field[1] not in _FORMS:
        return Reason("bad_json", str(error))
    code, form = _FORMS[field[1]]
    return Reason(code, f"{field[1]} is not {form}")


def read_time(ts: int | datetime | None, now: int) -> int:
    """Return the event's time in microseconds, `now` without one. Errors: Refused."""
    if ts is None:
        return now
    time_us = to_microseconds(ts) if isinstance(ts, datetime) else ts
    if time_us < EARLIEST_US:
        raise Refused("bad_time", f"ts {ts} is not in microseconds since 1970{_unit(time_us, now)}")
    if time_us > LATEST_US:
        raise Refused("bad_time", f"ts {ts} is after the year 9999{_unit(time_us, now)}")
    if time_us > now + FUTURE_US:
        ahead = (time_us - now) / 1e6
        raise Refused("future", f"ts {ts} is {ahead:.0f} s ahead of the server's clock")
    return time_us


def _unit(time_us: int, now: int) -> str:
    """Return a guess at the unit of a time that is not in microseconds."""
    # In integers: a float cannot hold every time that a publisher may write.
    for unit, number in (("seconds", 1), ("milliseconds", 10**3), ("nanoseconds", 10**9)):
        # Within a factor of two of the present: from 1998 on.
        if now * number < 2 * time_us * 10**6 < now * number * 4:
            return f": it looks like {unit}"
    return ""
