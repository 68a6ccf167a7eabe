"""The HTTP edge with requests that start before their bodies are here."""

import socket
from contextlib import ExitStack, suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from server.gateway.sockets import LINGER_TIMEOUT, receive
from server.ops.http_edge import CLOSE_TIME
from server.ops.http_request import MAX_BODY
from server.ops.http_stream import REQUEST_TIMEOUT
from server.ops.request_pacer import MAX_INTERVAL, RequestPacer
from server.pacing import wait_until
from tests.ops.site import CROWD, Gate, SteadyLoad, running, take

ROOM = 5

HALF = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"

REST = b"x" * 97

EARLY = b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc"
"""A request that is refused before its body has come."""


async def test_requests_whose_bodies_come_together_take_their_turns(autojump_clock):
    """Clients send their heads, and later all their bodies at once. The pacer spaces the work."""
    pacer = RequestPacer(SteadyLoad())
    pacer.interval = MAX_INTERVAL
    async with running(CROWD, pacer) as site:
        with ExitStack() as crowd:
            half = b"POST /prices HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n"
            clients = [crowd.enter_context(site.client(half)) for _ in range(CROWD)]
            await wait_until(lambda: site.begun == CROWD)
            for client in clients:
                client.sendall(b"x")
            await wait_until(lambda: len(site.started) == CROWD)
    gaps = [after - before for before, after in zip(site.started, site.started[1:], strict=False)]
    assert min(gaps) >= 0.99 * MAX_INTERVAL


async def test_stop_ends_a_request_that_is_half_sent(autojump_clock):
    """A stop cuts the connection at once, and does not wait for the rest of the body."""
    async with running() as site:
        with site.client(HALF) as client:
            await wait_until(lambda: site.begun == 1)
            begun = trio.current_time()
            await site.edge.stop()
            assert trio.current_time() - begun < CLOSE_TIME
            assert await receive(client, 1) == b""
        assert not site.started
        assert not site.edge.streams


async def test_stop_ends_a_request_that_was_refused_before_its_body(autojump_clock):
    """A stop closes the connection while the edge skips the body's rest."""
    async with running() as site:
        with site.client(EARLY) as client:
            answer = await take(client)
            assert answer.verdict == (401, "unauthorized")
            assert not answer.is_last
            await wait_all_tasks_blocked()
            await site.edge.stop()
            assert await receive(client, 1) == b""
        assert not site.edge.streams


async def test_stop_does_not_wait_for_a_refused_client_that_goes_on_sending(autojump_clock):
    """The client has its answer. Each further byte would keep the connection open."""
    head = b"POST /early HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running() as site:
        with site.client(head) as client:
            answer = await take(client)
            assert answer.verdict == (401, "unauthorized")
            assert answer.is_last
            begun = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.edge.stop)
                await wait_all_tasks_blocked()
                while site.edge.streams:
                    with suppress(OSError):
                        client.sendall(b"1\r\nx\r\n")
                    await trio.sleep(LINGER_TIMEOUT / 10)
            assert trio.current_time() - begun < LINGER_TIMEOUT


async def test_stop_ends_a_request_before_its_turn(autojump_clock):
    """A request that waits for its turn at a stop never reaches the application."""
    gate = Gate()
    async with running(pacer=gate) as site:
        with site.client(b"") as client:
            await wait_until(lambda: len(site.edge.streams) == 1)
            gate.close()
            client.sendall(HALF)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.edge.stop)
                await wait_all_tasks_blocked()
                gate.open()
        assert not site.begun
        assert not site.edge.streams


async def test_stop_ends_a_request_whose_body_waits_for_its_turn(autojump_clock):
    """The body is whole, but the application has not got it. After a stop, it never does."""
    gate = Gate()
    async with running(pacer=gate) as site:
        with site.client(HALF) as client:
            await wait_until(lambda: site.begun == 1)
            gate.close()
            client.sendall(REST)
            await wait_all_tasks_blocked()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(site.edge.stop)
                await wait_all_tasks_blocked()
                gate.open()
        assert not site.started
        assert not site.edge.streams


async def test_newcomers_do_not_cut_each_other(autojump_clock):
    """All other places are taken by requests in progress. Each newcomer in its turn is answered."""
    async with running(ROOM) as site:
        with ExitStack() as stack:
            for _ in range(ROOM - 1):
                stack.enter_context(site.client(b"GET /never HTTP/1.1\r\nHost: a\r\n\r\n"))
            await wait_until(lambda: sum(each.busy for each in site.edge.streams) == ROOM - 1)
            ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
            for client in [stack.enter_context(site.client(ask)) for _ in range(CROWD)]:
                assert (await take(client)).status == 200


async def test_newcomer_costs_one_connection(autojump_clock):
    """While one cut connection still ends, the edge does not cut another one."""
    async with running(ROOM) as site:
        with ExitStack() as crowd:
            for _ in range(2):
                crowd.enter_context(site.client(HALF))
            await wait_until(lambda: site.begun == 2)
            ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
            for _ in range(ROOM - 2):
                assert (await take(crowd.enter_context(site.client(ask)))).status == 200
            assert (await take(crowd.enter_context(site.client(ask)))).status == 200
        assert site.edge.evicted == 1


@pytest.mark.parametrize(
    ("path", "verdict"),
    [(b"/prices", (408, "request_timeout")), (b"/early", (401, "unauthorized"))],
)
async def test_head_is_whole_after_the_deadline(autojump_clock, path, verdict):
    """The event loop stands still while the head's end arrives. The client has used its time."""
    async with running() as site:
        with site.client(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n") as client:
            await wait_all_tasks_blocked()
            client.sendall(b"Content-Length: 100\r\n\r\nabc")
            autojump_clock.jump(REQUEST_TIMEOUT + 1)
            assert (await take(client)).verdict == verdict
            assert await receive(client, 1) == b""


async def test_body_that_is_too_slow_ends_its_connection(autojump_clock):
    """The answer says that it is the last one, and the client gets no more time."""
    async with running() as site:
        begun = trio.current_time()
        with site.client(HALF) as client:
            answer = await take(client)
            assert answer.verdict == (408, "request_timeout")
            assert answer.is_last
            assert await receive(client, 1) == b""
            assert trio.current_time() - begun == pytest.approx(REQUEST_TIMEOUT, abs=0.1)
        assert site.edge.refused == {"request_timeout": 1}
        assert site.charged == 1


async def test_client_that_goes_on_sending_reads_its_refusal(autojump_clock):
    """A chunked body turns out to be too long. To close at once would reset the connection."""
    head = b"POST /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with running() as site:
        with site.client(head) as client:
            await wait_all_tasks_blocked()
            client.sendall(b"%x\r\n" % (8 * MAX_BODY) + b"x" * 2 * MAX_BODY)
            answer = await take(client)
            assert answer.verdict == (413, "too_large")
            assert answer.is_last
            # To a closed socket, the second of these would fail.
            for _ in range(2):
                await wait_all_tasks_blocked()
                client.sendall(b"x" * MAX_BODY)
            assert await receive(client, 1) == b""


async def test_client_that_leaves_in_the_middle_of_its_body_is_not_refused(autojump_clock):
    """A lost connection is neither counted as a bad request nor charged to its client."""
    async with running() as site:
        with site.client(HALF):
            await wait_until(lambda: site.begun == 1)
        await wait_until(lambda: not site.edge.streams)
        assert not site.started
        assert not site.edge.refused
        assert not site.charged


async def test_answer_to_a_body_that_breaks_off_is_the_last(autojump_clock):
    """The client closes its side in the middle of its body, and reads on."""
    async with running() as site:
        with site.client(HALF) as client:
            await wait_until(lambda: site.begun == 1)
            client.shutdown(socket.SHUT_WR)
            answer = await take(client)
            assert answer.verdict == (400, "bad_request")
            assert answer.is_last
            assert await receive(client, 1) == b""
        assert not site.started
