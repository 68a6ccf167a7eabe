"""Objects as publishers write them, and the reasons why some do not count."""

import gc
import json
import random
import sys
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.intake.answer import Reason
from server.intake.market import Rules
from server.intake.objects import (
    MAX_BATCH_BYTES,
    MAX_MESSAGE_LENGTH,
    MAX_OBJECT_BYTES,
    MAX_OBJECTS,
    MAX_PARTS,
    Published,
    read_batch,
)
from server.intake.once import RecentIds
from server.intake.sources import MAX_SOURCES
from tests.intake.harness import NOW, SECOND, Desk, counts

GOOD = b'{"symbol":"AAPL","price":175.92,"size":100}'


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"price": "175.92"}, "bad_price"),
        ({"price": -1}, "bad_price"),
        ({"price": 0}, "bad_price"),
        ({"price": 0.004}, "bad_price"),
        ({"price": 1e14}, "bad_price"),
        ({"price": None}, "bad_price"),
        ({"price": True}, "bad_price"),
        ({"size": -1}, "bad_size"),
        ({"size": "100"}, "bad_size"),
        ({"size": 0.5}, "bad_size"),
        ({"size": 1e15}, "bad_size"),
        ({"ts": NOW // 1000}, "bad_time"),
        ({"ts": NOW // SECOND}, "bad_time"),
        ({"ts": NOW * 1000}, "bad_time"),
        ({"ts": -5}, "bad_time"),
        ({"ts": "yesterday"}, "bad_time"),
        ({"ts": "2026-11-26T09:30:00"}, "bad_time"),
        ({"ts": 1764012345.5}, "bad_time"),
        ({"ts": NOW + 6 * SECOND}, "future"),
        ({"ts": "2126-11-26T09:30:00Z"}, "future"),
        ({"symbol": "NONE"}, "unknown_symbol"),
        ({"symbol": ""}, "unknown_symbol"),
        ({"symbol": "*"}, "unknown_symbol"),
        ({"symbol": 5}, "bad_json"),
        ({"kind": "rumour"}, "bad_json"),
        ({"seq": -1}, "bad_json"),
        ({"id": "x" * 65}, "bad_json"),
        ({"id": ""}, "bad_json"),
        ({"kind": "quote"}, "bad_price"),
        ({"kind": "quote", "bid": 0}, "bad_price"),
        ({"kind": "quote", "ask": 5, "ask_size": -1}, "bad_size"),
        ({"kind": "status"}, "bad_json"),
        ({"kind": "status", "status": "asleep"}, "bad_json"),
        ({"kind": "cancel"}, "bad_json"),
        ({"kind": "cancel", "id": "never"}, "unknown_trade"),
        ({"kind": "correct", "id": "never", "price": 5}, "unknown_trade"),
    ],
)
def test_bad_object_is_named_by_line(fields: dict[str, Any], code: str) -> None:
    """The good lines around it count."""
    bad = json.dumps({"symbol": "AAPL", "price": 175.92, "size": 1, **fields}).encode()
    answer = Desk().post(b"\n".join([GOOD, b"", bad, GOOD]))
    assert counts(answer) == (2, 0, 0, 0, [code])
    assert answer.rejected[0].line == 3


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", "bad_json"),
        (b"17", "bad_json"),
        (b"null", "bad_json"),
        (b"{}", "bad_json"),
        (b'{"symbol":"AAPL","price":"x"', "bad_json"),
        (b'{"symbol":"AAPL","price":1e999}', "bad_json"),
        (b'{"symbol":"\xff","price":1}', "bad_json"),
        (b"{" * 3000, "bad_json"),
        (b'{"symbol":"' + b"x" * MAX_OBJECT_BYTES + b'"}', "too_large"),
    ],
)
def test_line_that_is_not_an_object_is_named(line: bytes, code: str) -> None:
    """The line after it counts."""
    answer = Desk().post(line + b"\n" + GOOD)
    assert counts(answer) == (1, 0, 0, 0, [code])


EXTREMES = [
    *("1" + "0" * 400, "-1" + "0" * 400, "1" + "0" * 3900, "1e308", "-1e308", "5e-324", "1e999"),
    *("-0", "-0.0", "NaN", "Infinity", '"NaN"', '"1e400"', "true", "{}", "[[]]", '"\\ud800"'),
    *(str(2**53), str(2**63), str(2**64), str(-(2**63) - 1), '""'),
    *('"0001-01-01T00:00:00+23:59"', '"9999-12-31T23:59:59.999999-23:59"'),
]
"""Values in JSON that a field may not hold."""


@pytest.mark.parametrize("kind", ["trade", "quote", "status", "cancel", "correct"])
@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD", "CLK0"])
def test_extreme_values_are_answered_by_line(kind: str, symbol: str) -> None:
    """Each field takes or refuses each of them, and the line behind it counts."""
    desk = Desk()
    desk.publish({"symbol": symbol, "price": 5, "size": 1, "id": "a"})
    whole = {"symbol": symbol, "kind": kind, "price": 5, "bid": 5, "status": "open", "id": "a"}
    for field, value in product(Published.__struct_fields__, EXTREMES):
        others = json.dumps({name: each for name, each in whole.items() if name != field})
        answer = desk.post(f'{others[:-1]},"{field}":{value}}}\n'.encode() + GOOD)
        assert sum(counts(answer)[:4]) + len(answer.rejected) == 2
        assert {each.line for each in answer.rejected} <= {1}
        assert all(len(each.message) <= MAX_MESSAGE_LENGTH for each in answer.rejected)
        if field == "ts" and len(value) > 400:
            assert [each.code for each in answer.rejected] == ["bad_time"]
        assert b"-0.0," not in msgspec.json.encode(desk.quotes[symbol])


def test_wrong_unit_of_time_is_named() -> None:
    """A publisher that sends milliseconds reads so in the answer."""
    answer = Desk().publish({"price": 1, "ts": NOW // 1000}, {"price": 1, "ts": NOW * 1000})
    assert "milliseconds" in answer.rejected[0].message
    assert "nanoseconds" in answer.rejected[1].message


def test_array_counts_its_objects() -> None:
    """In an array, `line` is the object's place, on however many lines it is written."""
    answer = Desk().post(b'[\n{"symbol":"AAPL",\n"price":1},\n5,' + GOOD + b"]")
    assert counts(answer) == (2, 0, 0, 0, ["bad_json"])
    assert answer.rejected[0].line == 2


def test_cut_array_counts_nothing() -> None:
    """Half an array may be half an object, so nothing of it counts."""
    assert counts(Desk().post(b"[" + GOOD)) == (0, 0, 0, 0, ["bad_json"])


def test_number_of_objects_is_bounded() -> None:
    """One line stands for those behind the bound, and an array of numbers is refused as a whole."""
    answer = Desk().post(b"1\n" * (MAX_OBJECTS + 5))
    assert len(answer.rejected) == MAX_OBJECTS + 1
    last = answer.rejected[-1]
    assert (last.line, last.code) == (MAX_OBJECTS + 1, "too_large")
    assert counts(Desk().post(b"1\n" * MAX_OBJECTS))[4][-1] == "bad_json"
    answer = Desk().post(b"[" + b"1," * (MAX_PARTS + 1) + b"1]")
    assert counts(answer) == (0, 0, 0, 0, ["too_large"])
    assert counts(Desk().post(b"\n" * (MAX_PARTS + 1)))[4] == ["too_large"]
    shortest = b'{"symbol":"A","price":1}'
    array = b"[" + b",".join([shortest] * (MAX_BATCH_BYTES // len(shortest) - 1)) + b"]"
    assert {each.code for each in Desk().post(array).rejected} == {"unknown_symbol"}


def test_spelling_does_not_matter() -> None:
    """Symbols are upper-cased; a mark of byte order, carriage returns and blanks are skipped."""
    desk = Desk()
    body = b'\xef\xbb\xbf {"symbol":" aapl","price":1}\r\n\r\n{"symbol":"btc/usd","price":2.5}\r\n'
    assert counts(desk.post(body)) == (2, 0, 0, 0, [])
    assert desk.quotes["BTC/USD"].current_price == 2.5


def test_token_limits_the_symbols() -> None:
    """A token may name symbols, and prefixes that end in an asterisk."""
    desk = Desk()
    objects = [{"symbol": each, "price": 5} for each in ("AAPL", "BTC/USD", "CLK0")]
    answer = desk.publish(*objects, symbols=["AAPL", "BTC*"])
    assert counts(answer) == (2, 0, 0, 0, ["not_allowed"])


def test_prices_and_sizes_fit_the_instrument() -> None:
    """A price is rounded to the tick, a future may fall below zero, and a size may be a fraction."""
    desk = Desk()
    desk.publish({"price": 175.92000000000002, "size": 100.0})
    desk.publish(
        {"symbol": "CLK0", "price": -37.63}, {"symbol": "BTC/USD", "price": 1, "size": 0.1}
    )
    desk.publish({"symbol": "BTC/USD", "price": 1, "size": 0.2})
    assert desk.quotes["AAPL"].current_price == 175.92
    assert desk.quotes["AAPL"].volume == 100
    assert desk.quotes["CLK0"].current_price == -37.63
    assert desk.quotes["BTC/USD"].volume == 0.3


@pytest.mark.parametrize("field", ["price", "bid", "ask"])
def test_price_has_a_bound_on_both_sides(field: str) -> None:
    """9·10¹³, the largest that has four decimals as a float."""
    desk = Desk()
    kind = {"kind": "trade" if field == "price" else "quote", "symbol": "CLK0"}
    for bound in (9e13, -9e13):
        assert counts(desk.publish({**kind, field: bound}))[0] == 1
        for beyond in (bound * 1.0001, bound * 1e9):
            assert counts(desk.publish({**kind, field: beyond}))[4] == ["bad_price"]


FIELDS = st.sampled_from(Published.__struct_fields__)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(FIELDS, inner),
    max_leaves=6,
)
LINES = st.one_of(
    JSON.map(lambda value: json.dumps(value).encode()),
    st.binary(max_size=40).map(lambda data: data.replace(b"\n", b"")),
    st.just(GOOD),
)


@settings(max_examples=300)
@given(st.lists(LINES, max_size=12), st.booleans())
def test_every_line_is_counted_or_named(lines: list[bytes], array: bool) -> None:
    """Whatever comes, the answer accounts for each object once, and names the lines that failed."""
    body = b"[" + b",".join(lines) + b"]" if array else b"\n".join(lines)
    read = [each.number for each in read_batch(body)]
    answer = Desk().post(body)
    accepted, duplicate, late, held, codes = counts(answer)
    assert accepted + duplicate + late + held + len(codes) == len(read)
    assert {each.line for each in answer.rejected} <= set(read)
    assert len(set(read)) == len(read)


def test_memory_stays_flat_under_fuzzed_bodies() -> None:
    """Names, ids, numbers and prices at random leave nothing behind beyond the bounds."""
    desk, chance = Desk(Rules(band=0.01, trades_memory=100_000)), random.Random(7)
    desk.intake.ids = RecentIds(most=500)

    def publish(batches: int) -> int:
        for _ in range(batches):
            lines = [
                {
                    "symbol": chance.choice(["AAPL", "CLK0", "BTC/USD", f"X{chance.random()}"]),
                    "kind": chance.choice(["trade", "trade", "quote", "cancel", "correct", "x"]),
                    "price": chance.choice([10, 11, chance.uniform(-5, 5000), "x"]),
                    "bid": chance.uniform(-1, 9),
                    "seq": chance.randrange(2**40),
                    "id": str(chance.randrange(10**6)),
                    "ts": NOW - chance.randrange(10**9),
                }
                for _ in range(40)
            ]
            source, epoch = f"s{chance.randrange(10**6)}", f"e{chance.randrange(10**6)}"
            answer = desk.post(json.dumps(lines).encode(), source=source, epoch=epoch)
            assert sum(counts(answer)[:4]) + len(answer.rejected) == len(lines)
            desk.pass_time(1)
        gc.collect()
        return sys.getallocatedblocks()

    publish(600)
    before = publish(200)
    assert publish(400) < before * 1.01 + 3000
    assert len(desk.intake.sources.all) <= MAX_SOURCES


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        (r"\ud83d", ["bad_json"]),
        (r"\uDE00", ["bad_json"]),
        (r"\ud83d\ud83d\ude00", ["bad_json"]),
        (r"a\ud83dz\ude00", ["bad_json"]),
        (r"\ud83d\ude00", []),
        (r"\\ud83d", []),
    ],
)
def test_half_a_character_costs_its_own_object(text: str, codes: list[str]) -> None:
    """JSON allows half of a surrogate pair: a publisher's reason may be cut within an emoji."""
    good = '{"symbol":"AAPL","price":5}'
    halt = f'{{"kind":"status","symbol":"AAPL","status":"halted","reason":"{text}"}}'
    for body in (f"[{good},{halt},{good}]", f"{good}\n{halt}\n{good}"):
        lines = [*read_batch(body.encode())]
        assert [each.number for each in lines] == [1, 2, 3]
        wrong = {each.number: each.content for each in lines if isinstance(each.content, Reason)}
        assert [reason.code for reason in wrong.values()] == codes
        assert set(wrong) <= {2}


def test_many_escapes_of_an_array_that_is_not_json_are_left_alone():
    """To look for half a character in each takes too long."""
    body = b'["' + rb"\ud83d" * 150_000 + b'",{"symbol":"AAPL","price":5}]'
    assert [each.number for each in read_batch(body)] == [1]
