"""A client never comes back earlier than the server asks, however the server says it."""

import json
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import chain, repeat

import pytest
import trio
from trio_websocket import WebSocketRequest
from websockets.sync.client import ClientConnection, connect

import quotestream
from quotestream.core import Core
from server.client.history import HistoryClient, HistoryRefused
from server.client.publish import Publication, Summary
from server.client.published import Entry, Object
from server.reconnecting import FIRST_DELAY, LATER_RANGE, ConnectionFailed
from tests.cli.test_bars import bar, page, scripted
from tests.client.libraries import EACH
from tests.gateway.wire import new_user
from tests.memory_server import Handler
from tests.processes import ServerProcess, make_token

ASKED = json.dumps({"type": "reconnect", "after_ms": 60_000})


@pytest.mark.parametrize(
    "end",
    [
        lambda core: core.closed(1001, ""),
        lambda core: core.closed(1006, ""),
        lambda core: core.closed(4503, "at_capacity: the server is full"),
        lambda core: core.failed(ConnectionFailed("the server does not answer")),
        lambda core: core.broken("the server sent a message that is not valid"),
    ],
    ids=["closed", "cut off", "busy", "silent", "broken"],
)
def test_reconnect_holds_however_its_connection_ends(end):
    """The wait that it asks for is over with the next attempt, which may fail for another reason."""
    core = Core(["A"])
    core.opened("quotestream.v1.json", 0.0)
    assert [*core.receive(ASKED, 0.0)]
    assert core.wait(end(core), 0.0) == 60.0
    failed = core.failed(ConnectionFailed("cannot connect"))
    assert core.wait(failed, 60.0) <= 2 * FIRST_DELAY


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [("60", 60, 60), ("0", 0.5, 0.5), (None, 85, 90), ("soon", 0.5, 0.5), ("9" * 400, 3600, 3600)],
    ids=["seconds", "zero", "date", "words", "huge"],
)
def test_retry_after_of_an_http_answer_is_kept(monkeypatch, value, least, most):
    """`GET /bars` is asked again when the server allows it: seconds or a date, at most an hour."""
    if value is None:
        value = format_datetime(datetime.now(UTC) + timedelta(seconds=most), usegmt=True)
    waits = list[float]()
    monkeypatch.setattr("server.client.history.time.sleep", waits.append)
    busy = 503, {"error": {"code": "store_unavailable", "message": "later"}}, ("Retry-After", value)
    with scripted(busy, page(AAPL=[bar(30)])) as server:
        assert next(HistoryClient(server.url, "a.b.c").pages({"symbols": "AAPL"})).bars
    (wait,) = waits
    assert least <= wait <= most


@pytest.mark.parametrize(
    ("value", "told"), [("3600", "3600"), ("0", "0.5"), ("1234", "1234"), ("99", "99")]
)
def test_wait_for_history_is_told_as_a_plain_number(monkeypatch, value, told):
    """A number such as 3.6e+03 is hard to read."""
    lines = list[str]()
    monkeypatch.setattr("server.client.history.time.sleep", lambda _: None)
    busy = 503, {"error": {"code": "store_unavailable", "message": "later"}}, ("Retry-After", value)
    with scripted(busy, page(AAPL=[bar(30)])) as server:
        next(HistoryClient(server.url, "a.b.c", lines.append).pages({"symbols": "AAPL"}))
    assert lines == [f"503 store_unavailable: later; asking again in {told} s"]


def test_wait_beyond_the_patience_is_a_refusal(monkeypatch):
    """The table of `watch` is patient for 30 s, as one wait holds up all lines and charts."""
    waits = list[float]()
    monkeypatch.setattr("server.client.history.time.sleep", waits.append)
    busy = 503, {"error": {"code": "store_unavailable", "message": "later"}}
    answers = (*busy, ("Retry-After", "30")), (*busy, ("Retry-After", "31"))
    with scripted(*answers) as server, pytest.raises(HistoryRefused, match="later"):
        next(HistoryClient(server.url, "a.b.c", patience=30.0).pages({"symbols": "AAPL"}))
    assert waits == [30.0]


class Publishing:
    """A publication of one object, and the waits that it tells."""

    def __init__(self) -> None:
        self.waits: list[tuple[str, float]] = []

    def on_rejected(self, line: int, code: str, message: str) -> None:
        raise AssertionError

    def on_wait(self, problem: str, seconds: float) -> None:
        self.waits.append((problem, seconds))

    async def run(self) -> None:
        send, entries = trio.open_memory_channel[Sequence[Entry]](1)
        async with send:
            await send.send([Entry(1, Object('{"symbol":"A","price":1,"seq":1}', numbered=True))])
        publication = Publication(entries, "", Summary(), self)
        await publication.run("ws://memory/ws/prices", "token")
        assert publication.summary.answered == 1


ACK = {"type": "ack", "frames": 1, "accepted": 1, "duplicate": 0, "late": 0, "held": 0}


async def acknowledge(request: WebSocketRequest) -> None:
    socket = await request.accept()
    await socket.get_message()
    await socket.send_message(json.dumps(ACK | {"rejected": []}))
    await socket.get_message()


def before_others(first: Handler) -> Handler:
    """Return a handler that answers the first connection as `first`, and takes the prices of others."""
    handlers = chain([first], repeat(acknowledge))

    async def handler(request: WebSocketRequest) -> None:
        await next(handlers)(request)

    return handler


@pytest.mark.parametrize(("code", "least"), [(1001, 60.0), (4503, 60.0)])
async def test_publishing_stays_away_after_reconnect(serve_in_memory, autojump_clock, code, least):
    """A server that stops sends `reconnect` to publishers, too."""

    async def send_away(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.send_message(ASKED)
        await socket.aclose(code)

    publishing, came = Publishing(), serve_in_memory(before_others(send_away))
    await publishing.run()
    assert came[1] - came[0] >= least
    assert [seconds for _, seconds in publishing.waits] == [least]


async def test_publishing_stays_away_from_a_busy_server(serve_in_memory, autojump_clock):
    """A close frame has no `Retry-After`: 4503 alone asks for 1 to 5 seconds."""

    async def busy(request: WebSocketRequest) -> None:
        await (await request.accept()).aclose(4503)

    publishing, came = Publishing(), serve_in_memory(before_others(busy))
    await publishing.run()
    assert LATER_RANGE[0] <= came[1] - came[0] <= LATER_RANGE[1] + 0.01


@pytest.mark.parametrize(
    "answer",
    [
        "nonsense",
        "[" * 100_000,
        '{"type":"ack"}',
        '{"type":"reconnect","after_ms":"soon"}',
        json.dumps(ACK | {"frames": 5, "rejected": []}),
        json.dumps(ACK | {"frames": -1, "rejected": []}),
        json.dumps(ACK | {"rejected": [{"frame": 9, "line": 1, "code": "x", "message": ""}]}),
        json.dumps(ACK | {"rejected": [{"frame": 0, "line": 1, "code": "x", "message": ""}]}),
        json.dumps(ACK | {"rejected": [{"frame": 1, "line": 2, "code": "x", "message": ""}]}),
        json.dumps(ACK | {"rejected": [{"frame": 1, "line": 0, "code": "x", "message": ""}]}),
    ],
)
async def test_publishing_leaves_a_server_that_sends_nonsense(
    serve_in_memory, autojump_clock, answer
):
    """The answer counts for nothing. The next connection sends the object again."""

    async def nonsense(request: WebSocketRequest) -> None:
        socket = await request.accept()
        await socket.get_message()
        await socket.send_message(answer)
        await socket.get_message()

    publishing = Publishing()
    serve_in_memory(before_others(nonsense))
    with trio.fail_after(60):
        await publishing.run()
    (wait,) = publishing.waits
    assert wait[0].startswith("the server sent a message that is not valid: ")


class FreeThePlace(logging.Handler):
    """Ends the connection that holds the server's only place, once another client was refused."""

    def __init__(self, holder: ClientConnection) -> None:
        super().__init__()
        self.holder = holder
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note the client's warning."""
        self.told.append(record.getMessage())
        self.refused_at = time.monotonic()
        self.holder.close()


@EACH
def test_full_server_is_asked_again_after_its_retry_after(run, tmp_path):
    """A real server whose place is taken asks for 1 to 5 seconds. Its place is free long before."""

    async def story() -> None:
        client = quotestream.connect(server.quotes_url, token=make_token(new_user()))
        async with client:
            came.append(time.monotonic())

    came, logger = list[float](), logging.getLogger("quotestream")
    with (
        ServerProcess(tmp_path, WS_MAX_CONNECTIONS="1") as server,
        connect(f"{server.quotes_url}?token={make_token(new_user())}") as holder,
    ):
        handler = FreeThePlace(holder)
        logger.addHandler(handler)
        try:
            run(story)
        finally:
            logger.removeHandler(handler)
    assert len(handler.told) == 1
    assert "all connections are taken; the next attempt comes in " in handler.told[0]
    assert came[0] - handler.refused_at >= 1.0
