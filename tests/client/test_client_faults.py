"""`quotestream.connect` on trio and asyncio: its server is killed, frozen, drained and gapped.

Prices come from the test alone. So the client must end with exactly what `/quotes` has.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import msgspec
import pytest
import trio

import quotestream
from bench.services import free_port
from quotestream import Quotes
from tests.client.frame_proxy import FrameProxy
from tests.client.libraries import EACH, PATIENCE
from tests.gateway.wire import new_user
from tests.processes import ServerProcess, make_token
from tests.publisher import post
from tests.wall_clock import ShiftedServer, WallClock

SYMBOLS = ["AAPL", "MSFT", "TSLA"]


@pytest.fixture
def port() -> str:
    return str(free_port())


def push_server(folder: Any, port: str = "0") -> ServerProcess:
    """A server whose prices come from `publish`."""
    return ServerProcess(folder, FEED="push", WS_PORT=port, PRICE_BAND="")


def publish(server: ServerProcess, price: float, *symbols: str) -> None:
    """Publish one price of each symbol, all of them by default."""
    trades = [
        {"symbol": symbol, "price": round(price + place, 2), "size": 100}
        for place, symbol in enumerate(symbols or SYMBOLS)
    ]
    assert post(server, trades).counts[0] == len(trades)


@contextmanager
def publishing(server: ServerProcess) -> Iterator[None]:
    """Go on publishing. A server on a busy machine merges updates, which leaves no gap between them."""
    enough = threading.Event()

    def go_on() -> None:
        for number in count():
            publish(server, 100.0 + number % 8)
            if enough.wait(0.02):
                return

    publisher = threading.Thread(target=go_on)
    publisher.start()
    try:
        yield
    finally:
        enough.set()
        publisher.join()


def client(url: str, **options: Any) -> Quotes:
    return quotestream.connect(url, token=make_token(new_user()), symbols=SYMBOLS, **options)


async def agree(quotes: Quotes, server: ServerProcess) -> None:
    """Wait until the client knows that it has everything, then compare it with `/quotes`."""
    status, listed = server.ask(f"/quotes?symbols={','.join(SYMBOLS)}")
    assert status == 200
    versions = {each["quote"]["symbol"]: each["version"] for each in listed}
    await quotes.until(
        lambda: quotes.state == "live" and not quotes.missed and {**quotes.versions} == versions
    )
    expected = [msgspec.convert(each["quote"], quotestream.Quote) for each in listed]
    assert dict(quotes) == {quote.symbol: quote for quote in expected}


@EACH
def test_killed_server_s_successor_is_followed(run, tmp_path, port):
    """After a kill the state is `waiting`, the quotes stay, and the successor's replace them."""

    async def story() -> None:
        with push_server(tmp_path, port) as first:
            async with client(first.quotes_url) as quotes:
                publish(first, 100.0)
                await agree(quotes, first)
                epoch, held = quotes.epoch, dict(quotes)
                first.process.kill()
                await quotes.until(lambda: quotes.state == "waiting")
                assert dict(quotes) == held
                with push_server(tmp_path, port) as second:
                    publish(second, 200.0)
                    await quotes.until(lambda: quotes.epoch != epoch)
                    await agree(quotes, second)
                    publish(second, 201.0)
                    await agree(quotes, second)

    run(story)


@EACH
def test_frozen_server_is_noticed(run, tmp_path, monkeypatch):
    """If a server freezes, the client is `waiting` and then resumes, with the changes of meanwhile."""
    for module in ("server.websocket_client", "quotestream.asyncio_driver"):
        monkeypatch.setattr(f"{module}.PING_INTERVAL", 0.3)
        monkeypatch.setattr(f"{module}.PING_TIMEOUT", 0.3)

    async def story() -> None:
        with push_server(tmp_path) as server:
            async with client(server.quotes_url) as quotes:
                publish(server, 100.0)
                await agree(quotes, server)
                server.process.send_signal(signal.SIGSTOP)
                await quotes.until(lambda: quotes.state == "waiting")
                server.process.send_signal(signal.SIGCONT)
                publish(server, 101.0)
                await agree(quotes, server)

    run(story)


@EACH
def test_drained_server_is_left_and_found_again(run, tmp_path, port):
    """A server that stops sends the client away, and the next one on its port has it back."""

    async def story() -> None:
        with push_server(tmp_path, port) as first:
            async with client(first.quotes_url) as quotes:
                publish(first, 100.0)
                await agree(quotes, first)
                first.process.send_signal(signal.SIGTERM)
                await quotes.until(lambda: quotes.state == "waiting")
                first.process.wait(PATIENCE)
                with push_server(tmp_path, port) as second:
                    await agree(quotes, second)

    run(story)


class Meddler:
    """Lets each second change come before the one in front of it, or loses every fourth."""

    def __init__(self, how: str) -> None:
        self.active = True
        self._how = how
        self._changes: list[bytes] = []

    def __call__(self, payload: bytes) -> list[bytes]:
        change = payload.startswith(b'["u"') or b'"replace"' in payload
        if not (change and self.active):
            return [payload]
        self._changes.append(payload)
        if self._how == "drops":
            return [payload] if len(self._changes) % 4 else []
        return [] if len(self._changes) % 2 else [payload, self._changes[-2]]


@EACH
@pytest.mark.parametrize("form", ["json", "compact"])
@pytest.mark.parametrize("how", ["drops", "swaps"])
def test_gaps_are_known_and_filled(run, tmp_path, form, how):
    """A change that is lost or comes out of order is noticed, and its quote asked for."""
    meddler, known = Meddler(how), set[str]()

    async def story() -> None:
        with push_server(tmp_path) as server, FrameProxy(server.address[1], meddler) as proxy:
            async with client(proxy.url, format=form) as quotes:

                def gap() -> bool:
                    known.update(quotes.missed)
                    return bool(known)

                with publishing(server):
                    await quotes.until(gap)
                meddler.active = False
                publish(server, 110.0)
                await agree(quotes, server)

    run(story)
    assert known <= {*SYMBOLS}


@EACH
def test_slow_application_gets_merged_changes(run, tmp_path):
    """An application that does not read gets one change of each symbol, which is the newest."""

    async def story() -> None:
        with push_server(tmp_path) as server:
            async with client(server.quotes_url) as quotes:
                for number in range(20):
                    publish(server, 100.0 + number)
                await agree(quotes, server)
                changes = [await anext(quotes) for _ in SYMBOLS]
                assert {change.symbol: change.quote for change in changes} == dict(quotes)
                assert {change.symbol: change.version for change in changes} == quotes.versions
                publish(server, 300.0, "TSLA")
                change = await anext(quotes)
                assert (change.symbol, change.quote) == ("TSLA", quotes["TSLA"])
                assert "current_price" in change.fields
                assert "name" not in change.fields
                assert quotes.lag is not None
                assert 0 <= quotes.lag < PATIENCE

    run(story)


@EACH
def test_lost_connection_is_logged(run, caplog, port):
    """A program that waits for a server says nothing itself. So the log tells why it waits, without
    the token.
    """

    async def story() -> None:
        async with quotestream.connect(f"ws://127.0.0.1:{port}", token="canary"):
            raise AssertionError

    with pytest.raises((TimeoutError, trio.TooSlowError)):
        run(story, 1.0)
    (first, *_) = caplog.records
    assert (first.name, first.levelname) == ("quotestream", "WARNING")
    assert f"cannot connect to 127.0.0.1:{port}: Connection refused" in first.message
    assert "the next attempt comes in" in first.message
    assert "canary" not in caplog.text


@EACH
def test_expired_token_is_renewed_or_final(run, tmp_path):
    """A token's function is asked again when the token has expired. With a text, the client is refused,
    and keeps its quotes.
    """
    asked: list[str] = []
    hours = iter((1, 3))

    async def short_lived() -> str:
        asked.append(make_token(new_user(), lifetime=3600.0 * next(hours)))
        return asked[-1]

    async def story() -> None:
        clock = WallClock(tmp_path, time.time())
        variables = {"FEED": "push", "PRICE_BAND": ""} | clock.variables
        with ShiftedServer(tmp_path, **variables) as server:
            url = server.quotes_url
            async with quotestream.connect(url, token=short_lived, symbols=SYMBOLS) as quotes:
                await quotes.until(lambda: quotes.state == "live")
                clock.go_on(time.time() + 2 * 3600)
                await quotes.until(lambda: len(asked) == 2 and quotes.state == "live")
                clock.go_on(time.time())
                publish(server, 100.0)
                await agree(quotes, server)
            token = make_token(new_user(), lifetime=3600)
            async with quotestream.connect(url, token=token, symbols=SYMBOLS) as quotes:
                await quotes.until(lambda: quotes.state == "live")
                clock.go_on(time.time() + 2 * 3600)
                with pytest.raises(quotestream.Refused, match="expired") as refused:
                    await quotes.until(lambda: False)
                assert (refused.value.code, quotes.state) == ("unauthorized", "refused")
                assert token not in repr(quotes)
                assert {*quotes} == {*SYMBOLS}
                with pytest.raises(quotestream.Refused):
                    await quotes.subscribe(["NFLX"])

    run(story)
