"""Reads prices to publish: JSON objects, one a line, a JSON array, or CSV with a header."""

import csv
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, BinaryIO, NamedTuple

import msgspec

TEXTS = {"symbol", "kind", "id", "status", "reason"}
"""Columns of a CSV file that are texts whatever they look like."""

NAMES = {"timestamp": "ts", "time": "ts", "timestamp_us": "ts", "quantity": "size", "qty": "size"}
"""Common headers, and the fields that they stand for."""

MILLISECONDS = "timestamp_ms"
"""The header of recorded trades as `FEED=replay:` reads them."""

BATCH = 500
"""Objects that are sent together: 50 KB."""

CHUNK = 64 * 1024
"""Bytes read at once."""

_decode = msgspec.json.Decoder(type=dict[str, Any]).decode


class Entry(NamedTuple):
    """One object with the line where it stands, from 1; or, instead of the object, what is wrong."""

    line: int
    content: dict[str, Any] | str


def read_batches(file: BinaryIO, send: Callable[[list[Entry]], None]) -> None:
    """Send the objects of a file, up to BATCH at once, as soon as they are there: a pipe may pause.

    It runs in a thread, as reading and `send` may wait. `file` is not buffered: a read returns what a
    pipe holds, and does not wait for more.
    """
    batch: list[Entry] = []

    def flush() -> None:
        if batch:
            send([*batch])
            batch.clear()

    def lines() -> Iterator[str]:
        rest = b""
        while chunk := file.read(CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
            flush()
        yield rest.decode(errors="replace")

    for entry in read_entries(lines()):
        batch.append(entry)
        if len(batch) == BATCH:
            flush()
    flush()


def read_entries(lines: Iterable[str]) -> Iterator[Entry]:
    """Return each object. CSV begins with a header, JSON with a brace or bracket."""
    rows = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    first = next(rows, None)
    if first is None:
        return
    start = first[1].removeprefix("\ufeff").lstrip()
    numbered = chain([(first[0], start)], rows)
    if start.startswith("["):
        yield from _read_array("".join(line for _, line in numbered))
    elif start.startswith("{"):
        for number, line in numbered:
            yield Entry(number, _read_object(line))
    else:
        yield from _read_csv(numbered)


def _read_array(text: str) -> Iterator[Entry]:
    try:
        objects = msgspec.json.decode(text, type=list[msgspec.Raw])
    except (msgspec.DecodeError, RecursionError) as error:
        yield Entry(1, f"the array is not JSON: {error}")
        return
    for number, each in enumerate(objects, 1):
        yield Entry(number, _read_object(bytes(each)))


def _read_object(text: str | bytes) -> dict[str, Any] | str:
    try:
        return _decode(text)
    except (msgspec.DecodeError, RecursionError) as error:
        return str(error)


def _read_csv(numbered: Iterator[tuple[int, str]]) -> Iterator[Entry]:
    """Return the rows behind the header as objects. An empty field is left out."""
    number, header = next(numbered)
    names = [name.strip().lower() for name in next(csv.reader([header]), [])]
    if "symbol" not in names:
        yield Entry(number, f"neither JSON nor a CSV header with `symbol`: {header.strip()[:80]!r}")
        return
    for number, line in numbered:
        row = next(csv.reader([line]))
        if len(row) != len(names):
            yield Entry(number, f"{len(row)} fields instead of {len(names)}")
        else:
            yield Entry(number, dict(_fields(names, row)))


def _fields(names: Iterable[str], row: Iterable[str]) -> Iterator[tuple[str, Any]]:
    for name, text in zip(names, map(str.strip, row), strict=True):
        field = NAMES.get(name, name)
        if not text:
            continue
        if field in TEXTS:
            yield field, text
        elif field == MILLISECONDS and text.isdigit():
            yield "ts", int(text) * 1000
        else:
            yield field, _number(text)


def _number(text: str) -> int | float | str:
    """Return the number, or the text if it is not one, for the server to refuse by its line."""
    try:
        return int(text) if text.lstrip("-").isdigit() else float(text)
    except ValueError:
        return text
