"""Commands of `quotestream.connect` that a server refuses in part, on trio and asyncio."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

import quotestream
from tests.client.following import foreign_server
from tests.client.libraries import EACH
from tests.processes import ServerProcess, make_token


@EACH
def test_refusal_names_its_symbols_and_the_others_count(run, tmp_path):
    """The error names unknown symbols, and all symbols of a command over the limit."""

    async def story() -> None:
        async with quotestream.connect(url, token=make_token(), symbols=["AAPL"]) as quotes:
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(["MSFT", "nope", "NEITHER"])
            assert refused.value.code == "unknown_symbol"
            assert refused.value.symbols == ("NOPE", "NEITHER")
            await quotes.until(lambda: "MSFT" in quotes)
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.bars(["NOPE"])
            assert refused.value.symbols == ("NOPE",)
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(["TSLA", "NFLX"])
            assert refused.value.code == "too_many_symbols"
            assert refused.value.symbols == ("TSLA", "NFLX")
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.bars(["TSLA", "NFLX"])
            assert refused.value.symbols == ("TSLA", "NFLX")
            assert str(refused.value).endswith(": TSLA, NFLX")

    with ServerProcess(tmp_path, WS_MAX_SYMBOLS="3") as server:
        url = server.quotes_url
        run(story)


@EACH
def test_refusals_for_several_reasons_are_one_error(run):
    """The error has the first reason, and the symbols of all."""

    async def story() -> None:
        async with quotestream.connect(url, token="x", format="json") as quotes:
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(["NOPE", "AWAY"])
            assert refused.value.code == "unknown_symbol"
            assert refused.value.symbols == ("NOPE", "AWAY")

    with refusing() as url:
        run(story)


@EACH
def test_refusal_without_symbols_is_about_those_without_an_answer(run):
    """A long command goes in two parts. The server accepts the first one, and refuses the second as a
    whole: the client asks again for the symbols of the first only.
    """
    symbols = [f"{number:05}{'X' * 44}" for number in range(400)]

    async def story() -> None:
        async with quotestream.connect(url, token="x", format="json") as quotes:
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(symbols)
            named = refused.value.symbols
            assert 0 < len(named) < len(symbols)
            assert list(named) == symbols[-len(named) :]
            assert quotes._core.wanted.symbols == symbols[: -len(named)]
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.throttle("1s")
            assert refused.value.symbols == ()
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.unsubscribe(["A", "NOPE", "B"])
            assert refused.value.reasons == {"NOPE": "no", "A": "too fast", "B": "too fast"}

    with refusing() as url:
        run(story)


@EACH
def test_refusal_of_one_part_is_not_about_the_others(run):
    """A long command goes in several messages. The server refuses the first one without a name."""
    names = [f"SYMBOL{number:04}" for number in range(2000)]
    parts: list[list[str]] = []

    def answer(connection: ServerConnection) -> None:
        for text in connection:
            command = json.loads(text)
            about = {"id": command["id"]}
            if command["action"] == "ping":
                answer = {"type": "pong"}
            elif parts:
                parts.append(command["symbols"])
                answer = {"type": "ack", "action": "subscribe", "symbols": command["symbols"]}
            else:
                parts.append(command["symbols"])
                answer = {"type": "error", "code": "rate_limited", "message": "too fast"}
            connection.send(json.dumps(answer | about))

    async def story() -> None:
        async with quotestream.connect(url, token="x", format="json") as quotes:
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(names)
            assert len(parts) == 3
            assert refused.value.symbols == tuple(parts[0])
            assert set(quotes._core.wanted.symbols) == {*parts[1], *parts[2]}

    with foreign_server(answer) as url:
        run(story)


@EACH
def test_symbol_that_no_answer_names_draws_no_later_refusal(run):
    """The server acknowledges the first message of a long command without one of its symbols. A refusal
    without symbols is about the second message all the same.
    """
    names = [f"SYMBOL{number:04}" for number in range(2000)]
    parts: list[list[str]] = []

    def answer(connection: ServerConnection) -> None:
        for text in connection:
            command = json.loads(text)
            answer = {"type": "pong"}
            if command["action"] != "ping":
                parts.append(command["symbols"])
                named = command["symbols"][1:]
                answer = {"type": "ack", "action": "subscribe", "symbols": named}
                if len(parts) == 2:
                    answer = {"type": "error", "code": "rate_limited", "message": "too fast"}
            connection.send(json.dumps(answer | {"id": command["id"]}))

    async def story() -> None:
        async with quotestream.connect(url, token="x", format="json") as quotes:
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(names)
            assert refused.value.symbols == tuple(parts[1])
            assert set(quotes._core.wanted.symbols) == {*parts[0], *parts[2]}

    with foreign_server(answer) as url:
        run(story)


@contextmanager
def refusing() -> Iterator[str]:
    """Serve clients. NOPE and AWAY are refused by name. Of the other commands, the server carries out
    each client's first, and refuses the rest as too fast, without symbols. Return the address.
    """
    codes = {"NOPE": "unknown_symbol", "AWAY": "store_unavailable"}

    def answer(connection: ServerConnection) -> None:
        fast = False
        for text in connection:
            command = json.loads(text)
            about = {"id": command["id"]}
            if command["action"] == "ping":
                connection.send(json.dumps({"type": "pong", "ts": 0} | about))
                continue
            symbols = command.get("symbols", [])
            for symbol in (each for each in symbols if each in codes):
                error = {"type": "error", "code": codes[symbol], "message": "no"} | about
                connection.send(json.dumps(error | {"symbols": [symbol]}))
            if codes.keys() >= set(symbols) != set():
                continue
            if fast:
                error = {"type": "error", "code": "rate_limited", "message": "too fast"}
                connection.send(json.dumps(error | about))
            else:
                ack = {"type": "ack", "action": command["action"], "symbols": symbols}
                connection.send(json.dumps(ack | about))
            fast = True

    form = Subprotocol("quotestream.v1.json")
    with serve(answer, "127.0.0.1", 0, subprotocols=[form]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
