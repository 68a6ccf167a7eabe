"""A short lane of the fuzzer; `python -m tests.fuzz` runs millions."""

import trio

from tests.fuzz import fuzz

SEED, INPUTS = 20261124, 4000


def test_whatever_comes_is_answered_as_documented():
    """No input raises, none is answered in an undocumented way, and each kind of answer occurs."""
    seen = trio.run(fuzz, INPUTS, SEED).seen
    wanted = {"ack", "bad_command", "bad_json", "not_subscribed", "unauthorized", "unknown_symbol"}
    wanted |= {"bad resume", "recovered current", "recovered quote"}
    wanted |= {"pong", "opcode 0xa"} | {f"close {code}" for code in (1002, 1003, 1007, 1009)}
    assert wanted <= set(seen)
