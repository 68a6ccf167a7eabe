"""A client that stays: it resyncs, reconnects, waits as long as it is asked to, and gives up when
there is no hope.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from websockets.datastructures import Headers
from websockets.http11 import Response
from websockets.sync.server import ServerConnection, serve

from server.client.stream import StreamRefused, follow
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, make_token

TIMEOUT = 15.0

FULL = {"op": "add", "path": "/quotes/A", "value": {"current_price": 1.0}}
MOVE = {"op": "replace", "path": "/quotes/A/current_price", "value": 2.0}


def message(version: int, operation: dict[str, Any]) -> str:
    """A `quotes_patch` of a server that is not ours."""
    return json.dumps(
        {"type": "quotes_patch", "ts": 1, "versions": {"A": version}, "operations": [operation]}
    )


@contextmanager
def foreign_server(
    handler: Callable[[ServerConnection], None],
    process_request: Callable[..., Response | None] | None = None,
) -> Iterator[str]:
    """A server that does what no proper one does; its address."""
    with serve(handler, "127.0.0.1", 0, process_request=process_request) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws/quotes"
        server.shutdown()
        thread.join()


class Seen(Exception):
    """Raised out of the listener once it has seen what it was waiting for."""


async def follow_until(
    url: str, done: Callable[[Any, Any], bool], symbols: str = "A"
) -> list[dict[str, Any]]:
    """Follow until `done(quotes, message)`; all messages."""
    messages: list[dict[str, Any]] = []

    def listener(document, message):
        messages.append(message)
        if done(document.quotes, message):
            raise Seen

    with trio.fail_after(TIMEOUT), pytest.raises(Seen):
        await follow(url, make_token(new_user()), symbols.split(","), listener)
    return messages


async def test_quotes_of_a_real_server(server):
    """The document holds each quote asked for, and moves."""
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


async def test_the_delay_asked_for_is_kept():
    """After `reconnect` the client is away for `after_ms`, then back."""
    came = []

    def send_away(connection: ServerConnection) -> None:
        came.append(time.monotonic())
        if len(came) == 1:
            connection.send(json.dumps({"type": "reconnect", "after_ms": 1500}))
            connection.close(1001)
        else:
            connection.send(message(1, FULL))

    with foreign_server(send_away) as url:
        messages = await follow_until(url, lambda quotes, _: "A" in quotes)
    assert 1.4 < came[1] - came[0] < 3
    assert [each["retry_in"] for each in messages if each["type"] == "connection"] == [1.5]


async def test_retry_after_is_kept():
    """A full server is asked again when it said."""
    asked = []

    def full_once(connection: ServerConnection, _: object) -> Response | None:
        asked.append(time.monotonic())
        if len(asked) > 1:
            return None
        return Response(
            503, "Service Unavailable", Headers({"Retry-After": "1", "Content-Length": "0"}), b""
        )

    with foreign_server(lambda connection: connection.send(message(1, FULL)), full_once) as url:
        await follow_until(url, lambda quotes, _: "A" in quotes)
    assert 0.9 < asked[1] - asked[0] < 3


async def test_refusal_is_final(server):
    """A request that no time will cure is not repeated; the server's words are passed on."""
    for token, symbols, words in (("bad", "AAPL", "token"), ("", "AAPL", "token is required")):
        with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match=words):
            await follow(server.quotes_url, token, [symbols], lambda *_: None)
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="none of the symbols"):
        await follow(server.quotes_url, make_token(new_user()), ["NOPE"], lambda *_: None)


async def test_expired_token_is_final(server):
    """When the token ends there is nothing to come back with."""
    with trio.fail_after(TIMEOUT), pytest.raises(StreamRefused, match="expired"):
        await follow(server.quotes_url, make_token(lifetime=1.0), ["AAPL"], lambda *_: None)


async def test_killed_server_is_found_again(tmp_path):
    """The document starts anew on the server that took the place of the one that was killed."""
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="50ms") as first:
        port = str(first.address[1])
        url = first.quotes_url
        state = {"killed": False}

        def done(quotes, message):
            if message["type"] == "connection":
                state["killed"] = True
            elif not state["killed"] and message.get("versions", {}).get("AAPL", 0) > 3:
                first.process.kill()
            return state["killed"] and "AAPL" in quotes

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
    assert messages[-1]["operations"][0]["op"] == "add"
