"""The tests' own clients get all messages in front of a close frame."""

import re
import socket
import struct
import threading
from collections.abc import Iterator

import pytest
import trio
import websockets.sync.client
import websockets.trio.client
from websockets.utils import accept_key

from server.fanout.frame import close_frame, text_frame
from tests.patient import PatientConnection, PatientTrioConnection
from tests.processes import TIMEOUT


@pytest.fixture
def url() -> Iterator[str]:
    """Serve one client. It gets a message and a close frame, and its answer meets a reset."""

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            request = connection.recv(65536).decode()
            key = re.search("(?i)sec-websocket-key: (.*)\r\n", request)
            assert key
            answer = (
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept_key(key[1])}\r\n\r\n"
            ).encode()
            connection.sendall(answer + text_frame(b"the last") + close_frame(1001))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        thread.join()


def test_thread_gets_the_last_message(url):
    """Also if the server has closed the socket by the time that the client answers."""
    with websockets.sync.client.connect(url, create_connection=PatientConnection) as client:
        assert [*client] == ["the last"]
        assert client.close_code == 1001


async def test_task_gets_the_last_message(url):
    """Also if the server has closed the stream by the time that the client answers."""
    with trio.fail_after(TIMEOUT):
        async with websockets.trio.client.connect(
            url, create_connection=PatientTrioConnection
        ) as client:
            assert [each async for each in client] == ["the last"]
            assert client.close_code == 1001
