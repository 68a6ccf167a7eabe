"""The HTTP edge with clients that send and read slowly, and with an answer that takes too long."""

import pytest
import trio

from server.gateway.sockets import receive
from server.ops import http_edge, http_stream
from server.ops.http_edge import ANSWER_TIMEOUT
from server.ops.http_stream import MIN_PROGRESS, REQUEST_TIMEOUT
from server.pacing import wait_until
from tests.http_wire import take_answer
from tests.ops.site import FILE_SIZE, running, take

SLOW_RATE = 40_000
"""Bytes a second of a slow link."""

SHORT_TIME = 2.0
"""Seconds, in place of longer deadlines."""


async def test_body_that_goes_on_coming_is_awaited(autojump_clock):
    """Neither the client's deadline for a part nor the application's for an answer ends it."""
    parts = 5
    head = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (
        parts * MIN_PROGRESS
    )
    async with running() as site:
        with site.client(head) as client:
            for _ in range(parts):
                await trio.sleep(REQUEST_TIMEOUT - 1)
                client.sendall(b"x" * MIN_PROGRESS)
            assert (await take(client)).status == 200
            assert trio.current_time() > ANSWER_TIMEOUT


async def test_body_that_comes_in_drops_ends_its_connection(autojump_clock):
    """A client holds its place no longer because it sends a little from time to time."""
    head = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (9 * MIN_PROGRESS)
    async with running() as site:
        begun = trio.current_time()
        with site.client(head) as client:
            for _ in range(int(REQUEST_TIMEOUT)):
                client.sendall(b"x" * (MIN_PROGRESS // 20))
                await trio.sleep(1)
            assert (await take(client)).verdict == (408, "request_timeout")
            assert trio.current_time() - begun == pytest.approx(REQUEST_TIMEOUT, abs=0.1)


async def test_client_that_reads_slowly_gets_its_whole_answer(monkeypatch):
    """It takes longer for the file than for a part of it, or than the application has for an answer."""
    monkeypatch.setattr(http_stream, "WRITE_TIMEOUT", SHORT_TIME)
    monkeypatch.setattr(http_edge, "ANSWER_TIMEOUT", SHORT_TIME)
    async with running() as site:
        with site.narrow_client(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n") as client:
            begun, received = trio.current_time(), b""
            while (taken := take_answer(received, "GET")) is None:
                # Its link is that slow.
                await trio.sleep(0.1)
                data = await receive(client, SLOW_RATE // 10)
                assert data, f"the answer breaks off after {len(received)} bytes"
                received += data
            assert taken[0].body == bytes(FILE_SIZE)
            assert trio.current_time() - begun > 2 * SHORT_TIME


async def test_answer_that_takes_too_long_is_an_error_in_the_protocol_s_form(autojump_clock):
    """It can be read as any other error, and the connection goes on."""
    async with running(failures=1) as site:
        with site.client(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n") as client:
            answer = await take(client)
            assert answer.verdict == (500, "internal_error")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert trio.current_time() == pytest.approx(ANSWER_TIMEOUT, abs=0.1)
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await take(client)).status == 200


async def test_client_that_reads_nothing_is_cut(monkeypatch):
    """The kernel takes the first part of its answer all the same."""
    monkeypatch.setattr(http_stream, "WRITE_TIMEOUT", SHORT_TIME / 4)
    async with running() as site:
        with site.narrow_client(b"GET /file HTTP/1.1\r\nHost: a\r\n\r\n"):
            await wait_until(lambda: len(site.edge.streams) == 1)
            with trio.fail_after(30):
                await wait_until(lambda: not site.edge.streams)
