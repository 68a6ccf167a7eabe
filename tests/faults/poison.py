"""Values that other programs could write to Redis or Postgres, drawn by Hypothesis."""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
from hypothesis import strategies as st
from redis import Redis, ResponseError

from bench.services import Postgres
from tests.processes import ServerProcess

VICTIMS = ["ABT", "IBM", "MMM"]
"""Symbols with spoilt values; all other symbols must go on."""

HASH, EPOCH, LEADER, WATCHED = (
    f"quotestream:{key}" for key in ("quotes", "epoch", "leader", "watched")
)

EDGES = [
    0,
    -1,
    1,
    2**31,
    2**53 - 2,
    2**53 - 1,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    10**18,
    10**400,
]


@dataclass
class Stores:
    """The stores that are spoilt, and the servers that use them."""

    redis: Redis
    postgres: Postgres
    database: str
    servers: list[ServerProcess]


Poison = tuple[str, Callable[[Stores], None]]
"""The description for a failure's report, and the act itself."""

texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=50)
scalars = st.one_of(
    st.none(), st.booleans(), st.sampled_from(EDGES), st.integers(), st.floats(), texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)
victims = st.sampled_from(VICTIMS)


def snapshots(symbol: str) -> dict[str, Any]:
    """Return a snapshot as instances and the cache write it."""
    return {
        "symbol": symbol, "name": symbol, "category": 1, "last_quote": 10.5, "base_price": 10.0,
        "market_cap": None, "price_decimals": 2, "made_up_price": False, "volume": 300, "version": 9,
        "quoted_at": 10**15, "ts": 10**15, "expires_at": 1e12,
    }  # a table # fmt: skip


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """A snapshot with one spoilt field, or an arbitrary value."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=50) | values.map(json.dumps).map(str.encode))
    document = snapshots(draw(victims))
    field = draw(st.sampled_from([*document]))
    return json.dumps(document | {field: draw(values)}).encode()


def in_redis(what: str, *words: Any) -> Poison:
    def act(stores: Stores) -> None:
        with suppress(ResponseError):  # a score is never NaN, and only a hash takes a field
            stores.redis.execute_command(*words)

    return f"{what}: {words!r:.300}", act


@st.composite
def keys(draw: st.DrawFn) -> Poison:
    """An arbitrary value, or a value of another type, in one of the keys."""
    key = draw(
        st.sampled_from([HASH, EPOCH, LEADER, WATCHED, *(f"market_data:{s}" for s in VICTIMS)])
    )
    number = st.sampled_from(EDGES).map(str)
    match draw(st.sampled_from(["text", "field", "meta", "member", "list"])):
        case "text":
            text = draw(st.binary(max_size=20) | number | texts | documents())
            return in_redis("text", "SET", key, text)
        case "field":
            field = draw(victims | texts.filter(lambda text: not text.isupper()))
            return in_redis("field", "HSET", HASH, field, draw(documents()))
        case "meta":
            mark = st.fixed_dictionaries({"epoch": scalars, "seq": scalars}).map(json.dumps)
            return in_redis("meta", "HSET", HASH, "meta", draw(mark | texts))
        case "member":
            score = draw(st.floats(allow_nan=False) | st.sampled_from(EDGES[:-1]))
            return in_redis("member", "ZADD", WATCHED, score, draw(victims | texts | st.binary()))
        case _:
            return in_redis(
                "list", "EVAL", "redis.call('DEL', KEYS[1]) redis.call('RPUSH', KEYS[1], 1)", 1, key
            )


@st.composite
def messages(draw: st.DrawFn) -> Poison:
    """A message on one of the channels: nearly a batch, of the present epoch or another."""
    if draw(st.booleans()):
        channel = draw(st.sampled_from(["price_updates", "market_data_invalidate"]))
        notice = st.fixed_dictionaries({"symbols": values, "probe": values}).map(json.dumps)
        data = draw(st.binary(max_size=50) | notice.map(str.encode) | documents())
        return in_redis("message", "PUBLISH", channel, data)
    number = st.sampled_from(EDGES[:-1]) | scalars.filter(lambda value: value != 10**400)
    move = [draw(victims), *(draw(number) for _ in range(6))]
    position = draw(st.integers(0, 5))
    listed = [[*snapshots(draw(victims)).values()][:-1]]
    listed[0][position] = draw(number)
    rest = [
        draw(number),
        [move],
        listed if draw(st.booleans()) else [],
        draw(texts),
        "",
        [draw(number), draw(number)],
    ]
    other = draw(number)
    of_now = draw(st.booleans())

    def publish(stores: Stores) -> None:
        epoch = int(stores.servers[0].metric("market_data_bus_epoch")) if of_now else other
        stores.redis.publish("price_updates", _msgpack([epoch, *rest]))

    return f"batch of {'this epoch' if of_now else other}: {rest!r:.300}", publish


def _msgpack(value: Any) -> bytes:
    try:
        return msgspec.msgpack.encode(value)
    except OverflowError:  # beyond 64 bits there is no such message
        return b"\xcf" + b"\xff" * 8


COLUMNS = {
    "category": (-(2**31), 2**31 - 1),
    "price_decimals": (-(2**15), 2**15 - 1),
    "market_cap": (-(2**63), 2**63 - 1),
    "volume": (-(2**63), 2**63 - 1),
    "version": (-(2**63), 2**63 - 1),
    "quoted_at": (-(2**63), 2**63 - 1),
    "changed_in": (-(2**63), 2**63 - 1),
}
"""The integers that Postgres takes."""

OTHER_COLUMNS = [
    "symbol", "name", "last_quote", "base_price", "made_up_price", "delisted", "watched_at",
]  # a table # fmt: skip


@st.composite
def columns(draw: st.DrawFn) -> Poison:
    """An arbitrary value that Postgres takes, in any column of a victim's row."""
    column = draw(st.sampled_from([*COLUMNS, *OTHER_COLUMNS]))
    if column in COLUMNS:
        low, high = COLUMNS[column]
        edges = [edge for edge in (low, high, *EDGES) if low <= edge <= high]
        value = str(draw(st.sampled_from(edges) | st.integers(low, high)))
    elif column in ("symbol", "name"):
        value = _literal(draw(texts))
    elif column == "watched_at":
        value = draw(st.sampled_from(["'infinity'", "'-infinity'", "NULL"]))
    elif column in ("last_quote", "base_price"):
        numbers = [
            "'NaN'",
            "'Infinity'",
            "'-Infinity'",
            "1e400",
            "-1e400",
            "1e-400",
            "0",
            "1.8e14 + 1",
        ]
        value = draw(st.sampled_from(numbers) | st.floats(allow_nan=False).map("'{}'".format))
    else:
        value = draw(st.sampled_from(["true", "false"]))
    victim = draw(victims)
    statement = f"UPDATE market_data SET {column} = {value} WHERE symbol = '{victim}'"

    def update(stores: Stores) -> None:
        with suppress(RuntimeError):  # a constraint is in the way, or another row has the symbol
            stores.postgres.sql(statement, stores.database)

    return statement, update


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


poisons = st.one_of(keys(), messages(), columns())
