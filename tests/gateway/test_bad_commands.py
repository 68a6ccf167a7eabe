"""Ids that are echoed, and the refusal of text that is not a command."""

import time

import pytest

from tests.gateway.wire import Client


@pytest.mark.parametrize(
    "id", [0, -1, 2**53, 2**63 - 1, 10**30, "", "x" * 64, "\u00e9\U0001f600" * 32, '"\\\n']
)
def test_id_is_echoed(server, id):
    """An integer or a string of at most 64 characters comes back as it was sent."""
    with Client(server) as client:
        before = time.time_ns() // 1000
        answer = client.ask("ping", id=id)
        assert answer.keys() == {"type", "id", "ts"}
        assert (answer["type"], answer["id"]) == ("pong", id)
        assert before <= answer["ts"] <= time.time_ns() // 1000


def test_no_id_is_no_id(server):
    """A command without an id gets answers without one, of all kinds."""
    with Client(server) as client:
        assert "id" not in client.ask("ping")
        assert "id" not in client.ask("subscribe", symbols=["NOPE"])
        assert "id" not in client.ask("subscribe")
        assert "id" not in client.ask("auth", token="bad")


@pytest.mark.parametrize("id", ["x" * 65, None, True, 1.5, 1e3, [1], {"a": 1}])
def test_any_other_id_is_a_bad_command(server, id):
    """A value that is not an id is neither accepted nor echoed."""
    with Client(server) as client:
        answer = client.ask("ping", id=id)
        assert (answer["type"], answer["code"]) == ("error", "bad_command")
        assert "id" not in answer
        assert client.is_answered()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "hello",
        '"hello',
        "{",
        '{"action":"ping"',
        '{"action":"ping"} {}',
        "nul",
        "NaN",
        "{'action':'ping'}",
        '\ufeff{"action":"ping"}',
        '{"action":"ping","id":"\ud800"}',
        '{"action":"ping","id":01}',
        "[" * 10_000,
        '{"a":' * 3000,
        '[{"action":"ping"}',
        '{"action":"fly"',
        '{"action":"subscribe","symbols":5',
    ],
)
def test_what_is_no_json_is_bad_json(server, text):
    """Text that is not one JSON value is refused as such, and the connection goes on."""
    with Client(server) as client:
        client.connection.send(text.replace("\ud800", "\\ud800"))
        answer = client.answer()
        assert (answer["type"], answer["code"]) == ("error", "bad_json")
        assert client.is_answered()


def test_half_a_surrogate_pair_is_called_so(server):
    """Half a surrogate pair is refused also at the text's end, where the text looks cut off."""
    with Client(server) as client:
        for text in ('{"action":"ping","id":"\\ud800"}', '{"id":"\\udbff","action":"ping"}'):
            client.connection.send(text)
            assert "surrogate" in client.answer()["message"]


@pytest.mark.parametrize(
    "command",
    [
        '{"action":"fly","id":5}',
        '{"action":"","id":5}',
        '{"action":null,"id":5}',
        '{"id":5}',
        '{"action":"PING","id":5}',
        '{"id":5,"action":"subscribe"}',
        '{"id":5,"action":"auth"}',
        '{"id":5,"action":"subscribe","symbols":"AAPL"}',
        '{"id":5,"action":"subscribe","symbols":[]}',
        '{"id":5,"action":"subscribe","symbols":["AAPL",5]}',
        '{"id":5,"action":"subscribe","symbols":null}',
        '{"id":5,"action":"auth","token":5}',
    ],
)
def test_json_that_is_no_command_is_a_bad_command_with_its_id(server, command):
    """Unknown actions, missing fields and wrong types are refused with the sender's id."""
    with Client(server) as client:
        client.connection.send(command)
        answer = client.answer()
        assert (answer["type"], answer["code"]) == ("error", "bad_command")
        assert answer["id"] == 5
        assert client.is_answered()


@pytest.mark.parametrize("action", ["fly", "ping"])
def test_endless_depth_is_survived(server, action):
    """Text nested deeper than any command is refused, or answered if the depth is in an unknown field:
    Python versions differ in their limits.
    """
    with Client(server) as client:
        client.connection.send(f'{{"action":"{action}","deep":{"[" * 8000}{"]" * 8000}}}')
        answer = client.answer()
        assert answer.get("code") in {"bad_json", "bad_command"} or (
            (action, answer["type"]) == ("ping", "pong")
        )
        assert client.is_answered()


@pytest.mark.parametrize("text", ["[]", '["ping"]', "5", '"ping"', "null", "true", "{}"])
def test_json_that_is_no_object_is_a_bad_command(server, text):
    """JSON values that are not objects are refused."""
    with Client(server) as client:
        client.connection.send(text)
        answer = client.answer()
        assert (answer["type"], answer["code"]) == ("error", "bad_command")
        assert client.is_answered()


def test_limited_commands_need_not_be_readable(throttled):
    """Beyond the rate, even text of endless depth is only `rate_limited`. The connection goes on."""
    with Client(throttled) as client:
        for _ in range(2):
            client.ask("ping")
        client.connection.send('{"deep":' + "[" * 10_000)
        answer = client.answer()
        assert (answer["type"], answer["code"]) == ("error", "rate_limited")
        assert "id" not in answer
