"""A server whose messages have other values than the protocol's: the client gives the connection up."""

import json
from collections.abc import Iterable, Iterator
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from websockets.sync.server import ServerConnection

import quotestream
from quotestream import Quotes
from quotestream.errors import BadMessage
from quotestream.trio_driver import TrioDriver
from server.client.lines import print_json, print_message
from server.client.stream import follow
from server.client.table import Screen
from tests.client.following import FULL, Seen, foreign_server, message
from tests.client.libraries import EACH

FOLDER = Path(__file__).parents[1] / "protocol_cases"

ODD: tuple[Any, ...] = (None, -1, 10**30, 10**400, "x", [[]], {"x": []})
"""Values in place of a good one."""

BARS = (
    {"type": "bar", "symbol": "AAPL", "timeframe": "1m", "bar": {"t": "2026-11-24T14:30:00Z"}},
    {"type": "bars_missed", "symbol": "AAPL", "timeframe": "1m"},
    {"type": "bars_end", "timeframe": "1m", "t": "2026-11-24T14:30:00Z"},
    {"type": "pong", "ts": 1, "id": "ping 1"},
    {"type": "error", "code": "unknown_symbol", "message": "none", "symbols": ["X"], "id": 1},
    {
        "type": "status",
        "status": "closed",
        "reason": "closed",
        "interval": 2,
        "next_open": "2026-11-24T14:30:00Z",
    },
    {"type": "status", "status": "halted", "reason": "halted", "symbols": ["AAPL"]},
    {"type": "reconnect", "after_ms": 5},
    {"type": "ack", "action": "throttle", "symbols": [], "interval": 0.25},
    {"type": "ack", "action": "resume", "symbols": [], "recovered": {"AAPL": "quote"}},
)
"""Messages that the cases hardly have."""


def good_messages() -> Iterator[tuple[str, list[Any]]]:
    """Yield the form and the messages of each connection of the shared cases."""
    for path in sorted(FOLDER.glob("*.json")):
        for case in json.loads(path.read_text())["cases"]:
            for form in "json", "compact":
                messages: list[Any] = []
                for step in case["steps"]:
                    sent = step.get("server", [])
                    messages += sent if isinstance(sent, list) else sent[form]
                yield form, messages


def message_type(good: Any) -> str:
    """Return what decides about the way of a message."""
    return str(good.get("type") if isinstance(good, dict) else good[:1])


def shape(value: Any) -> Any:
    """Return the types of a message's parts, which tell alike messages from others."""
    if isinstance(value, dict):
        return [[key if len(key) > 4 else "", shape(part)] for key, part in value.items()]
    return [*map(shape, value)] if isinstance(value, list) else type(value).__name__


def altered(value: Any) -> Iterator[Any]:
    """Yield copies of a message with an odd value in place of each of its parts."""
    yield from ODD
    parts: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict | list):
        parts = [*(value.items() if isinstance(value, dict) else enumerate(value))]
    for key, part in parts:
        for other in altered(part):
            copy = deepcopy(value)
            copy[key] = other
            yield copy


def client(form: str) -> Quotes:
    """Return a client with an open connection, and with bars, but without a task."""
    quotes = quotestream.connect("ws://memory", symbols=["AAPL"])
    quotes._driver, quotes._is_entered = TrioDriver(), True
    quotes._event = quotes._driver.event()
    quotes._bars.append(quotestream.Bars(["AAPL"], "1m", quotes.until, quotes._stop_bars))
    quotes._core.target("ws://memory")
    quotes._core.opened(f"quotestream.v1.{form}", 0.0)
    return quotes


def receive(quotes: Quotes, data: str | bytes) -> None:
    for each in quotes._core.receive(data, 0.0):
        quotes._listen(each)
    # The next request is made from what the messages left.
    quotes._core.target("ws://memory")


def test_odd_values_end_the_connection_only():
    """Whatever stands in place of a value, the client ignores it or raises BadMessage: the application
    never sees another error, and the client comes back.
    """
    refused = tried = 0
    seen: set[str] = set()
    for form, messages in [*good_messages(), ("json", list(BARS))]:
        for place, good in enumerate(messages):
            if (kind := json.dumps([form, message_type(good), shape(good)])) in seen:
                continue
            seen.add(kind)
            for other in altered(good):
                quotes = client(form)
                tried += 1
                try:
                    for each in *messages[:place], other:
                        receive(quotes, json.dumps(each))
                except BadMessage:
                    refused += 1
    assert 0.2 * tried < refused < tried


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1",
        b"\x81\x05\x05",
        msgspec.msgpack.encode(["u", 10**18, [["AAPL", 1, 2, 5]]]),
        msgspec.msgpack.encode(["d", [5]]),
        msgspec.msgpack.encode({"type": "quotes_patch"}),
        msgspec.msgpack.encode({"type": "quotes_patch", "versions": {5: 5}, "operations": []}),
        msgspec.msgpack.encode(["s", "e", float("nan"), [["AAPL", 1, 1, float("inf")]]]),
        msgspec.msgpack.encode(["s", "e", 5, [["AAPL", 1, 1, float("inf")]]]),
        msgspec.msgpack.encode(["s", "e", 5, [["AAPL", 1, 1, float("nan")]]]),
        msgspec.msgpack.encode(["s", "e", 5, [["AAPL", 1, 4, float("nan")]]]),
        msgspec.msgpack.encode(["s", "e", 5, [["AAPL", 1, 4, -1e305]]]),
        b"\x91" * 100_000,
    ],
)
def test_odd_messagepack_ends_the_connection_only(data):
    """MessagePack has keys that are not texts, NaN, and infinity."""
    quotes = client("msgpack")
    fields = ["current_price", "last_updated", "bid"]
    schema = {"type": "schema", "fields": fields, "derived": ["change"]}
    receive(quotes, msgspec.msgpack.encode(schema))
    with pytest.raises(BadMessage):
        receive(quotes, data)


def test_deep_json_ends_the_connection_only():
    """It nests more deeply than a reader can follow."""
    with pytest.raises(BadMessage):
        receive(client("json"), "[" * 100_000)


@pytest.mark.parametrize("first", ['{"type":"quotes_patch"}', None], ids=["odd", "closes"])
async def test_entering_waits_for_a_connection_that_gives_quotes(
    serve_in_memory, autojump_clock, first
):
    """If the first connection ends before its quotes have come, the block begins with the next one."""
    connections = 0

    async def serve_one(request: Any) -> None:
        nonlocal connections
        connections += 1
        socket = await request.accept()
        if connections == 1:
            await (socket.send_message(first) if first else socket.aclose(1001))
            await socket.get_message()
            return
        await socket.send_message(message(4, FULL))
        while True:
            command = json.loads(await socket.get_message())
            if command["action"] == "ping":
                await socket.send_message(
                    json.dumps({"type": "pong", "ts": 1, "id": command["id"]})
                )

    serve_in_memory(serve_one)
    with trio.fail_after(60):
        async with quotestream.connect("ws://memory", symbols=["A"]) as quotes:
            assert (connections, quotes.versions) == (2, {"A": 4})


async def test_watch_shows_nothing_that_it_cannot_read(serve_in_memory, autojump_clock, capsys):
    """`watch` comes back after each odd message, and neither its screen nor its lines fail."""
    odd_values: list[dict[str, Any]] = [
        {"current_price": "dear"}, {"name": 5}, {"volume": "x"}, {"last_updated": 5},
        {"bid": []}, {"change_percent": {}}, {"high": "x"}, {"currency": 5},
    ]  # a table # fmt: skip
    full = (FULL | {"value": {"current_price": 1.0} | values} for values in odd_values)
    odd: list[Any] = [
        {"type": "status", "status": "stale", "reason": None},
        {"type": "status", "status": 5, "reason": "closed"},
        {"type": "status", "status": "stale", "reason": "closed", "symbols": [5]},
        {"type": "error", "code": "x", "message": 5},
        {"type": "error", "code": "x", "message": "x", "symbols": [5]},
        {"type": "ack", "action": "resume", "symbols": [], "recovered": {"A": []}},
        {"type": "quotes_patch", "ts": "now", "versions": {"A": 5}, "operations": []},
        *(json.loads(message(5, each)) for each in full),
    ]
    screen = Screen(["currency", "high"], clock=lambda: 1e9, has_keys=True)
    problems: list[str] = []

    async def serve_one(request: Any) -> None:
        socket = await request.accept()
        await socket.send_message(message(4, FULL))
        await socket.send_message(json.dumps(odd[min(len(problems), len(odd) - 1)]))
        await socket.get_message()

    def show(document: Any, each: dict[str, Any]) -> None:
        screen.update(document, each)
        screen.draw(120, 30)
        print_message(document, each, ["currency", "high"])
        print_json(document, each)
        if each["type"] == "connection":
            problems.append(each["problem"])
            if len(problems) == len(odd):
                raise Seen

    serve_in_memory(serve_one)
    with trio.fail_after(3600), pytest.raises(Seen):
        await follow("ws://memory/ws/quotes", "token", ["A"], show)
    assert all("not valid" in problem for problem in problems)


def test_bar_that_comes_late_does_not_replace_its_correction():
    """Of the bars of a minute that wait, the application gets the final one with the highest `rev`."""
    quotes = client("json")
    opening = "2026-11-24T14:30:00Z"
    states = [(0, False), (0, True), (2, True), (1, True), (0, False)]
    for number, (rev, final) in enumerate(states):
        bar = {"t": opening, "c": float(number), "rev": rev, "final": final}
        about = {"type": "bar", "symbol": "AAPL", "timeframe": "1m", "bar": bar}
        receive(quotes, json.dumps(about))
    (bars,) = quotes._bars
    assert [(each.c, each.rev) for each in bars._waiting.values()] == [(2.0, 2)]


@EACH
def test_fragments_without_end_are_left(run, monkeypatch, caplog):
    """Empty ones count, too: a driver keeps them until the message ends."""
    monkeypatch.setattr("quotestream.asyncio_driver.MAX_MESSAGE", 1000)
    monkeypatch.setattr("server.websocket_client.MAX_MESSAGE", 1000)

    def send_fragments(connection: ServerConnection) -> None:
        with suppress(OSError):
            connection.socket.sendall(b"\x01\x00" + b"\x00\x00" * 2000)
        connection.recv()

    async def story() -> None:
        async with quotestream.connect(url, token="x", symbols=["AAPL"]):
            raise AssertionError

    late = pytest.raises((trio.TooSlowError, TimeoutError))
    with foreign_server(send_fragments) as url, late:
        run(story, 1.0)
    assert "a message of more than 1000 bytes" in caplog.text
