"""Listening sockets, and the descriptors that a process may open."""

import os
import resource
import socket
from typing import NamedTuple

BACKLOG = 4096
"""Handshakes the kernel queues (Linux's default somaxconn): a reconnect storm of a second or two."""

NOTSENT_LOWAT = 16 * 1024
"""Bytes, trio's own: a peer that does not read then absorbs 100 KB of kernel memory, not 4 MB."""

USER_TIMEOUT_MS = 180_000
"""Milliseconds until the kernel gives up a peer that acknowledges or reads nothing (RFC 5482).
Heartbeats and circuit breakers, which tell a dead peer from a slow one, are faster.
"""

RESERVED_DESCRIPTORS = 100
"""Descriptors that no client gets. The stores, the bus, listeners and files need them."""

MIN_HTTP_CONNECTIONS = 8
"""Connections that the HTTP port always gets, for probes and a scrape."""


class BindError(Exception):
    """The server cannot listen on an address. The message names the address and the reason."""


class Room(NamedTuple):
    """Connections that the descriptors allow on each port."""

    streaming: int
    http: int


def allow_sockets(http_connections: int) -> Room:
    """Raise this process's limit of descriptors to the hard limit, and divide them between the ports.

    The HTTP port gets up to `http_connections`. Neither port can take the other's share.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    spare = most // 2 - RESERVED_DESCRIPTORS
    http = max(MIN_HTTP_CONNECTIONS, min(http_connections, spare))
    return Room(max(most - RESERVED_DESCRIPTORS - http, most // 2), http)


def bind(host: str, port: int, setting: str, *, shared: bool = False) -> list[socket.socket]:
    """Return listening sockets, one for each address of `host`, all on one port.

    `shared` sockets do not listen yet. Other shared sockets may be bound to the same port; the kernel
    spreads connections over those that listen (socket(7), SO_REUSEPORT).

    The options are set here once: each accepted socket inherits them on Linux.

    Errors: BindError, which names the `setting`.
    """
    sockets: list[socket.socket] = []
    try:
        for family, _, _, _, found in _addresses(host, port):
            # If any free port will do, all take that of the first.
            address = (found[0], sockets[0].getsockname()[1], *found[2:]) if sockets else found
            listener = (
                _bind_shared(family, address)
                if shared
                else socket.create_server(address, family=family, backlog=BACKLOG)
            )
            sockets.append(listener)
            listener.setblocking(False)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOTSENT_LOWAT)
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
    # A name that DNS cannot have raises UnicodeError.
    except (OSError, OverflowError, UnicodeError) as error:
        for listener in sockets:
            listener.close()
        raise BindError(f"{setting}: cannot listen on {host}:{port}: {_reason(error)}") from None
    return sockets


def _reason(error: Exception) -> str:
    """Return the system's own words: create_server would repeat the address."""
    # Its numbers are not those of other errors.
    if isinstance(error, socket.gaierror):
        return str(error.strerror)
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)


def reserve(host: str, port: int, setting: str) -> list[socket.socket]:
    """Return sockets that reserve a port for others and never listen. Errors: BindError."""
    # A program that shares its port lets shared sockets in. An exclusive one finds it in use.
    alone = bind(host, port, setting)
    port = alone[0].getsockname()[1]
    for sock in alone:
        sock.close()
    return bind(host, port, setting, shared=True)


def _bind_shared(family: int, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        # As in `create_server`: IPv4 has a socket of its own.
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _addresses(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int]]]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))  # type: ignore[arg-type]  # TCP addresses: (host, port, …)
