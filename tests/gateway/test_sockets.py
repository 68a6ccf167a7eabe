"""Ports that several processes listen on."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import trio

from server.fanout.hub import Hub
from server.gateway.sockets import ignore_new
from server.process.binding import BACKLOG, bind
from tests.gateway.harness import SessionHarness
from tests.gateway.wire import TIMEOUT, head

CLIENTS = 16
"""That the kernel sends all of them to one of two listeners happens once in 30,000 runs."""


def test_port_is_left_to_others_without_a_refusal():
    """What came before is accepted, what comes while a listener is about to close comes to the other
    one a second later, and nobody is reset.
    """
    (staying,) = bind("127.0.0.1", 0, setting="", shared=True)
    address = staying.getsockname()
    (leaving,) = bind("127.0.0.1", address[1], setting="", shared=True)
    leaving.listen(BACKLOG)
    with socket.create_connection(address, 5) as early, staying, ThreadPoolExecutor() as threads:
        staying.listen(BACKLOG)
        ignore_new(leaving)
        calls = [threads.submit(socket.create_connection, address, 5) for _ in range(CLIENTS)]
        time.sleep(0.3)  # the world's round trip, in which all have begun
        assert 0 < sum(call.done() for call in calls) < CLIENTS
        accepted, _ = leaving.accept()
        assert accepted.getpeername() == early.getsockname()
        leaving.close()
        for call in calls:
            call.result().close()
            staying.accept()[0].close()
        accepted.close()


def test_addresses_of_a_name_share_one_port():
    """Port 0 is any free one, but the same for all addresses of a host."""
    listeners = bind("localhost", 0, setting="")
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


async def test_sockets_beyond_the_limit_wait(nursery):
    """While all descriptors for clients are taken others wait, and are served when one is free."""
    harness = SessionHarness(Hub(), max_sockets=2)
    (listener,) = bind("127.0.0.1", 0, setting="")
    _, port = listener.getsockname()
    await nursery.start(harness.gateway.serve, [listener])
    silent = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
    await trio.testing.wait_all_tasks_blocked(0.05)
    waiting = await trio.open_tcp_stream("127.0.0.1", port)
    await waiting.send_all(head("/nowhere"))
    with trio.move_on_after(0.2) as patience:
        await waiting.receive_some()
    assert patience.cancelled_caught
    await silent[0].aclose()
    with trio.fail_after(TIMEOUT):
        assert (await waiting.receive_some()).startswith(b"HTTP/1.1 404 ")
    for stream in (silent[1], waiting):
        await stream.aclose()
    harness.end()
