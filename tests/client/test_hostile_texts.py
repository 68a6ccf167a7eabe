"""Texts of a hostile server: errors and logs have them shortened, on one line, and without commands."""

import json

import pytest

from quotestream.core import Core
from quotestream.errors import BadMessage, CommandRefused, Refused
from server.client.history import HistoryClient, HistoryRefused
from server.reconnecting import LONGEST_TEXT, refused_handshake
from tests.cli.test_bars import scripted
from tests.client.test_asked_waits import ACK, Publishing, before_others

HOSTILE = "\x1b[2J\r\n\u202e" + "long " * 100_000


def opened() -> Core:
    """Return a core with a connection in the JSON form."""
    core = Core(["A"])
    core.opened("quotestream.v1.json", 0.0)
    return core


def check(text: str) -> None:
    """Check that a terminal and a log can show a text."""
    assert text.isprintable()
    assert "long" in text
    assert len(text) < 2 * LONGEST_TEXT


def test_refused_handshake_is_readable():
    """Its body says why."""
    body = json.dumps({"error": {"code": HOSTILE, "message": HOSTILE}}).encode()
    failed = refused_handshake(401, [], body)
    check(str(failed))
    check(failed.code)


def test_close_is_readable():
    """Its reason may be of any kind of server."""
    core = opened()
    check(core.closed(1001, HOSTILE).problem)
    refusal = core.closed(4400, f"bad_request: {HOSTILE}").refusal
    assert isinstance(refusal, Refused)
    check(str(refusal))


@pytest.mark.parametrize("symbols", [[], [HOSTILE]])
def test_refused_command_is_readable(symbols):
    """Its symbols are as the server has them, but its text is readable."""
    core = opened()
    error = {"type": "error", "code": HOSTILE, "message": HOSTILE, "symbols": symbols}
    assert [*core.receive(json.dumps(error), 0.0)]
    (refused,) = core.errors
    assert isinstance(refused, CommandRefused)
    assert [*refused.symbols] == symbols
    assert str(refused).isprintable()
    assert len(str(refused)) < 3 * LONGEST_TEXT
    check(refused.code)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "quotes_patch", "versions": {}, "operations": [{"op": HOSTILE, "path": "/quotes/A"}]},
        {"type": "quotes_patch", "versions": {}, "operations": [{"op": "add", "path": HOSTILE}]},
        {"type": "status", "status": {HOSTILE: 1}, "reason": HOSTILE},
    ],
)  # fmt: skip
def test_unreadable_message_is_readable_in_the_log(message):
    """The client tells why it leaves the connection."""
    with pytest.raises(BadMessage) as bad:
        list(opened().receive(json.dumps(message), 0.0))
    assert str(bad.value).isprintable()
    assert len(str(bad.value)) <= LONGEST_TEXT + 1


def test_refused_bars_are_readable():
    """`quotestream bars` prints the reason on a terminal."""
    answer = 401, {"error": {"code": HOSTILE, "message": HOSTILE}}
    with scripted(answer) as server, pytest.raises(HistoryRefused) as refused:
        next(HistoryClient(server.url, "a.b.c").pages({}))
    check(str(refused.value))


async def test_rejected_price_is_readable(serve_in_memory, autojump_clock):
    """`quotestream publish` prints the reason on a terminal."""
    told: list[str] = []

    class Rejected(Publishing):
        def on_rejected(self, line: int, code: str, message: str) -> None:
            told.extend((code, message))

    async def reject(request) -> None:
        socket = await request.accept()
        await socket.get_message()
        rejected = {"frame": 1, "line": 1, "code": HOSTILE, "message": HOSTILE}
        ack = ACK | {"accepted": 0, "rejected": [rejected]}
        await socket.send_message(json.dumps(ack))
        await socket.get_message()

    serve_in_memory(before_others(reject))
    await Rejected().run()
    assert len(told) == 2
    for each in told:
        check(each)
