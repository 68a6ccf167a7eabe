"""The client waits as long as the server asks, comes back, and gives up if it is refused for good."""

import json
import threading
import traceback
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketRequest
from websockets.sync.server import serve

from bench.services import free_port
from server.client.stream import StreamRefused, follow
from server.reconnecting import (
    FIRST_DELAY,
    LASTING,
    LONGEST_DELAY,
    PING_INTERVAL,
    PING_TIMEOUT,
)
from tests.client.following import (
    FULL,
    TIMEOUT,
    URL,
    follow_until,
    message,
)
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, make_token


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


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        (b"7", 7, 7),
        (b"0", 0, FIRST_DELAY),
        (None, 1750, 1800),
        (b"Fri, 31 Dec 1999 23:59:59 GMT", 0, FIRST_DELAY),
        (b"in a minute", 0, FIRST_DELAY),
        (b"9" * 400, 3600, 3600),
        (b"Fri, 31 Dec 9999 23:59:59 GMT", 3600, 3600),
    ],
    ids=["seconds", "zero", "date", "past", "words", "huge", "far"],
)
async def test_retry_after_is_kept(serve_in_memory, autojump_clock, value, least, most):
    """A client asks a full server again after its `Retry-After`, which is seconds or a date (RFC 9110
    §10.2.3). It waits an hour at most.
    """
    if value is None:
        moment = datetime.now(UTC) + timedelta(seconds=most)
        value = format_datetime(moment, usegmt=True).encode()

    async def full_once(request: WebSocketRequest) -> None:
        if len(came) == 1:
            await request.reject(503, extra_headers=[(b"Retry-After", value)])
        else:
            socket = await request.accept()
            await socket.send_message(message(1, FULL))
            await socket.get_message()

    came = serve_in_memory(full_once)
    await follow_until(URL, lambda quotes, _: "A" in quotes, patience=2 * most + TIMEOUT)
    assert least - 0.01 <= came[1] - came[0] <= most + 0.01


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
    library = ("running.py", "credential.py", "core.py", "trio_driver.py")
    ours = ("server/client/stream.py", "server/websocket_client.py", *library)
    frames = [each for each in shown.stack if each.filename.endswith(ours)]
    assert frames
    assert not any(token in str(each.locals) for each in frames)


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
