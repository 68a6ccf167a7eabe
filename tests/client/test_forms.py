"""The client negotiates the form of its messages, and resumes and resyncs in each."""

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest

from server.client.stream import follow
from server.quotes.view import Form
from tests.client.following import FULL, URL, Seen, message, raise_when
from tests.client.forms import EPOCH, Encoder
from tests.client.test_decoder import quote
from tests.fanout.peer import START_US

OFFERED = {
    None: ["compact", "json"],
    "compact": ["compact", "json"],
    "json": ["json"],
    "msgpack": ["msgpack", "json"],
}
"""The subprotocols that the client offers, by the form that its caller asks for."""

Script = Callable[[WebSocketConnection, Encoder], Awaitable[None]]


@pytest.mark.parametrize("form", OFFERED)
@pytest.mark.parametrize("choice", ["quotestream.v1.json", None])
async def test_server_without_compact_forms_is_followed(serve_in_memory, nursery, form, choice):
    """Whatever form the caller asks for, the client follows a server that picks JSON, or nothing."""
    offers: list[list[str]] = []

    async def answer(request: WebSocketRequest) -> None:
        offers.append(
            [each.removeprefix("quotestream.v1.") for each in request.proposed_subprotocols]
        )
        socket = await request.accept(subprotocol=choice)
        await socket.send_message(message(1, FULL))
        await socket.get_message()

    serve_in_memory(answer)
    with trio.fail_after(5), pytest.raises(Seen):
        await follow(URL, "token", ["A"], raise_when(lambda quotes, _: "A" in quotes), format=form)
    assert offers == [OFFERED[form]]


async def follow_script(
    serve_in_memory: Any,
    form: Form,
    scripts: list[Script],
    until: Callable[..., bool],
    **options: Any,
) -> tuple[list[dict[str, Any]], list[dict[str, list[str]]]]:
    """Follow a server that runs a script on each connection. Return the messages that the listener saw
    and the queries of the requests.
    """
    seen: list[dict[str, Any]] = []
    queries: list[dict[str, list[str]]] = []

    async def answer(request: WebSocketRequest) -> None:
        script = scripts[len(queries)]
        queries.append(parse_qs(urlsplit(request.path).query))
        encoder = Encoder(form, **options)
        assert request.proposed_subprotocols[0] == encoder.subprotocol
        socket = await request.accept(subprotocol=encoder.subprotocol)
        await socket.send_message(encoder.schema())
        await script(socket, encoder)
        await socket.aclose(1001)

    def listen(quotes: Any, received: dict[str, Any]) -> bool:
        seen.append(received)
        return until(quotes, received)

    serve_in_memory(answer)
    with trio.fail_after(60), pytest.raises(Seen):
        await follow(URL, "token", ["AAPL"], raise_when(listen), format=form, **options)
    return seen, queries


BOTH = pytest.mark.parametrize("form", ["compact", "msgpack"])


@BOTH
async def test_listener_sees_patches_in_every_form(serve_in_memory, autojump_clock, form):
    """A listener gets the same messages in all forms. The schema is not among them."""
    first, second = quote(175.0), quote(176.0)

    async def script(socket: WebSocketConnection, encoder: Encoder) -> None:
        await socket.send_message(encoder.full(7, first, ts=START_US))
        status = {"type": "status", "status": "live", "reason": "feed_started"}
        await socket.send_message(encoder.pack(status))
        await socket.send_message(encoder.change(8, first, second, START_US + 1))
        await socket.get_message()

    seen, _ = await follow_script(
        serve_in_memory, form, [script], lambda _, last: last.get("versions") == {"AAPL": 8}
    )
    assert [each["type"] for each in seen] == ["quotes_patch", "status", "quotes_patch"]
    add, _, replace = seen
    assert (add["epoch"], add["versions"], add["ts"]) == (EPOCH, {"AAPL": 7}, START_US)
    (full,) = add["operations"]
    assert (full["op"], full["path"], full["value"]["change"]) == ("add", "/quotes/AAPL", 35.48)
    assert (replace["type"], replace["ts"]) == ("quotes_patch", START_US + 1)
    changed = {each["path"].rpartition("/")[2]: each["value"] for each in replace["operations"]}
    assert changed["current_price"] == 176.0
    assert (changed["change"], changed["change_percent"]) == (36.48, 26.1468)


@BOTH
@pytest.mark.parametrize("chosen", [False, True])
async def test_gap_is_resynced_and_position_resumed(serve_in_memory, autojump_clock, form, chosen):
    """In each form, and with chosen fields, the client asks for a full quote after a gap. It resumes
    from the last version that it can prove.
    """
    first, second = quote(175.0), quote(176.0)
    asked: list[Any] = []

    async def skip(socket: WebSocketConnection, encoder: Encoder) -> None:
        await socket.send_message(encoder.full(7, first, ts=START_US))
        version = (8, 9) if chosen else 9
        await socket.send_message(encoder.change(version, first, second, START_US))
        command = await socket.get_message()
        assert isinstance(command, bytes) == (form == "msgpack")
        asked.append(
            msgspec.msgpack.decode(command) if isinstance(command, bytes) else json.loads(command)
        )
        await socket.send_message(encoder.full(9, second, ts=START_US))
        version = (9, 12) if chosen else 10
        await socket.send_message(encoder.change(version, second, first, START_US))

    async def resume(socket: WebSocketConnection, encoder: Encoder) -> None:
        recovered = {"AAPL": "patches"}
        ack = {"type": "ack", "action": "resume", "symbols": ["AAPL"], "recovered": recovered}
        await socket.send_message(encoder.pack(ack))
        version = (12, 14) if chosen else 11
        await socket.send_message(encoder.change(version, first, second, START_US))
        await socket.get_message()

    last = 14 if chosen else 11
    options = {"fields": ["current_price"]} if chosen else {}
    seen, queries = await follow_script(
        serve_in_memory,
        form,
        [skip, resume],
        lambda _, received: received.get("versions") == {"AAPL": last},
        **options,
    )
    assert asked == [{"action": "resync", "symbols": ["AAPL"]}]
    assert queries[1]["resume"] == [f"{EPOCH}:AAPL={12 if chosen else 10}"]
    assert queries[0].get("fields") == (["current_price"] if chosen else None)
    assert "connection" in [each["type"] for each in seen]


async def test_message_that_is_not_valid_ends_the_connection(serve_in_memory, autojump_clock):
    """The client leaves a server whose message it cannot read, and comes back."""
    first = quote(175.0)

    async def break_it(socket: WebSocketConnection, encoder: Encoder) -> None:
        await socket.send_message(encoder.pack(["s", EPOCH, START_US, [["AAPL", 7, 1 << 40]]]))
        await socket.send_message(encoder.pack(["u", START_US, [["AAPL", 8, 1]]]))
        # It raises when the client leaves.
        await socket.get_message()

    async def good(socket: WebSocketConnection, encoder: Encoder) -> None:
        await socket.send_message(encoder.full(7, first, ts=START_US))
        await socket.get_message()

    seen, _ = await follow_script(
        serve_in_memory,
        "compact",
        [break_it, good],
        lambda quotes, _: quotes.get("AAPL", {}).get("current_price") == 175.0,
    )
    (lost,) = [each for each in seen if each["type"] == "connection"]
    assert "not valid" in lost["problem"]
