"""Reads prices to publish: JSON objects, one a line, a JSON array, or CSV with a header."""

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, Literal, NamedTuple

import msgspec

TEXTS = {"symbol", "kind", "id", "status", "reason"}
"""Columns of a CSV file that are texts whatever they look like."""

NAMES = {"timestamp": "ts", "time": "ts", "quantity": "size", "qty": "size"}
"""Common headers, and the fields that they stand for."""

UNITS = {"timestamp_s": 6, "timestamp_ms": 3, "timestamp_us": 0, "timestamp_ns": -3}
"""The headers of recorded trades as `FEED=replay:` reads them, and the digits up to microseconds."""

BATCH, BATCH_BYTES = 500, 256 * 1024
"""Objects and bytes that are sent together. A server takes frames of 1 MiB."""

MAX_OBJECT_BYTES = 4 * 1024
"""Bytes of one object that a server takes."""

CHUNK = 64 * 1024
"""Bytes read at once."""

_decode = msgspec.json.Decoder(type=dict[str, msgspec.Raw]).decode


_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number of JSON (RFC 8259 §6)."""

_DECIMAL = re.compile(r"([0-9]{1,20})(?:\.([0-9]{0,20}))?", re.ASCII)


class Object(NamedTuple):
    """One object as JSON. `numbered`: it has a `seq`. `named`: it has an `id`, or is not a trade."""

    text: str
    numbered: bool
    named: bool = False

    def add(self, fields: str) -> str:
        """Return the text with more fields. Of two fields with one name, the last counts."""
        return f"{self.text[:-1]},{fields}}}"


class Problem(NamedTuple):
    """The reason why a line cannot be published."""

    code: Literal["bad_json", "too_large"]
    message: str


NOT_UTF8 = Problem("bad_json", "not UTF-8")


class Entry(NamedTuple):
    """The content of one line of a file, or of one place in an array, from 1."""

    line: int
    content: Object | Problem


def read_batches(file: BinaryIO, send: Callable[[list[Entry]], None]) -> None:
    """Send the objects of a file, up to BATCH at once, as soon as they are there: a pipe may pause.

    It runs in a thread, as reading and `send` may wait. `file` is not buffered: a read returns what a
    pipe holds, and does not wait for more.
    """
    batch: list[Entry] = []
    size = 0

    def flush() -> None:
        nonlocal size
        if batch:
            send([*batch])
            batch.clear()
            size = 0

    for entry in read_entries(_lines(file, flush)):
        batch.append(entry)
        size += len(entry.content[0])
        if len(batch) == BATCH or size >= BATCH_BYTES:
            flush()
    flush()


def _lines(file: BinaryIO, before_wait: Callable[[], None]) -> Iterator[str]:
    pieces: list[bytes] = []
    while chunk := file.read(CHUNK):
        first, *others = chunk.split(b"\n")
        pieces.append(first)
        for other in others:
            yield _text(pieces)
            pieces = [other]
        before_wait()
    yield _text(pieces)


def _text(pieces: Iterable[bytes]) -> str:
    """Return a line. Bytes that are not UTF-8 become surrogates, so that they can be told."""
    return b"".join(pieces).decode(errors="surrogateescape")


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Return each object. CSV begins with a header, JSON with a brace or bracket."""
    rows = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(rows, None)
    if first is None:
        return
    start = first[1].removeprefix("\ufeff").lstrip()
    numbered = chain([(first[0], start)], rows)
    if start.startswith("["):
        yield from _read_array("\n".join(line for _, line in numbered))
    elif start.startswith("{"):
        for number, line in numbered:
            yield Entry(number, _read_object(line.strip()))
    else:
        yield from _read_csv(numbered)


def _read_array(text: str) -> Iterator[Entry]:
    try:
        body = text.encode(errors="surrogateescape")
        objects = msgspec.json.decode(body, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        yield Entry(1, Problem("bad_json", f"the array is not JSON: {error}"))
        return
    for number, each in enumerate(objects, 1):
        yield Entry(number, _read_object(_text([bytes(each)])))


def _read_object(text: str) -> Object | Problem:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        # With a replacement for such bytes, two ids could become one.
        return NOT_UTF8
    if size > MAX_OBJECT_BYTES:
        return Problem("too_large", f"an object has at most {MAX_OBJECT_BYTES} bytes")
    try:
        fields = _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return Problem("bad_json", str(error))
    if not fields:
        return Problem("bad_json", "an empty object")
    # To the server, null is a field that is not there.
    given = {name: bytes(value) for name, value in fields.items() if bytes(value) != b"null"}
    named = "id" in given or given.get("kind", b'"trade"') != b'"trade"'
    return Object(text, "seq" in given, named)


def _read_csv(numbered: Iterator[tuple[int, str]]) -> Iterator[Entry]:
    """Return the rows behind the header as objects. An empty field is left out."""
    number, header = next(numbered)
    names = [name.strip().lower() for name in _cells(header)]
    if "symbol" not in names:
        shown = header.strip()[:80]
        problem = f"neither JSON nor a CSV header with `symbol`: {shown!r}"
        yield Entry(number, Problem("bad_json", problem))
        return
    for number, line in numbered:
        row = _cells(line)
        if len(row) != len(names):
            problem = f"{len(row)} fields instead of {len(names)}"
            yield Entry(number, Problem("bad_json", problem))
        else:
            try:
                text = msgspec.json.encode(dict(_fields(names, row))).decode()
            except UnicodeEncodeError:
                yield Entry(number, NOT_UTF8)
            else:
                yield Entry(number, _read_object(text))


def _cells(line: str) -> list[str]:
    """Return a row's fields; none if the csv module refuses it, as it does fields over 128 KiB."""
    try:
        return next(csv.reader([line]), [])
    except csv.Error:
        return []


def _fields(names: Iterable[str], row: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name, text in zip(names, map(str.strip, row), strict=True):
        field = NAMES.get(name, name)
        if not text:
            continue
        if field in TEXTS:
            yield field, text
        elif field in UNITS:
            yield "ts", _microseconds(text, UNITS[field])
        else:
            yield field, _number(text)


def _microseconds(text: str, digits: int) -> msgspec.Raw | str:
    """Return whole microseconds, rounded down; another text as it is, for the server to refuse. Without
    the field, the server would take the present time.
    """
    found = _DECIMAL.fullmatch(text)
    if found is None:
        return text
    whole, fraction = found[1], found[2] or ""
    shown = whole + fraction[:digits].ljust(digits, "0") if digits >= 0 else whole[:digits]
    return msgspec.Raw(str(int(shown or "0")).encode())


def _number(text: str) -> msgspec.Raw | str:
    """Return a number as it is written; another text as it is, for the server to refuse."""
    return msgspec.Raw(text.encode()) if _NUMBER.fullmatch(text) else text
