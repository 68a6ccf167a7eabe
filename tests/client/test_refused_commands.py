"""Commands of `quotestream.connect` that a server refuses in part, on trio and asyncio."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from websockets.sync.server import ServerConnection, serve
from websockets.typing import Subprotocol

import quotestream
from tests.client.libraries import EACH
from tests.processes import ServerProcess, make_token


@EACH
def test_refusal_names_its_symbols_and_the_others_count(run, tmp_path):
    """Unknown symbols are named. A command over the limit is refused as a whole, so it names none."""

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
            assert refused.value.symbols == ()

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


@contextmanager
def refusing() -> Iterator[str]:
    """Serve clients that get an error for each symbol to which they subscribe. Return the address."""
    codes = {"NOPE": "unknown_symbol", "AWAY": "store_unavailable"}

    def answer(connection: ServerConnection) -> None:
        for text in connection:
            command = json.loads(text)
            if command["action"] == "ping":
                connection.send(json.dumps({"type": "pong", "ts": 0, "id": command["id"]}))
            for symbol in command.get("symbols", ()):
                error = {"type": "error", "code": codes[symbol], "message": "no"}
                connection.send(json.dumps(error | {"id": command["id"], "symbols": [symbol]}))

    form = Subprotocol("quotestream.v1.json")
    with serve(answer, "127.0.0.1", 0, subprotocols=[form]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
