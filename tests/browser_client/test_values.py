"""`quotes.js` applies JSON Patch as RFC 6902 says, and reads MessagePack within its bounds."""

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonpatch
import msgspec
import pytest

from server.quotes.quote import PERCENT_DECIMALS, shown_decimals
from tests.browser_client.node import run

CASES = json.loads((Path(__file__).parent / "patches.json").read_text())["cases"]

MESSAGES: list[Any] = [
    None, True, False, 0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1,
    -1, -32, -33, -128, -129, -32768, -32769, -(2**31), -(2**31) - 1, -(2**53) + 1,
    0.0, 0.5, -175.92, 1e-8, 9e13, 1.7976931348623157e308,
    "", "a" * 31, "a" * 32, "é" * 200, "漢字😀", "x" * 70_000,
    [], list(range(15)), list(range(16)), list(range(70_000)), [[["deep"]]],
    {}, {"a": 1}, {str(n): n for n in range(20)}, {"__proto__": {"a": 1}, "constructor": 2},
    ["u", 1764012349678901, [["AAPL", [1040, 1047], 7, 175.92, 50000100, -1200]]],
]  # a table # fmt: skip

WRONG = [
    b"", b"\xc1", b"\xc4\x00", b"\xd4\x00\x00", b"\xd9",
    b"\xd9\x05abc", b"\xda\x00", b"\xdb\x7f\xff\xff\xff",
    b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff\x00", b"\xdf\xff\xff\xff\xff", b"\x92\x00", b"\x81\xa1a",
    b"\xcb\x00\x00", b"\xcf\x00", b"\xa2\xff\xfe", b"\x00\x00", b"\x91" * 50 + b"\x00",
]  # a table # fmt: skip


def results(inputs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return what the client makes of each input."""
    answers: list[dict[str, Any]] = json.loads(run("values.mjs", json.dumps(inputs)))
    return answers


@pytest.fixture(scope="module")
def patched() -> dict[str, dict[str, Any]]:
    """Apply all patches in one process of Node."""
    answers = results([{"patch": [case["document"], case["patch"]]} for case in CASES])
    return {case["name"]: answer for case, answer in zip(CASES, answers, strict=True)}


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_patch(case, patched):
    """The result is as the RFC says, or the whole patch fails."""
    answer = patched[case["name"]]
    if case.get("fails"):
        assert "error" in answer
    else:
        assert answer == {"value": case["result"]}


def test_cases_are_named_once_and_agree_with_the_python_library():
    """Another implementation has the same results, so the cases are right."""
    names = [case["name"] for case in CASES]
    assert len(set(names)) == len(names) > 100
    for case in CASES:
        if "result" in case:
            assert jsonpatch.apply_patch(case["document"], case["patch"]) == case["result"], case[
                "name"
            ]


def test_message_pack_is_read():
    """Each type and size that the server's encoder writes is read, exactly."""
    answers = results([{"hex": msgspec.msgpack.encode(value).hex()} for value in MESSAGES])
    assert [answer.get("value", answer) for answer in answers] == MESSAGES


def test_broken_message_pack_is_refused():
    """A value that is cut off, too long, too deep or of another type is an error, at once."""
    for data, answer in zip(WRONG, results([{"hex": data.hex()} for data in WRONG]), strict=True):
        assert "error" in answer, data


def test_no_cut_of_a_message_is_read():
    """Each proper beginning of a message is an error, never another message."""
    data = msgspec.msgpack.encode(MESSAGES[-1])
    for answer in results([{"hex": data[:size].hex()} for size in range(len(data))]):
        assert "error" in answer


def test_derived_fields_are_the_server_s():
    """Change and percent are the same to the last bit, also of ties, tiny and negative prices."""
    ties: list[list[float]] = [[3200 + step, 3200] for step in range(-200, 200)]
    ties += [[12.5 + step / 1000, 12.5] for step in range(-200, 200)]
    others: list[list[float]] = [
        [1e-8, 3e-8],
        [-37.63, 18.27],
        [5, 0],
        [5, -3],
        [9e13, 0.01],
        [99999.99, 100000],
        [0, 7],
    ]
    chance = random.Random(18)
    drawn: list[list[float]] = [
        [round(chance.uniform(-10, 1000), chance.randrange(9)), round(chance.uniform(0, 900), 2)]
        for _ in range(3000)
    ]
    prices = [*ties, *others, *drawn]
    expected = [
        [
            round(price - base, max(shown_decimals(price), shown_decimals(base))),
            round((price - base) * 100 / base, PERCENT_DECIMALS) if base > 0 else None,
        ]
        for price, base in prices
    ]
    # JavaScript writes large numbers without a point.
    printed = json.loads(run("derived.mjs", json.dumps(prices)), parse_int=float)
    assert printed == expected
    unknown = [[None, 5], [5, None], [None, None]]
    assert json.loads(run("derived.mjs", json.dumps(unknown))) == [[None, None]] * 3
