"""Ports that several processes listen on."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

from server.gateway.sockets import BACKLOG, bind, ignore_new

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
