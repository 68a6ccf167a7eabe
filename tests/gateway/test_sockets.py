"""Ports that several processes listen on, and errors of accepting."""

import errno
import os
import select
import socket
import struct
from contextlib import ExitStack
from typing import Any, cast

import pytest
import trio

from server.fanout.hub import Hub
from server.gateway.sockets import (
    OutOfResources,
    accept_nowait,
    close,
    has_left,
    ignore_new,
    unacknowledged_for,
)
from server.process.binding import BACKLOG, bind
from tests.gateway.harness import SessionHarness
from tests.gateway.wire import head
from tests.processes import TIMEOUT, eventually

CLIENTS = 16
"""Enough clients that the kernel sends all to one of two listeners once in 30,000 runs."""


def test_port_is_left_to_others_without_a_refusal():
    """Connections from before are accepted. Those that come while a listener is about to close get to
    the other one a second later, and none is reset.
    """
    (staying,) = bind("127.0.0.1", 0, setting="", shared=True)
    address = staying.getsockname()
    (leaving,) = bind("127.0.0.1", address[1], setting="", shared=True)
    with ExitStack() as sockets:
        sockets.enter_context(staying)
        sockets.enter_context(leaving)
        leaving.listen(BACKLOG)
        early = sockets.enter_context(socket.create_connection(address, TIMEOUT))
        staying.listen(BACKLOG)
        ignore_new(leaving)
        # The kernel sends each first packet at once, and delivers it before `connect_ex` returns.
        calls = [sockets.enter_context(socket.socket()) for _ in range(CLIENTS)]
        for call in calls:
            call.setblocking(False)
            assert call.connect_ex(address) == errno.EINPROGRESS
        eventually(lambda: any(map(is_connected, calls)))
        assert not all(map(is_connected, calls))
        accepted = sockets.enter_context(leaving.accept()[0])
        assert accepted.getpeername() == early.getsockname()
        leaving.close()
        eventually(lambda: all(map(is_connected, calls)))
        for _ in calls:
            staying.accept()[0].close()


def is_connected(client: socket.socket) -> bool:
    """Return whether the handshake is over. Errors: OSError if the connection is refused or reset."""
    poll = select.poll()
    poll.register(client, select.POLLOUT)
    if not poll.poll(0):
        return False
    client.getpeername()
    return True


def test_addresses_of_a_name_share_one_port():
    """Port 0 is any free port, but the same one for all addresses of a host."""
    listeners = bind("localhost", 0, setting="")
    assert len({listener.getsockname()[1] for listener in listeners}) == 1
    for listener in listeners:
        listener.close()


async def test_sockets_beyond_the_limit_wait(nursery):
    """While all descriptors for clients are taken, others wait, and are served when one is free."""
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


class Listener:
    """Fails to accept with each of `errors` in turn, then has nobody waiting."""

    def __init__(self, *errors: int) -> None:
        self._errors = [*errors, errno.EAGAIN]

    def accept(self) -> Any:
        code = self._errors.pop(0)
        raise OSError(code, os.strerror(code))


def test_errors_of_accepting_are_told_apart():
    """A peer that is gone is passed over; want of descriptors and a broken listener are errors."""

    def accept(*errors: int) -> Any:
        listener: Any = Listener(*errors)
        return accept_nowait(listener)

    assert accept() is None
    assert accept(errno.ECONNABORTED, errno.EPROTO, errno.ENETDOWN) is None
    with pytest.raises(OutOfResources, match="Too many open files"):
        accept(errno.ECONNABORTED, errno.EMFILE)
    with pytest.raises(OSError, match="Bad file descriptor"):
        accept(errno.EBADF)


@pytest.mark.parametrize("end", ["close", "reset", "shutdown"])
async def test_peer_that_has_left_is_known_before_its_bytes_are_read(end):
    """Whichever way it left. A socket that is closed here has nobody at its other end."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
    with sock, peer:
        peer.send(b"unread")
        assert not has_left(sock)
        if end == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if end == "shutdown":
            peer.shutdown(socket.SHUT_WR)
        else:
            peer.close()
        eventually(lambda: has_left(sock))
        close(sock)
        close(sock)
        assert has_left(sock)


@pytest.mark.parametrize(
    ("retransmits", "probes", "seconds"), [(0, 0, 0.0), (1, 0, 61.5), (0, 1, 61.5), (3, 2, 61.5)]
)
def test_silent_peer_s_last_answer_is_told_in_seconds(retransmits, probes, seconds):
    """If the kernel sent something again, in vain so far (Linux' `struct tcp_info`)."""
    info = bytearray(b"\xff" * 104)
    info[2], info[3] = retransmits, probes
    # The time since the last acknowledgement, in milliseconds.
    info[56:60] = struct.pack("=I", 61_500)

    class Silent:
        def getsockopt(self, level: int, option: int, size: int) -> bytes:
            assert (level, option) == (socket.IPPROTO_TCP, socket.TCP_INFO)
            return bytes(info[:size])

    assert unacknowledged_for(cast("Any", Silent())) == seconds
    pair = socket.socketpair()
    assert unacknowledged_for(pair[0]) == 0.0
    for each in pair:
        each.close()
