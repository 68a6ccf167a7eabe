"""The ports that a server listens on or a supervisor holds for its workers."""

import socket
from collections.abc import Callable
from typing import NamedTuple

import structlog

from server.config.settings import Settings
from server.process.binding import Room, allow_sockets

Bind = Callable[[str, int, str], list[socket.socket]]
"""Binds host and port. The last argument names the variables that an error is about."""

log = structlog.get_logger()


class Addresses(NamedTuple):
    """URLs of the ports. Without `ops`, operators' pages are on the HTTP port."""

    quotes: str
    http: str
    ops: str | None


class Listeners(NamedTuple):
    """Sockets by port, one for each address of its host. `ops` is empty without OPS_PORT."""

    quotes: list[socket.socket]
    http: list[socket.socket]
    ops: list[socket.socket]

    @property
    def addresses(self) -> Addresses:
        """The URLs of the sockets."""
        return Addresses(
            f"ws://{_address(self.quotes)}/ws/quotes",
            f"http://{_address(self.http)}",
            f"http://{_address(self.ops)}" if self.ops else None,
        )

    @property
    def ports(self) -> dict[str, str]:
        """The variables with which another process listens on the same ports."""
        ports = {"WS_PORT": self.quotes, "HTTP_PORT": self.http, "OPS_PORT": self.ops}
        return {name: str(_port(sockets)) for name, sockets in ports.items() if sockets}


def bind_all(settings: Settings, bind: Bind) -> Listeners:
    """Bind every port that the settings name. Errors: those of `bind`."""
    return Listeners(
        bind(settings.ws_host, settings.ws_port, "WS_HOST, WS_PORT"),
        bind(settings.http_host, settings.http_port, "HTTP_HOST, HTTP_PORT"),
        []
        if settings.ops_port is None
        else bind(settings.ops_host, settings.ops_port, "OPS_HOST, OPS_PORT"),
    )


def share_descriptors(settings: Settings) -> Room:
    """Raise the limit of descriptors and divide them between the ports. Warn if there are too few."""
    room = allow_sockets(settings.http_max_connections)
    if room.streaming < settings.ws_max_connections:
        log.warning(
            "ulimit -n leaves room for fewer than WS_MAX_CONNECTIONS", connections=room.streaming
        )
    if room.http < settings.http_max_connections:
        log.warning(
            "ulimit -n leaves room for fewer than HTTP_MAX_CONNECTIONS", connections=room.http
        )
    return room


def _address(sockets: list[socket.socket]) -> str:
    host = sockets[0].getsockname()[0]
    return f"[{host}]:{_port(sockets)}" if ":" in host else f"{host}:{_port(sockets)}"


def _port(sockets: list[socket.socket]) -> int:
    return int(sockets[0].getsockname()[1])
