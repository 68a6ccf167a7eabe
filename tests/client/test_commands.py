"""Commands of `quotestream.connect` on trio and asyncio: refused in part, too fast, and cancelled."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from websockets.sync.server import ServerConnection

import quotestream
from quotestream import Quotes
from tests.client.following import FULL, foreign_server, message
from tests.client.libraries import EACH, on_asyncio, on_trio
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, make_token


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("commands"), PRICE_UPDATE_INTERVAL="50ms") as server:
        yield server


def client(server: ServerProcess, *symbols: str, **options: Any) -> Quotes:
    token = make_token(new_user())
    return quotestream.connect(
        server.quotes_url, token=token, symbols=symbols or ["AAPL"], **options
    )


@EACH
def test_refused_symbols_are_named_with_the_reason(run, server):
    """The others of the same command are subscribed. The error's text tells both."""

    async def story() -> None:
        async with client(server) as quotes:
            with pytest.raises(quotestream.CommandRefused) as refused:
                await quotes.subscribe(["MSFT", "NOPE", "NIX"])
            assert str(refused.value) == "no such symbol: NOPE, NIX"
            assert (refused.value.code, refused.value.symbols) == (
                "unknown_symbol",
                ("NOPE", "NIX"),
            )
            assert refused.value.reasons == dict.fromkeys(("NOPE", "NIX"), "no such symbol")
            await quotes.until(lambda: {*quotes} == {"AAPL", "MSFT"})
            assert not quotes.errors

    run(story)


@EACH
def test_symbols_come_and_go(run, server):
    """Each command returns when the server has carried it out. An empty list asks for nothing."""

    async def story() -> None:
        async with client(server) as quotes:
            await quotes.subscribe([])
            await quotes.subscribe(["msft"])
            await quotes.until(lambda: "MSFT" in quotes)
            await quotes.unsubscribe(["AAPL", "aapl"])
            await quotes.unsubscribe([])
            assert [*quotes] == ["MSFT"]
            await quotes.throttle("300ms")
            assert quotes.interval == pytest.approx(0.5)
            await quotes.throttle(0)
            assert quotes.interval == 0
            with pytest.raises(ValueError, match="'soon' is not a duration"):
                await quotes.throttle("soon")
            assert not quotes.errors

    run(story)


@EACH
def test_bars_come_and_end(run, server):
    """After `stop`, iterating ends, also in a task that waits. A second `stop` does nothing."""

    async def story() -> None:
        async with client(server) as quotes:
            bars = await quotes.bars(["AAPL"])
            bar = await anext(bars)
            assert (bar.symbol, bar.timeframe) == ("AAPL", "1m")
            same = await quotes.bars(["AAPL"])
            await bars.stop()
            await bars.stop()
            assert [each async for each in bars] == []
            # The other iterator of the same bars goes on.
            first = await anext(same)
            while (await anext(same)) == first:
                pass
            await same.stop()
            assert not quotes.errors

    run(story)


@EACH
def test_unknown_timeframe_names_those_that_exist(run, server):
    """No connection is needed to say so."""

    async def story() -> None:
        async with client(server) as quotes:
            with pytest.raises(ValueError, match="7m") as refused:
                await quotes.bars(["AAPL"], "7m")
        assert str(refused.value) == (
            "'7m' is not one of the timeframes 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w"
        )

    run(story)


@EACH
def test_bars_that_are_refused_in_part_leave_nothing(run, server):
    """The application gets no iterator, so the server sends no bars."""

    async def story() -> None:
        async with client(server) as quotes:
            with pytest.raises(quotestream.CommandRefused, match="no such symbol: NOPE"):
                await quotes.bars(["AAPL", "NOPE"])
            with pytest.raises(quotestream.CommandRefused, match="not subscribed"):
                await quotes._command(lambda n: quotes._core.no_bars(["AAPL"], "1m", id=n))
            assert not quotes._bars
            assert not quotes._core.wanted.bars

    run(story)


@EACH
def test_commands_that_come_too_fast_are_refused(run, tmp_path):
    """The server may refuse a command, or the ping behind it. No call waits for ever."""

    async def story() -> None:
        with ServerProcess(tmp_path, WS_COMMAND_RATE="2", FEED="push") as server:
            async with client(server) as quotes:
                codes = []
                for number in range(6):
                    try:
                        await quotes.subscribe([f"N{number}"])
                    except quotestream.CommandRefused as refused:
                        codes.append(refused.code)
                assert codes[0] == "unknown_symbol"
                assert codes[-1] == "rate_limited"
                assert [*quotes] == ["AAPL"]

    run(story)


def cancel_on_trio(quotes: Quotes) -> Callable[[], Any]:
    async def story() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await quotes.subscribe(["MSFT"])
        with trio.CancelScope() as scope:
            scope.cancel()
            await quotes.bars(["AAPL"], "5m")

    return story


def cancel_on_asyncio(quotes: Quotes) -> Callable[[], Any]:
    async def story() -> None:
        for command in quotes.subscribe(["MSFT"]), quotes.bars(["AAPL"], "5m"):
            task = asyncio.ensure_future(command)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    return story


@pytest.mark.parametrize(
    ("run", "cancel"), [(on_trio, cancel_on_trio), (on_asyncio, cancel_on_asyncio)]
)
def test_cancelled_command_reaches_the_server_as_a_whole(run, cancel, server):
    """A command whose caller is cancelled at once is carried out, and the next ones work. Bars, whose
    iterator nobody has, are given up.
    """

    async def story() -> None:
        async with client(server) as quotes:
            await cancel(quotes)()
            await quotes.until(lambda: "MSFT" in quotes)
            await quotes.subscribe(["TSLA"])
            await quotes.until(lambda: "TSLA" in quotes)
            assert not quotes._bars
            assert not quotes._core.wanted.bars
            assert not quotes._answers._by_id
            assert quotes.state == "live"

    run(story)


@EACH
def test_quote_given_up_goes_also_if_the_connection_is_lost_before_the_answer(run):
    """The next connection does not ask for the symbol. Its quote leaves the mapping, as a change."""
    connections: list[ServerConnection] = []

    def answer(connection: ServerConnection) -> None:
        connections.append(connection)
        if len(connections) == 1:
            connection.send(message(1, FULL, epoch="e"))
        for text in connection:
            command = json.loads(text)
            if command["action"] == "unsubscribe":
                return
            connection.send(json.dumps({"type": "pong", "ts": 1, "id": command["id"]}))

    async def story() -> None:
        async with quotestream.connect(url, token="x", symbols=["A"], format="json") as quotes:
            assert (await anext(quotes)).quote is not None
            await quotes.unsubscribe(["A"])
            await quotes.until(lambda: quotes.state == "live")
            assert not quotes
            assert (await anext(quotes)).quote is None

    with foreign_server(answer) as url:
        run(story)


@EACH
@pytest.mark.parametrize("how", ["lost", "stale"])
def test_bars_of_an_interruption_may_be_missing(run, how):
    """After a lost connection, and once prices flow again, `missed` names the symbols."""
    stale, live = ({"type": "status", "status": each, "reason": "x"} for each in ("stale", "live"))
    connections: list[ServerConnection] = []

    def answer(connection: ServerConnection) -> None:
        connections.append(connection)
        for text in connection:
            command = json.loads(text)
            kind = {"type": "pong" if command["action"] == "ping" else "ack"}
            connection.send(json.dumps({"symbols": command.get("bars", [])} | command | kind))

    async def story() -> None:
        async with quotestream.connect(url, token="x", format="json") as quotes:
            bars = await quotes.bars(["A", "B"])
            assert bars.missed == set()
            if how == "lost":
                connections[0].close()
            else:
                connections[0].send(json.dumps(stale))
                await quotes.until(lambda: quotes.state == "stale")
                assert bars.missed == set()
                connections[0].send(json.dumps(live))
            await quotes.until(lambda: bars.missed == {"A", "B"} and quotes.state == "live")
            later = await quotes.bars(["A"], "5m")
            assert later.missed == set()

    with foreign_server(answer) as url:
        run(story)
