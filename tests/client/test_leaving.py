"""Leaving `async with quotestream.connect` in every way: nothing hangs, and nothing is left behind."""

import asyncio
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import trio

import quotestream
from quotestream import Quotes
from tests.client.libraries import EACH, PATIENCE, on_asyncio, on_trio
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, eventually, make_token

UNTIL_INTERRUPTED = """
import {library}, quotestream, sys
async def main():
    async with quotestream.connect(sys.argv[1], token=sys.argv[2], symbols=["AAPL"]) as quotes:
        print("connected", flush=True)
        await quotes.until(lambda: False)
{library}.run(main{call})
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("leaving"), PRICE_UPDATE_INTERVAL="50ms") as server:
        yield server


def client(server: ServerProcess) -> Quotes:
    url = server.quotes_url
    return quotestream.connect(url, token=make_token(new_user()), symbols=["AAPL"])


def gone(server: ServerProcess) -> bool:
    """Whether the server has no connection any more."""
    return server.metric('market_data_connections{state="active"}') == 0


def goodbyes(server: ServerProcess) -> float:
    """The number of connections that their client closed with a close frame."""
    return server.metric('market_data_connections_closed_total{code="1000"}')


@EACH
def test_an_exception_leaves_the_block_as_it_is(run, server):
    """The application's exception is not wrapped in a group, and the connection ends."""

    async def story() -> None:
        async with client(server) as quotes:
            async for _ in quotes:
                raise KeyError("mine")

    before = goodbyes(server)
    with pytest.raises(KeyError, match="mine"):
        run(story)
    eventually(lambda: gone(server) and goodbyes(server) == before + 1)


@EACH
def test_the_block_is_over_for_all(run, server):
    """After the block the quotes stay. Iterating and commands raise Ended."""

    async def story() -> None:
        async with client(server) as quotes:
            pass
        assert quotes.state == "ended"
        assert quotes["AAPL"].symbol == "AAPL"
        with pytest.raises(quotestream.Ended):
            await quotes.until(lambda: False)
        with pytest.raises(quotestream.Ended):
            await quotes.subscribe(["MSFT"])

    run(story)
    eventually(lambda: gone(server))


def test_cancellation_on_trio(server):
    """A cancelled scope ends the block, while it waits for changes and while it connects."""

    async def story() -> None:
        with trio.CancelScope() as scope:
            async with client(server) as quotes:
                async for _ in quotes:
                    scope.cancel()
        assert scope.cancelled_caught
        with trio.move_on_after(0.2) as scope:
            async with quotestream.connect("ws://127.0.0.1:1", symbols=["AAPL"]):
                raise AssertionError
        assert scope.cancelled_caught

    before = goodbyes(server)
    on_trio(story)
    eventually(lambda: gone(server) and goodbyes(server) == before + 1)


def test_cancellation_on_asyncio(server):
    """A cancelled task and a timeout end the block. No task of the client is left."""

    async def follow() -> None:
        async with client(server) as quotes:
            async for _ in quotes:
                reading.set()

    async def story() -> None:
        task = asyncio.create_task(follow())
        await reading.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2), quotestream.connect("ws://127.0.0.1:1"):
                raise AssertionError
        assert asyncio.all_tasks() == {asyncio.current_task()}

    reading, before = asyncio.Event(), goodbyes(server)
    on_asyncio(story)
    eventually(lambda: gone(server) and goodbyes(server) == before + 1)


def test_second_cancellation_on_asyncio(server):
    """A task that is cancelled while it leaves still ends the connection, and is cancelled."""

    async def follow() -> None:
        async with client(server):
            connected.set()
            await asyncio.sleep(PATIENCE)

    async def story() -> None:
        task = asyncio.create_task(follow())
        await connected.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert asyncio.all_tasks() == {asyncio.current_task()}

    connected = asyncio.Event()
    on_asyncio(story)
    eventually(lambda: gone(server))


def test_token_function_that_is_cancelled_on_asyncio(server):
    """A token's function may wait for a task that another part of the program cancels. That ends the
    client, at the start and later, and nobody waits for ever.
    """

    async def token() -> str:
        if tokens:
            return tokens.pop()
        forever = asyncio.create_task(asyncio.sleep(PATIENCE))
        forever.cancel()
        await forever
        raise AssertionError

    async def story() -> None:
        async with quotestream.connect(server.quotes_url, token=token, symbols=["AAPL"]) as quotes:
            with pytest.raises(quotestream.Ended, match="cancelled"):
                await quotes.until(lambda: False)
            assert quotes.state == "ended"
        with pytest.raises(quotestream.Ended, match="cancelled"):
            async with quotestream.connect(server.quotes_url, token=token):
                raise AssertionError
        assert asyncio.all_tasks() == {asyncio.current_task()}

    tokens = [make_token(new_user(), lifetime=1.5)]
    on_asyncio(story)
    eventually(lambda: gone(server))


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_interrupt_of_the_client_s_own_task_on_trio(server, kind):
    """Ctrl-C may hit the client's task. It leaves the block as it is, not in a group."""

    def interrupt(_: object) -> None:
        raise kind

    async def story() -> None:
        async with client(server) as quotes:
            quotes._running._listener = interrupt
            await trio.sleep_forever()

    with pytest.raises(kind):
        on_trio(story)
    eventually(lambda: gone(server))


def test_another_task_may_leave_on_asyncio(server):
    """On asyncio, one task may enter the block and another leave it, as servers' frameworks do."""

    async def story() -> None:
        quotes = client(server)
        entering = asyncio.create_task(quotes.__aenter__())
        await entering
        await anext(quotes)
        leaving = asyncio.create_task(quotes.__aexit__(None, None, None))
        await leaving

    on_asyncio(story)
    eventually(lambda: gone(server))


@pytest.mark.parametrize(("library", "call"), [("trio", ""), ("asyncio", "()")])
def test_ctrl_c_ends_a_program(server, library, call):
    """Ctrl-C ends a program that waits for changes: with KeyboardInterrupt, and no other complaint."""
    text = UNTIL_INTERRUPTED.format(library=library, call=call)
    process = subprocess.Popen(
        [sys.executable, "-X", "dev", "-c", text, server.quotes_url, make_token(new_user())],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "connected\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGINT
    assert errors.strip().splitlines()[-1].strip(" |").startswith("KeyboardInterrupt")
    assert "never" not in errors
    assert "Warning" not in errors


def test_get_in_a_coroutine_says_what_to_do(server):
    """`get` would block the loop, so it refuses and names `connect`."""

    async def story() -> None:
        with pytest.raises(quotestream.Error, match="connect"):
            quotestream.get("AAPL", url=server.quotes_url)

    on_asyncio(story)


def test_get_returns_quotes_or_says_why(server):
    """`get` gives the symbols that exist. Errors have a class of their own."""
    token = make_token(new_user())
    quotes = quotestream.get("aapl", "NOPE", url=server.quotes_url, token=token)
    assert [*quotes] == ["AAPL"]
    with pytest.raises(quotestream.Refused) as refused:
        quotestream.get("NOPE", url=server.quotes_url, token=token)
    assert refused.value.code == "no_valid_symbols"
    with pytest.raises(quotestream.TimedOut, match=r"within 0\.5 s: .*refused"):
        quotestream.get("AAPL", url="ws://127.0.0.1:1", timeout=0.5)


def test_get_in_several_threads(server):
    """Each call has a loop of its own."""
    symbols = ["AAPL", "MSFT", "TSLA", "NFLX"]
    with ThreadPoolExecutor(4) as threads:
        calls = [
            threads.submit(
                quotestream.get, symbol, url=server.quotes_url, token=make_token(new_user())
            )
            for symbol in symbols
        ]
        assert [[*call.result(PATIENCE)] for call in calls] == [[symbol] for symbol in symbols]
