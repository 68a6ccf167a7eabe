"""What the shared cases leave open: time, sizes, and calls in an odd order."""

import json
from typing import Any

from quotestream.core import RESYNC_PATIENCE, Core
from tests.client.following import FULL, MOVE, message

BINARY_LIMIT = 16 * 1024
"""Bytes of a message that a server takes."""


def opened(*symbols: str) -> Core:
    """Return a core with a connection in the JSON form."""
    core = Core(symbols)
    core.target("ws://server/ws/quotes")
    core.opened("quotestream.v1.json", 0.0)
    return core


def commands(core: Core) -> list[dict[str, Any]]:
    return [json.loads(frame) for frame in core.outgoing()]


def receive(core: Core, text: str, now: float = 0.0) -> None:
    assert len([*core.receive(text, now)]) == 1


def test_resync_without_an_answer_is_repeated():
    """If the full quote does not come, as behind a proxy that loses messages, the client asks again."""
    core = opened("A")
    receive(core, message(1, FULL, epoch="e"))
    receive(core, message(3, MOVE))
    resync = {"action": "resync", "symbols": ["A"]}
    assert commands(core) == [resync]
    receive(core, message(4, MOVE), RESYNC_PATIENCE - 0.1)
    assert commands(core) == []
    receive(core, message(5, MOVE), RESYNC_PATIENCE)
    assert commands(core) == [resync]
    receive(core, message(5, FULL, epoch="e"), RESYNC_PATIENCE + 0.1)
    receive(core, message(6, MOVE), 10 * RESYNC_PATIENCE)
    assert commands(core) == []
    assert core.document.missed == set()


def test_long_commands_come_in_parts():
    """Symbols that do not fit into one message are asked for by several, all of them once."""
    core = opened()
    symbols = [f"{number:04}" + "株" * 46 for number in range(500)]
    core.subscribe(symbols, id=7)
    frames = [*core.outgoing()]
    assert len(frames) > 1
    assert all(len(frame.encode()) < BINARY_LIMIT for frame in map(str, frames))
    sent = [json.loads(frame) for frame in frames]
    assert [symbol for command in sent for symbol in command["symbols"]] == symbols
    assert {command["id"] for command in sent} == {7}


def test_errors_are_bounded():
    """A server that sends errors without end costs no memory."""
    core = opened("A")
    for _ in range(1000):
        receive(core, '{"type":"error","code":"rate_limited","message":"too fast"}')
    assert len(core.errors) == 100


def test_unsubscribing_from_everything_takes_all_quotes():
    """Without a connection, giving `*` up forgets each quote at once."""
    core = opened("*")
    receive(core, message(1, FULL, epoch="e"))
    core.closed(1006, "")
    core.unsubscribe(["*"])
    assert core.document.quotes == {}
    assert core.target("ws://server/ws/quotes") == "ws://server/ws/quotes"
