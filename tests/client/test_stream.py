"""The client resyncs, resumes from its position, and renews its token."""

import json
from collections.abc import Awaitable, Callable
from itertools import count
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio_websocket import WebSocketRequest
from websockets.sync.server import ServerConnection

from server.client.stream import StreamRefused, follow
from server.quotes.position import parse_position
from server.reconnecting import (
    LONGEST_DELAY,
)
from tests.client.following import (
    FULL,
    MOVE,
    TIMEOUT,
    URL,
    Seen,
    follow_until,
    foreign_server,
    message,
    raise_when,
)
from tests.processes import make_token


async def test_quotes_of_a_real_server(server):
    """The document holds each requested quote, and the quotes move."""
    moved: set[str] = set()

    def done(quotes, message):
        moved.update(message.get("versions", {}))
        return {"AAPL", "MSFT"} <= moved and len(quotes) == 2

    messages = await follow_until(server.quotes_url, done, "AAPL,MSFT")
    assert messages[0]["operations"][0]["op"] == "add"


async def test_a_gap_is_resynced():
    """A `replace` that skips a version makes the client ask for the full quote."""
    asked = []

    def skip(connection: ServerConnection) -> None:
        connection.send(message(1, FULL))
        connection.send(message(3, MOVE))
        asked.append(json.loads(connection.recv()))
        connection.send(message(9, FULL))

    with foreign_server(skip) as url:
        await follow_until(url, lambda _, message: message.get("versions") == {"A": 9})
    assert asked == [{"action": "resync", "symbols": ["A"]}]


async def test_what_is_held_is_resumed(serve_in_memory, autojump_clock):
    """The next request has the position, without quotes known to be wrong. Symbols that the server does
    not continue are forgotten.
    """
    queries = []

    async def cut(request: WebSocketRequest) -> None:
        queries.append(parse_qs(urlsplit(request.path).query))
        socket = await request.accept()
        if len(queries) == 1:
            for symbol, version in ("A", 7), ("B/C", 8), ("D", 9):
                await socket.send_message(message(version, FULL, symbol, epoch="5"))
            await socket.send_message(message(11, MOVE, "D"))
            await socket.aclose(1001)
        else:
            recovered = {"A": "current", "D": "quote"}
            ack = {"type": "ack", "action": "resume", "symbols": ["A", "D"], "recovered": recovered}
            await socket.send_message(json.dumps(ack))
            await socket.send_message(message(3, FULL, "D", epoch="5"))
            await socket.get_message()

    serve_in_memory(cut)
    held: list[set[str]] = []

    def done(quotes, message):
        held.append(set(quotes))
        return len(queries) > 1 and message["type"] == "quotes_patch"

    await follow_until(URL, done, "A,B/C,D")
    assert "resume" not in queries[0]
    epoch, _, versions = queries[1]["resume"][0].partition(":")
    assert (epoch, set(versions.split(","))) == ("5", {"A=7", "B/C=8"})
    assert held[-1] == {"A", "D"}


async def test_renamed_is_asked_for_by_its_new_symbol(serve_in_memory, autojump_clock):
    """After a lost connection, the client asks for the symbol that took the place of its own."""
    requests: list[WebSocketRequest] = []

    async def serve_one(request: WebSocketRequest) -> None:
        requests.append(request)
        stream = await request.accept()
        await stream.send_message(message(4, FULL, epoch="e"))
        moved = {"versions": {"A": 4, "B": 5}, "epoch": "e", "renamed": {"A": "B"}}
        operations = [{"op": "remove", "path": "/quotes/A"}, FULL | {"path": "/quotes/B"}]
        full = {"type": "quotes_patch", "ts": 1, "operations": operations, **moved}
        await stream.send_message(json.dumps(full))
        await stream.aclose()

    serve_in_memory(serve_one)
    with pytest.raises(Seen):
        await follow(URL, "token", ["a", "C"], raise_when(lambda *_: len(requests) == 2))
    query = parse_qs(urlsplit(requests[1].path).query)
    assert query["symbols"] == ["B,C"]
    assert parse_position(query["resume"][0]).versions == {"B": 5}


async def test_swapped_symbols_are_both_asked_for(serve_in_memory, autojump_clock):
    """The server tells only the first as renamed, as the other's old quote is replaced by then."""
    requests: list[WebSocketRequest] = []

    async def serve_one(request: WebSocketRequest) -> None:
        requests.append(request)
        stream = await request.accept()
        for symbol in "A", "B":
            await stream.send_message(message(4, FULL, symbol, epoch="e"))
        operations = [{"op": "remove", "path": "/quotes/A"}, FULL | {"path": "/quotes/B"}]
        moved = {"versions": {"A": 4, "B": 5}, "epoch": "e", "renamed": {"A": "B"}}
        full = {"type": "quotes_patch", "ts": 1, "operations": operations, **moved}
        await stream.send_message(json.dumps(full))
        await stream.send_message(message(6, FULL, "A", epoch="e"))
        await stream.aclose()

    serve_in_memory(serve_one)
    with pytest.raises(Seen):
        await follow(URL, "token", ["b", "a", "C"], raise_when(lambda *_: len(requests) == 2))
    query = parse_qs(urlsplit(requests[1].path).query)
    assert sorted(query["symbols"][0].split(",")) == ["A", "B", "C"]
    assert parse_position(query["resume"][0]).versions == {"A": 6, "B": 5}


async def test_position_fits_into_a_request(serve_in_memory, autojump_clock):
    """A position is measured as it is sent: a Japanese symbol takes nine bytes for each character. Only
    whole entries are sent. A server that still finds the request too long is asked without a position,
    and the next time with one again.
    """
    symbols = [f"\u30c8\u30e8\u30bf{number}" for number in range(1500)]
    paths: list[str] = []

    async def cut(request: WebSocketRequest) -> None:
        paths.append(request.path)
        if len(paths) == 2:
            await request.reject(431)
            return
        socket = await request.accept()
        for symbol in symbols:
            await socket.send_message(message(1_000_000, FULL, symbol, epoch="5"))
        await socket.aclose(1001)

    serve_in_memory(cut)
    await follow_until(URL, lambda *_: len(paths) == 4, "*", patience=10 * LONGEST_DELAY)
    assert ["resume" in path for path in paths] == [False, True, False, True]
    assert 8 * 1024 - 64 < len(paths[1]) < 15 * 1024
    position = parse_position(parse_qs(urlsplit(paths[1]).query)["resume"][0])
    assert position.versions
    assert set(position.versions) <= set(symbols)
    assert set(position.versions.values()) == {1_000_000}


async def test_long_request_leaves_less_room_for_a_position(serve_in_memory, autojump_clock):
    """The symbols asked for, the token and the position are in one request."""
    symbols = [f"S{number:06}" for number in range(1200)]
    paths: list[str] = []

    async def cut(request: WebSocketRequest) -> None:
        paths.append(request.path)
        socket = await request.accept()
        for symbol in symbols:
            await socket.send_message(message(1_000_000, FULL, symbol, epoch="5"))
        await socket.aclose(1001)

    serve_in_memory(cut)
    await follow_until(URL, lambda *_: len(paths) == 2, ",".join(symbols))
    assert "resume" in paths[1]
    assert len(paths[1]) < 16 * 1024 - 512


@pytest.fixture
def token_source() -> Callable[[], Awaitable[str]]:
    """Returns token1, token2, ..."""
    numbers = count(1)

    async def source() -> str:
        return f"token{next(numbers)}"

    return source


async def test_rejected_token_is_asked_for_once_more(serve_in_memory, autojump_clock, token_source):
    """A 401 makes the client ask for a token, and a second 401 in a row is final."""
    tokens: list[bytes] = []

    async def handler(request: WebSocketRequest) -> None:
        tokens.append(dict(request.headers)[b"authorization"])
        if len(tokens) in (1, 3, 4):
            await request.reject(401)
        else:
            socket = await request.accept()
            await socket.aclose(1001)

    serve_in_memory(handler)
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="401"):
        await follow(URL, token_source, ["A"], lambda *_: None)
    assert tokens == [b"Bearer token1", b"Bearer token2", b"Bearer token2", b"Bearer token3"]


async def test_expired_token_is_asked_for_anew(serve_in_memory, autojump_clock, token_source):
    """After a close with 4401 the client comes back with the next token."""
    tokens: list[bytes] = []

    async def handler(request: WebSocketRequest) -> None:
        tokens.append(dict(request.headers)[b"authorization"])
        socket = await request.accept()
        await socket.send_message(message(len(tokens), FULL))
        if len(tokens) == 1:
            await socket.aclose(4401)
        await socket.get_message()

    serve_in_memory(handler)

    def done(_, message):
        return message.get("versions") == {"A": 2}

    with trio.fail_after(TIMEOUT), pytest.raises(Seen):
        await follow(URL, token_source, ["A"], raise_when(done))
    assert tokens == [b"Bearer token1", b"Bearer token2"]


@pytest.mark.parametrize(
    "token", ["canary\nX-A: b", "canary b", "canary\r", "canaryé", "\x00canary"]
)
async def test_token_that_cannot_be_sent_is_not_shown(token):
    """An invalid token fails at once. The exception, its causes and its traceback do not contain it."""
    with pytest.raises(ValueError, match="token") as refused:
        await follow("ws://127.0.0.1:1/ws/quotes", token, ["A"], lambda *_: None)
    assert "canary" not in repr(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


async def test_expired_token_is_final(server):
    """A client with an expired token does not reconnect."""
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="expired"):
        await follow(server.quotes_url, make_token(lifetime=1.0), ["AAPL"], lambda *_: None)
