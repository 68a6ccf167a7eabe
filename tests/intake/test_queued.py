"""The checks of an instance that does not judge agree with the judge's, and what passes them fits the
queue.
"""

import json
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.intake.objects import Line, Published, read_batch
from server.intake.queued import MOST_OBJECTS, Queued, check, decode_queued, encode_queued
from tests.intake.harness import NOW, Desk
from tests.intake.test_objects import EXTREMES, LINES

NEEDS_THE_REST = {"unknown_trade"}
"""Codes for mistakes that show only beside other objects."""


def queued(desk: Desk, body: bytes) -> tuple[dict[int, str], list[Line]]:
    """Return the codes of rejected lines, and the lines that pass, after a way through the queue."""
    checked = check(read_batch(body), desk, None, desk.now)
    objects = [each.content for each in checked.good if isinstance(each.content, Published)]
    assert len(objects) == len(checked.good)
    found = []
    for start in range(0, len(objects), MOST_OBJECTS):
        entry = Queued("sip", "1", "key", objects[start : start + MOST_OBJECTS])
        found += decode_queued(encode_queued(entry)).objects
    lines = [Line(each.number, one) for each, one in zip(checked.good, found, strict=True)]
    return {each.line: each.code for each in checked.answer.rejected}, lines


@pytest.mark.parametrize("kind", ["trade", "quote", "status", "cancel", "correct"])
@pytest.mark.parametrize("symbol", ["AAPL", "BTC/USD", "CLK0", "NEW"])
def test_extreme_values_are_refused_alike(kind: str, symbol: str) -> None:
    """Field by field, the publisher of a follower reads the same as the leader's."""
    whole = {"symbol": symbol, "kind": kind, "price": 5, "bid": 5, "status": "open", "id": "a"}
    for field, value in product(Published.__struct_fields__, EXTREMES):
        others = json.dumps({name: each for name, each in whole.items() if name != field})
        body = f'{others[:-1]},"{field}":{value}}}'.encode()
        desk = Desk()
        if symbol != "NEW":
            desk.publish({"symbol": symbol, "price": 5, "size": 1, "id": "a"})
        codes = {each.line: each.code for each in desk.post(body).rejected}
        found, _ = queued(desk, body)
        if set(codes.values()) <= NEEDS_THE_REST:
            assert found == {}, body
        else:
            assert found == codes, body


@settings(max_examples=300)
@given(st.lists(LINES, max_size=12))
def test_leader_judges_what_a_follower_took(lines: list[bytes]) -> None:
    """Whatever comes: the answer of the follower and then of the leader are that of one instance."""
    body, desk = b"\n".join(lines), Desk()
    expected = {each.line: each.code for each in Desk().post(body).rejected}
    found, passed = queued(desk, body)
    taken = desk.intake.take(passed, "sip", "1", None, NOW)
    late = {each.line: each.code for each in taken.answer.rejected}
    assert found | late == expected
    assert set(late.values()) <= NEEDS_THE_REST
