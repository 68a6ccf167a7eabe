"""One request to the HTTP port, sent byte for byte as given."""

import socket

from tests.gateway.wire import Answer
from tests.processes import TIMEOUT, ServerProcess


def ask(server: ServerProcess, method: str, target: str, *headers: str) -> Answer:
    """Send a request on its own connection and read the answer."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    received = b""
    with socket.create_connection(server.http_address, TIMEOUT) as sock:
        sock.sendall("\r\n".join(lines).encode("latin-1"))
        while data := sock.recv(65536):
            received += data
    head, _, body = received.partition(b"\r\n\r\n")
    status, *fields = head.decode("latin-1").split("\r\n")
    named = {name.title(): value for name, value in (field.split(": ", 1) for field in fields)}
    return Answer(int(status.split()[1]), named, body)
