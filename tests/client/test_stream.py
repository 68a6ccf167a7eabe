"""The client resyncs, reconnects, waits as long as the server asks, and gives up if refused."""

import json
import threading
import traceback
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import trio
from trio_websocket import WebSocketRequest
from websockets.sync.server import ServerConnection, serve

from bench.services import free_port
from server.client.stream import Listener, StreamRefused, follow
from server.quotes.position import parse_position
from server.websocket_client import (
    FIRST_DELAY,
    LASTING,
    LONGEST_DELAY,
    PING_INTERVAL,
    PING_TIMEOUT,
)
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, make_token

TIMEOUT = 15.0

FULL = {"op": "add", "path": "/quotes/A", "value": {"current_price": 1.0}}
MOVE = {"op": "replace", "path": "/quotes/A/current_price", "value": 2.0}


URL = "ws://memory/ws/quotes"


def message(version: int, operation: dict[str, Any], symbol: str = "A", **more: str) -> str:
    """Return a `quotes_patch` of a fake server."""
    path = operation["path"].replace("/A", "/" + symbol.replace("/", "~1"))
    return json.dumps(
        {
            "type": "quotes_patch",
            "ts": 1,
            "versions": {symbol: version},
            "operations": [operation | {"path": path}],
            **more,
        }
    )


@contextmanager
def foreign_server(
    handler: Callable[[ServerConnection], None],
) -> Iterator[str]:
    """Serve with a misbehaving handler, and return the address."""
    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/quotes"
        server.shutdown()
        thread.join()


class Seen(Exception):
    """Raised by the listener once it has seen enough."""


def raise_when(done: Callable[[Any, Any], bool]) -> Listener:
    """A listener that raises Seen when `done(quotes, message)`."""

    def listener(document, message):
        if done(document.quotes, message):
            raise Seen

    return listener


async def follow_until(
    url: str, done: Callable[[Any, Any], bool], symbols: str = "A", patience: float = TIMEOUT
) -> list[dict[str, Any]]:
    """Follow until `done(quotes, message)`, and return all messages."""
    messages: list[dict[str, Any]] = []

    def seen(quotes, message):
        messages.append(message)
        return done(quotes, message)

    with trio.fail_after(patience), pytest.raises(Seen):
        await follow(url, make_token(new_user()), symbols.split(","), raise_when(seen))
    return messages


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


async def test_the_delay_asked_for_is_kept(serve_in_memory, autojump_clock):
    """After `reconnect` the client is away for `after_ms`, then back."""

    async def send_away_once(request: WebSocketRequest) -> None:
        socket = await request.accept()
        if len(came) == 1:
            await socket.send_message(json.dumps({"type": "reconnect", "after_ms": 4321}))
            await socket.aclose(1001)
        else:
            await socket.send_message(message(1, FULL))
            await socket.get_message()

    came = serve_in_memory(send_away_once)
    messages = await follow_until(URL, lambda quotes, _: "A" in quotes)
    assert came[1] - came[0] == pytest.approx(4.321, abs=0.01)
    assert [each["retry_in"] for each in messages if each["type"] == "connection"] == [4.321]


async def test_silent_server_is_left(serve_in_memory, autojump_clock, monkeypatch):
    """If no ping is answered, as after a pulled cable, the client reconnects."""

    async def freeze_once(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message(message(1, FULL))
        if len(came) == 1:
            monkeypatch.setattr(socket._wsproto, "receive_data", lambda _: None)
        await socket.get_message()

    came = serve_in_memory(freeze_once)
    messages = await follow_until(URL, lambda *_: len(came) == 2, patience=10 * PING_INTERVAL)
    gone = PING_INTERVAL + PING_TIMEOUT
    assert gone <= came[1] - came[0] <= gone + FIRST_DELAY + 0.01
    assert [each["type"] for each in messages] == ["quotes_patch", "connection", "quotes_patch"]


async def test_retry_after_is_kept(serve_in_memory, autojump_clock):
    """A client asks a full server again after its `Retry-After`."""

    async def full_once(request: WebSocketRequest) -> None:
        if len(came) == 1:
            await request.reject(503, extra_headers=[(b"Retry-After", b"7")])
        else:
            socket = await request.accept()
            await socket.send_message(message(1, FULL))
            await socket.get_message()

    came = serve_in_memory(full_once)
    await follow_until(URL, lambda quotes, _: "A" in quotes)
    assert came[1] - came[0] == pytest.approx(7, abs=0.01)


async def test_backoff_has_full_jitter(serve_in_memory, autojump_clock):
    """Without a `Retry-After`, the wait is random between zero and a limit, which doubles up to half a
    minute.
    """

    async def full(request: WebSocketRequest) -> None:
        await request.reject(503)

    came = serve_in_memory(full)
    await follow_until(URL, lambda *_: len(came) == 60, patience=60 * LONGEST_DELAY)
    waits = [later - earlier for earlier, later in pairwise(came)]
    longest = [min(LONGEST_DELAY, FIRST_DELAY * 2**attempt) for attempt in range(len(waits))]
    assert all(wait <= limit + 0.01 for wait, limit in zip(waits, longest, strict=True))
    assert min(waits[6:]) < LONGEST_DELAY / 4
    assert max(waits[6:]) > LONGEST_DELAY * 3 / 4


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


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 522])
async def test_status_of_a_deploy_passes(serve_in_memory, autojump_clock, status):
    """Proxies answer so while servers are exchanged: the client comes back."""

    async def refuse_once(request: WebSocketRequest) -> None:
        if len(came) == 1:
            await request.reject(status)
        else:
            socket = await request.accept()
            await socket.send_message(message(1, FULL))
            await socket.get_message()

    came = serve_in_memory(refuse_once)
    messages = await follow_until(URL, lambda quotes, _: "A" in quotes)
    assert str(status) in messages[0]["problem"]


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 410, 414, 426, 431])
async def test_status_about_the_request_is_final(serve_in_memory, autojump_clock, status):
    """The same request would be answered alike at any other time."""
    came = serve_in_memory(lambda request: request.reject(status))
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match=str(status)):
        await follow(URL, "token", ["A"], lambda *_: None)
    assert len(came) == 1


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


@pytest.mark.parametrize("after_ms", [None, 0])
async def test_short_connections_do_not_reset_the_back_off(
    serve_in_memory, autojump_clock, after_ms
):
    """A server that accepts and closes at once is asked less and less often, also if it says that the
    client may come back at once. After a connection that lasted, the back-off starts over.
    """

    async def close_at_once(request: WebSocketRequest) -> None:
        socket = await request.accept()
        if after_ms is not None:
            await socket.send_message(json.dumps({"type": "reconnect", "after_ms": after_ms}))
        if len(came) == 40:
            # The clock adds up fractions of seconds: exactly LASTING may come out a little shorter.
            await trio.sleep(LASTING + 0.001)
        await socket.aclose(1001)

    came = serve_in_memory(close_at_once)
    await follow_until(URL, lambda *_: len(came) == 41, patience=41 * LONGEST_DELAY)
    waits = [later - earlier for earlier, later in pairwise(came)]
    assert max(waits[6:39]) > LONGEST_DELAY / 2
    assert waits[39] <= LASTING + FIRST_DELAY + 0.01


async def test_refusal_is_final(server):
    """A final refusal is not retried, and its message is passed on."""
    for token, symbols, words in (("bad", "AAPL", "token"), ("", "AAPL", "token is required")):
        with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match=words):
            await follow(server.quotes_url, token, [symbols], lambda *_: None)
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="none of the symbols"):
        await follow(server.quotes_url, make_token(new_user()), ["NOPE"], lambda *_: None)


@pytest.mark.parametrize(
    "token", ["canary\nX-A: b", "canary b", "canary\r", "canaryé", "\x00canary"]
)
async def test_token_that_cannot_be_sent_is_not_shown(token):
    """An invalid token fails at once. The exception, its causes and its traceback do not contain it."""
    with pytest.raises(ValueError, match="token") as refused:
        await follow("ws://127.0.0.1:1/ws/quotes", token, ["A"], lambda *_: None)
    assert "canary" not in repr(refused.value)
    assert refused.value.__cause__ is refused.value.__context__ is None


async def test_redirection_is_a_refusal():
    """The token goes to its own address only, and no message contains it."""
    token, asked = make_token(), list[str]()

    def redirect(connection: Any, request: Any) -> Any:
        asked.append(request.headers["Authorization"])
        response = connection.respond(302, "elsewhere")
        response.headers["Location"] = f"ws://127.0.0.1:1/ws/quotes?token={token}"
        return response

    with serve(lambda _: None, "127.0.0.1", 0, process_request=redirect) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/quotes"
        with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="302") as refused:
            await follow(url, token, ["A"], lambda *_: None)
        server.shutdown()
        thread.join()
    assert asked == [f"Bearer {token}"]
    shown = traceback.TracebackException.from_exception(refused.value, capture_locals=True)
    ours = ("server/client/stream.py", "server/websocket_client.py")
    frames = [each for each in shown.stack if each.filename.endswith(ours)]
    assert frames
    assert not any(token in str(each.locals) for each in frames)


async def test_expired_token_is_final(server):
    """A client with an expired token does not reconnect."""
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="expired"):
        await follow(server.quotes_url, make_token(lifetime=1.0), ["AAPL"], lambda *_: None)


async def test_killed_server_is_found_again(tmp_path):
    """After a server was killed, the client gets full quotes from its successor."""
    port = str(free_port())
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="50ms", WS_PORT=port) as first:
        url = first.quotes_url
        state = {"killed": False}

        def done(quotes, message):
            if message["type"] == "connection":
                state["killed"] = True
            elif not state["killed"] and message.get("versions", {}).get("AAPL", 0) > 3:
                first.process.kill()
            return state["killed"] and "AAPL" in message.get("versions", {})

        async with trio.open_nursery() as nursery:

            def restart() -> None:
                first.process.wait(TIMEOUT)
                with ServerProcess(tmp_path, WS_PORT=port):
                    ended.wait(TIMEOUT)

            ended = threading.Event()
            nursery.start_soon(trio.to_thread.run_sync, restart)
            messages = await follow_until(url, done, "AAPL")
            ended.set()
    kinds = [each["type"] for each in messages]
    assert kinds.index("connection") > 1
    (answer,) = (each for each in messages if each.get("action") == "resume")
    assert answer["recovered"] == {"AAPL": "quote"}
    assert messages[-1]["operations"][0]["op"] == "add"
