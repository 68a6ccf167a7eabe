"""The update that the bare loop and the peers send: as long as the server's, in the same form."""

import json
from collections.abc import Callable
from time import time_ns
from typing import Any

import msgspec

from bench.forms import Form, MessagePack

VALUES = {
    "current_price": 175.92,
    "change": 0.42,
    "change_percent": 0.2393,
    "last_updated": "2026-11-24T12:00:00.123456Z",
    "volume": 50000300,
}
"""The fields that a trade within the day's range changes, in the wire's order."""

ROW: dict[str, tuple[int, float]] = {
    "current_price": (1, 175.92),
    "volume": (2, 48300),
    "last_updated": (4, -148213),
}
"""Their bits in a mask, and their values in a row. The client computes the others."""

Update = Callable[[str, int], str | bytes]
"""Returns one price change of a symbol, with the present time and a version. Bytes are binary."""


def updates(form: Form) -> Update:
    """Return a maker of price changes in `form`."""
    return _patches(form.fields) if form.name == Form.name else _rows(form)


def _patches(fields: str) -> Update:
    """Fill in a template, as encoding each patch anew would take the bare loop's time."""
    values = _chosen(VALUES, fields)
    operations = ",".join(
        f'{{"op":"replace","path":"/quotes/%s/{field}","value":{json.dumps(value)}}}'
        for field, value in values.items()
    )
    head = '{"type":"quotes_patch","ts":%d,"versions":{"%s":%d},"operations":['

    def update(symbol: str, version: int) -> str:
        names = (symbol,) * len(values)
        text = (head + operations + "]") % (time_ns() // 1000, symbol, version, *names)
        return f'{text},"since":{{"{symbol}":{version - 1}}}}}' if fields else text + "}"

    return update


def _rows(form: Form) -> Update:
    chosen = _chosen(ROW, form.fields)
    mask = sum(bit for bit, _ in chosen.values())
    # With chosen fields, the first bit stands for the first of them.
    mask = (1 << len(chosen)) - 1 if form.fields else mask
    values = [value for _, value in chosen.values()]
    encode: Callable[[Any], str | bytes] = msgspec.msgpack.encode
    if form.name != MessagePack.name:
        encode = lambda value: msgspec.json.encode(value).decode()  # noqa: E731 (one of two encoders)

    def update(symbol: str, version: int) -> str | bytes:
        told = [version - 1, version] if form.fields else version
        return encode(["u", time_ns() // 1000, [[symbol, told, mask, *values]]])

    return update


def _chosen(values: dict[str, Any], fields: str) -> dict[str, Any]:
    return {field: values[field] for field in fields.split(",") if field in values} or values
