"""Real servers under clients of every form: killed, frozen, and with messages that get lost."""

import copy
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import trio
from trio_websocket import WebSocketConnection

from bench.services import free_port
from server.quotes.view import FORMS, Form
from tests.client.following import TIMEOUT, follow_until
from tests.processes import ServerProcess

View = tuple[Form, tuple[str, ...]]

VIEWS: list[View] = [
    (form, fields) for form in FORMS for fields in ((), ("current_price", "volume"))
]
"""Each form with all fields, and with some."""

EACH = pytest.mark.parametrize(("form", "fields"), VIEWS)

SYMBOLS = "AAPL,MSFT"

Seen = dict[tuple[str, str, int], dict[str, Any]]
"""Quotes by epoch, symbol and version."""


class Record:
    """Keeps each quote that a client had, by epoch, symbol and version."""

    def __init__(self) -> None:
        self.seen: Seen = {}
        self.moves: dict[str, int] = defaultdict(int)
        self.epoch = ""

    def note(self, quotes: dict[str, Any], message: dict[str, Any]) -> None:
        """Take in a message of the client."""
        self.epoch = message.get("epoch", self.epoch)
        for symbol, version in message.get("versions", {}).items():
            self.seen[self.epoch, symbol, version] = copy.copy(quotes[symbol])
            self.moves[symbol] += "epoch" not in message


@contextmanager
def lively_server(folder: Any, **variables: str) -> Iterator[ServerProcess]:
    """Run a server whose prices move twenty times a second."""
    with ServerProcess(folder, PRICE_UPDATE_INTERVAL="50ms", **variables) as server:
        yield server


def agree(records: dict[View, Record]) -> int:
    """Assert that all clients saw the same quote of each version. Return the number of comparisons."""
    reference = records["json", ()].seen
    compared = 0
    for (form, fields), record in records.items():
        for key in record.seen.keys() & reference.keys():
            expected = reference[key]
            expected = {field: expected[field] for field in fields or expected}
            assert record.seen[key] == expected, (form, fields, key)
            compared += 1
    return compared


async def test_clients_of_all_forms_see_the_same_quotes(tmp_path):
    """Six clients follow one server in different views. All have the same values at each version."""
    records: dict[View, Record] = {view: Record() for view in VIEWS}

    async def follow(form: Form, fields: tuple[str, ...], url: str) -> None:
        record = records[form, fields]

        def done(quotes: Any, message: Any) -> bool:
            record.note(quotes, message)
            return min(record.moves["AAPL"], record.moves["MSFT"]) >= 10

        messages = await follow_until(url, done, SYMBOLS, 60, format=form, fields=fields)
        assert not [each for each in messages if each.get("action") == "resync"]

    with lively_server(tmp_path) as server:
        async with trio.open_nursery() as clients:
            for form, fields in VIEWS:
                clients.start_soon(follow, form, fields, server.quotes_url)
    assert agree(records) > 10 * len(VIEWS)


@EACH
async def test_lost_message_is_asked_for_again(tmp_path, monkeypatch, form, fields):
    """If a change is lost on its way, the client notices it with the next one, and asks once for the
    full quote.
    """
    received = 0
    get_message = WebSocketConnection.get_message

    async def lose_one(socket: WebSocketConnection) -> str | bytes:
        nonlocal received
        message = await get_message(socket)
        received += 1
        return await get_message(socket) if received == 10 else message

    monkeypatch.setattr(WebSocketConnection, "get_message", lose_one)
    after: list[dict[str, Any]] = []

    def done(quotes: Any, message: Any) -> bool:
        if after or message.get("action") == "resync":
            after.append(message)
        return len(after) > 5

    with lively_server(tmp_path) as server:
        messages = await follow_until(server.quotes_url, done, "AAPL", format=form, fields=fields)
    asked = [each for each in messages if each.get("action") == "resync"]
    assert [each["symbols"] for each in asked] == [["AAPL"]]
    (first, *rest) = [each["versions"]["AAPL"] for each in after if each["type"] == "quotes_patch"]
    assert all(first < version for version in rest)


@EACH
async def test_frozen_server_is_left_and_resumed(tmp_path, monkeypatch, form, fields):
    """If a server freezes, the client leaves it. When the server runs again, the client resumes from
    what it holds, without a resync.
    """
    for name in ("PING_INTERVAL", "PING_TIMEOUT"):
        monkeypatch.setattr(f"server.websocket_client.{name}", 0.4)
    monkeypatch.setattr("server.reconnecting.FIRST_DELAY", 0.4)
    lost: list[int] = []
    recovered: list[Any] = []

    with lively_server(tmp_path) as server:

        def done(quotes: Any, message: Any) -> bool:
            if message["type"] == "connection":
                lost.append(message["problem"])
                server.process.send_signal(signal.SIGCONT)
            elif not lost and message.get("versions", {}).get("AAPL", 0) > 5:
                server.process.send_signal(signal.SIGSTOP)
            elif message.get("recovered"):
                recovered.append(message["recovered"]["AAPL"])
            return bool(recovered) and "AAPL" in message.get("versions", {})

        try:
            messages = await follow_until(
                server.quotes_url, done, "AAPL", 30, format=form, fields=fields
            )
        finally:
            server.process.send_signal(signal.SIGCONT)
    assert lost
    assert recovered[0] in {"current", "patches"}
    assert not [each for each in messages if each.get("action") == "resync"]


@EACH
async def test_killed_server_s_successor_gives_full_quotes(tmp_path, form, fields):
    """After a crash, the client comes back to the next server, and gets the full quote of the new
    epoch.
    """
    port = str(free_port())
    killed = threading.Event()
    ended = threading.Event()

    def done(quotes: Any, message: Any) -> bool:
        if message["type"] == "connection":
            killed.set()
        elif not killed.is_set() and message.get("versions", {}).get("AAPL", 0) > 3:
            first.process.kill()
        return killed.is_set() and "epoch" in message

    def restart() -> None:
        first.process.wait(TIMEOUT)
        with lively_server(tmp_path, WS_PORT=port):
            ended.wait(2 * TIMEOUT)

    with lively_server(tmp_path, WS_PORT=port) as first:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, restart)
            try:
                messages = await follow_until(
                    first.quotes_url, done, "AAPL", 2 * TIMEOUT, format=form, fields=fields
                )
            finally:
                ended.set()
    (answer,) = (each for each in messages if each.get("action") == "resume")
    assert answer["recovered"] == {"AAPL": "quote"}
    (operation,) = messages[-1]["operations"]
    assert operation["op"] == "add"
    assert operation["value"].keys() >= set(fields or ("symbol", "change", "change_percent"))
