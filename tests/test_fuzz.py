"""A short lane of the fuzzer; `python -m tests.fuzz` runs millions."""

import trio

from tests.fuzz.http import check_server, fuzz_http
from tests.fuzz.sessions import TYPES, fuzz
from tests.processes import WITHOUT_BUDGETS, ServerProcess

SEED, INPUTS, HTTP_INPUTS = 20261124, 4000, 4000


def test_every_type_of_message_is_known():
    """An answer of a type that the documents do not name would be found."""
    assert {"ack", "error", "pong", "quotes_patch", "reconnect", "status"} <= TYPES


def test_whatever_comes_is_answered_as_documented():
    """No input raises, none is answered in an undocumented way, and each kind of answer occurs."""
    seen = trio.run(fuzz, INPUTS, SEED).seen
    wanted = {"ack", "bad_command", "bad_json", "not_subscribed", "unauthorized", "unknown_symbol"}
    wanted |= {"bad resume", "recovered current", "recovered quote"}
    wanted |= {"pong", "opcode 0xa"} | {f"close {code}" for code in (1002, 1003, 1007, 1009)}
    assert wanted <= set(seen)


def test_whatever_comes_to_the_http_port_is_answered_as_documented(tmp_path):
    """Whole requests have their one answer, others a documented one or none; nothing is left."""
    with ServerProcess(tmp_path, **WITHOUT_BUDGETS) as server:
        seen = trio.run(fuzz_http, server.http_address, HTTP_INPUTS, SEED).seen
        check_server(server)
    wanted = {"200", "400 bad_request", "401 unauthorized", "403 forbidden", "404 unknown_symbol"}
    wanted |= {"405 method_not_allowed", "505 http_version_not_supported"}
    assert wanted <= set(seen)
