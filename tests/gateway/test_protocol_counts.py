"""A connection's protocol by itself: its counters, its limits to the byte, and the words of errors."""

import time
from typing import Any

import pytest
from wsproto.frame_protocol import FrameProtocol

from server.fanout.frame import PING_FRAME
from server.gateway.closing import Close
from server.gateway.limits import BAD_COMMANDS_IN_A_ROW, SYMBOLS_A_COMMAND, CommandLimit
from server.gateway.protocol import MAX_MESSAGE, is_pong
from server.gateway.selection import Selection
from server.gateway.subscriptions import ClientClosed, StopUpdates
from server.quotes.messages import Ack, Error, Pong, Subscribe
from server.store.loader import TooManyLookups
from tests.gateway.test_protocol import RATE, Connection, command
from tests.gateway.wire import CONTINUATION, PONG, TEXT, close, frame


def test_answers_are_counted_by_action_and_result():
    """A text that is not a command counts for any action, and so does one that comes too fast."""
    connection = Connection("AAPL")
    for _ in range(2):
        connection.say("ping")
        connection.say("subscribe", symbols=["AAPL"])
        connection.say("resync", symbols=["AAPL", "NOPE"])
        connection.receive(frame(TEXT, b"bad"))
        connection.now += 10.0
    expected = {
        ("ping", "ok"): 2,
        ("subscribe", "ok"): 2,
        ("resync", "ok"): 2,
        ("resync", "not_subscribed"): 2,
        ("any", "bad_json"): 2,
    }
    assert connection.counted == expected
    for _ in range(2 * RATE + 2):
        connection.say("auth", token="bad")
    expected |= {("auth", "unauthorized"): 2 * RATE, ("any", "rate_limited"): 2}
    assert connection.counted == expected
    connection.now += 10.0
    for _ in range(2):
        connection.commands.add_debt("ann", 1e12)
    connection.say("ping")
    assert connection.counted == expected | {("any", "rate_limited"): 3}


@pytest.mark.parametrize(
    ("subscribed", "sent", "code", "message"),
    [
        ([], {"action": "auth", "token": "OTHER"}, "unauthorized", "the token is another user's"),
        ([], {"action": "auth", "token": "x"}, "unauthorized", "the token is malformed"),
        (
            [],
            {"action": "throttle", "interval": "soon"},
            "bad_command",
            "'soon' is not a duration",
        ),
        (["AAPL"], {"action": "resync", "symbols": ["B"]}, "not_subscribed", "not subscribed to"),
        (
            ["*"],
            {"action": "unsubscribe", "symbols": ["AAPL"]},
            "not_subscribed",
            "subscribed to *, which only ends as a whole",
        ),
        (
            ["AAPL", "B"],
            {"action": "subscribe", "symbols": ["C"]},
            "too_many_symbols",
            "at most 2 s",
        ),
        ([], {"action": "dance"}, "bad_command", "dance"),
    ],
)
def test_error_says_what_is_wrong_with_which_command(subscribed, sent, code, message):
    """In words that help to correct it, and with the command's id."""
    connection = Connection("AAPL", "B", "C")
    connection.directory.complete = True
    for symbol in subscribed:
        assert connection.say("subscribe", symbols=[symbol])
    if sent.get("token") == "OTHER":
        sent = sent | {"token": connection.authenticator.sign("bob", 60)}
    action = sent["action"]
    rest = {name: value for name, value in sent.items() if name != "action"}
    (error,) = connection.say(action, id=7, **rest)
    assert (error.code, error.id) == (code, 7)
    assert message in error.message
    assert error.message[0] not in "xX"


def test_spent_lookups_are_told_in_the_loader_s_words():
    """With the symbols that were not looked up."""
    connection = Connection()
    refused = TooManyLookups(2.0)
    asked = Subscribe(symbols=["NEW"], id=7)
    (error,) = connection.protocol.subscribe(asked, Selection([], ["NEW"], refused=refused))
    assert isinstance(error, Error)
    assert (error.code, error.message, error.symbols) == ("rate_limited", str(refused), ["NEW"])


def test_pong_has_the_moment_in_microseconds():
    """So a client can measure its clock by it."""
    before = time.time_ns() // 1000
    (pong,) = Connection().say("ping")
    assert isinstance(pong, Pong)
    assert before <= pong.ts <= time.time_ns() // 1000


def test_one_of_several_subscriptions_ends_or_all():
    """A symbol's name ends one, and `*` all of them."""
    connection = Connection("A", "B")
    connection.say("subscribe", symbols=["A"])
    connection.say("subscribe", symbols=["B"])
    a, b = connection.topics.values()
    (one,) = connection.say("unsubscribe", symbols=["A"])
    assert one == StopUpdates([a], False, Ack("unsubscribe", ["A"]))
    connection.say("subscribe", symbols=["A"])
    (both,) = connection.say("unsubscribe", symbols=["*"])
    assert both == StopUpdates([b, a], False, Ack("unsubscribe", ["*"]))


@pytest.mark.parametrize("character", ["x", "é"])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_message_may_have_16_kib(character, pieces):
    """In UTF-8, in any number of frames. A longer one closes the connection, and the next one of the
    same length does not.
    """
    connection = Connection()
    empty = '{"action":"ping","id":""}'
    size = (MAX_MESSAGE - len(empty)) // len(character.encode())
    padding = MAX_MESSAGE - len(empty) - size * len(character.encode())
    text = empty[:-2] + character * size + '"}' + " " * padding

    def say(text: str) -> list[Any]:
        step = -(-len(text) // pieces)
        parts = [text[start : start + step].encode() for start in range(0, len(text), step)]
        kinds = [TEXT] + [CONTINUATION] * (len(parts) - 1)
        connection.now += 10.0
        return connection.receive(
            b"".join(
                frame(kind, part, fin=number == len(parts))
                for number, (kind, part) in enumerate(zip(kinds, parts, strict=True), 1)
            )
        )

    for _ in range(3):
        (answer,) = say(text)
        # The id is longer than an id may be.
        assert answer.code == "bad_command"
    assert say(text + " ") == [Close.TOO_BIG]


def test_good_command_forgives_the_bad_ones_before():
    """Only bad ones in a row close the connection. The client's answer to the close frame is read."""
    connection = Connection()
    for _ in range(3):
        for _ in range(BAD_COMMANDS_IN_A_ROW):
            connection.now += 10.0
            (error,) = connection.receive(frame(TEXT, b'{"action":"x","id":9}'))
            assert (error.code, error.id) == ("bad_command", 9)
            assert "x" in error.message
        connection.say("ping")
    for _ in range(BAD_COMMANDS_IN_A_ROW):
        connection.now += 10.0
        connection.receive(frame(TEXT, b"bad"))
    connection.now += 10.0
    *_, reason = connection.receive(frame(TEXT, b"bad"))
    assert reason is Close.BAD_COMMANDS
    assert connection.receive(command("ping") + close(1008)) == [ClientClosed(1008)]


def test_few_symbols_cost_no_more_than_a_command():
    """The price of a command is for each whole fifty of the symbols that it names itself."""
    names = [f"S{number}" for number in range(2 * SYMBOLS_A_COMMAND)]
    connection = Connection(*names, user_rate=1.0)
    for _ in range(3):
        connection.say("resync", symbols=names[: SYMBOLS_A_COMMAND - 1])
    assert connection.commands.wait("ann", 5.0) == 3.0
    connection.say("resync", symbols=names[:SYMBOLS_A_COMMAND])
    assert connection.commands.wait("ann", 5.0) == 5.0
    limit = CommandLimit(RATE, clock=lambda: 0.0)
    for _ in range(2 * RATE):
        limit.charge(SYMBOLS_A_COMMAND - 1)
        assert limit.allows()
    assert not limit.allows()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame(PONG), True),
        (frame(PONG, b"x" * 125), True),
        (frame(PONG)[:-1], False),
        (frame(PONG, b"xy")[:-1], False),
        (frame(PONG, b"x") + b"y", False),
        (frame(PONG) * 2, False),
        (frame(PONG, mask=False), False),
        (frame(PONG, b"x" * 126), False),
        (PING_FRAME, False),
        (frame(TEXT), False),
        (frame(PONG)[:1], False),
        (b"", False),
    ],
)
def test_pong_is_known_without_a_decoder(data, expected):
    """Most clients send nothing else, and so need no decoder."""
    assert is_pong(data) is expected
    if expected:
        decoder = FrameProtocol(client=False, extensions=[])
        decoder.receive_bytes(data)
        assert [each.opcode for each in decoder.received_frames()] == [PONG]
