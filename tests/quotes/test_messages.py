"""Clients' messages: every text is a command or a refusal with its reason."""

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from server.quotes.messages import (
    JSON_COMMANDS,
    Auth,
    BadCommand,
    Ping,
    QuotesPatch,
    Resync,
    Status,
    Subscribe,
    Unsubscribe,
    encode,
)
from tests.commands import COMMANDS, FIELDS, example

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=70),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(), children, max_size=3)
    ),
    max_leaves=5,
)
nearly_commands = st.fixed_dictionaries(
    {"action": st.sampled_from([*COMMANDS, "fly"])},
    optional=dict.fromkeys(FIELDS, json_values) | {"symbols": json_values | st.lists(st.text())},
)


@pytest.mark.parametrize("action", COMMANDS)
def test_every_command_is_read(action):
    """A good command of each name is read as its type, with the fields that were sent."""
    command = JSON_COMMANDS.parse(json.dumps(example(action)).encode())
    assert isinstance(command, COMMANDS[action])
    assert msgspec.to_builtins(command) == example(action)


@given(st.text() | nearly_commands.map(json.dumps) | nearly_commands.map(str))
def test_any_text_is_a_command_or_refused(text):
    """Any other text raises BadCommand, which tells bad JSON from bad commands."""
    try:
        command = JSON_COMMANDS.parse(text.encode())
    except BadCommand as error:
        refusal = error
    else:
        assert command.action == json.loads(text)["action"]
        return
    assert str(refusal)
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        assert refusal.code == "bad_json"
    else:  # Python also reads NaN and half a surrogate pair
        assert refusal.code in {"bad_command", "bad_json"}


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ('{"action":"subscribe","symbols":["A","b"],"id":1}', Subscribe(symbols=["A", "b"], id=1)),
        ('{"symbols":["A"],"action":"unsubscribe"}', Unsubscribe(symbols=["A"])),
        ('{"action":"resync","symbols":["*"],"id":"x"}', Resync(symbols=["*"], id="x")),
        ('{"action":"auth","token":"t"}', Auth(token="t")),
        (' { "action" : "ping" , "more" : [1] } ', Ping()),
    ],
)
def test_commands_are_read(text, command):
    """Fields may be in any order, with space, and beside fields of later versions."""
    assert JSON_COMMANDS.parse(text.encode()) == command


def test_message_order_is_the_protocol_s():
    """`type` is first and `ts` second, so that a client can read both without parsing."""
    text = encode(QuotesPatch(5, {"A": 1}, [])).decode()
    assert text == '{"type":"quotes_patch","ts":5,"versions":{"A":1},"operations":[]}'
    assert encode(Status("stale", "feed_ended")) == (
        b'{"type":"status","status":"stale","reason":"feed_ended"}'
    )


@pytest.mark.parametrize(
    ("text", "code", "message", "id"),
    [
        ('{"action":"fly","id":7}', "bad_command", "Invalid value 'fly' - at `$.action`", 7),
        ('{"action":"sub"}', "bad_command", "actions are auth, ping, resync, subscribe", UNSET),
        ('{"action":"auth","id":"x"}', "bad_command", "missing required field `token`", "x"),
        ('{"action":"ping","id":[]}', "bad_command", "Expected `int | str`, got `array`", UNSET),
        ('{"action":"ping","id":"' + "x" * 65 + '"}', "bad_command", "length <= 64", UNSET),
        ("7", "bad_command", "Expected `object`, got `int`", UNSET),
        ('{"action":"ping"', "bad_json", "Input data was truncated", UNSET),
        ('{"action":"fly"} x', "bad_json", "trailing characters", UNSET),
        ('{"action":"auth","token":"\\ud800"}', "bad_json", "surrogate", UNSET),
        ('{"action":"auth","token":"\\ud800', "bad_json", "surrogate", UNSET),
    ],
)
def test_refusal_says_what_is_wrong(text, code, message, id):
    """In words for a person, with the id where it can be echoed."""
    with pytest.raises(BadCommand) as refusal:
        JSON_COMMANDS.parse(text.encode())
    assert (refusal.value.code, refusal.value.id) == (code, id)
    assert message in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ('{"action":"fly"}', "actions are auth, ping, "),
        ('{"symbols":["A"]}', "actions are auth, ping, "),
        (
            '{"action":"subscribe","bars":["A"],"timeframe":"7m"}',
            "timeframes are 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w",
        ),
        ('{"action":"unsubscribe","bars":["A"],"timeframe":60}', "timeframes are 1m, 5m, "),
        ('{"action":"subscribe","bars":["A"]}', "timeframes are 1m, 5m, "),
        ('{"action":"subscribe","bars":"A","timeframe":"1m"}', "symbols are a list"),
        ('{"action":"subscribe","symbols":[]}', "symbols are a list"),
        ('{"action":"resync","symbols":[1]}', "symbols are a list"),
        ('{"action":"unsubscribe"}', "symbols are a list"),
        ('{"action":"throttle","interval":null}', "an interval is a number of seconds"),
        ('{"action":"throttle"}', "an interval is a number of seconds"),
        ('{"action":"auth","token":1}', "a token is a text"),
        ('{"action":"ping","id":1.5}', "an id is a whole number"),
        ("[]", 'a command is an object, such as {"action":"ping"}'),
        ("nonsense", "not JSON: "),
        ("[" * 10_000 + "]" * 10_000, "nested too deeply"),
    ],
)
def test_refusal_says_what_is_allowed(text, allowed):
    """A wrong or missing field is told together with the values that it may have."""
    with pytest.raises(BadCommand) as refusal:
        JSON_COMMANDS.parse(text.encode())
    assert allowed in str(refusal.value)


@pytest.mark.parametrize("form", ["action", "timeframe"])
def test_refusal_repeats_little_of_a_long_value(form):
    """The value of a client is shortened in the middle. What is allowed stays."""
    named = {"action": "subscribe", "bars": ["A"], "timeframe": "1m", form: "x" * 15_000}
    with pytest.raises(BadCommand) as refusal:
        JSON_COMMANDS.parse(encode(named))
    assert len(str(refusal.value)) < 400
    assert f"{form}s are" in str(refusal.value)


def test_token_is_not_shown():
    """A command may be logged."""
    assert repr(Auth(token="secret")) == "Auth(…)"
