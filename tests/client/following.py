"""Follows a server, real or in memory, for the tests of the client."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from websockets.sync.server import ServerConnection, serve

from server.client.stream import Listener, follow
from tests.gateway.wire import new_user
from tests.processes import make_token

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
    url: str,
    done: Callable[[Any, Any], bool],
    symbols: str = "A",
    patience: float = TIMEOUT,
    **options: Any,
) -> list[dict[str, Any]]:
    """Follow until `done(quotes, message)`, and return all messages. `options` are for `follow`."""
    messages: list[dict[str, Any]] = []

    def seen(quotes, message):
        messages.append(message)
        return done(quotes, message)

    token = make_token(new_user())
    with trio.fail_after(patience), pytest.raises(Seen):
        await follow(url, token, symbols.split(","), raise_when(seen), **options)
    return messages
