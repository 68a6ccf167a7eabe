"""A machine's workers as the settings say: the supervisor, and how a worker is started."""

import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from server.app import Addresses, addresses_of
from server.cluster.process import Launch
from server.cluster.supervisor import Supervisor
from server.gateway.sockets import reserve
from server.settings import BadSetting, Settings


async def supervise(
    settings: Settings,
    workers: int,
    environment: Mapping[str, str],
    on_started: Callable[[Addresses], None],
) -> int:
    """Run workers until SIGINT or SIGTERM; the exit code.

    `environment` is theirs beside the supervisor's own. Each reads the settings itself when it starts.

    Errors: BadSetting, BindError.
    """
    if not settings.redis_url:
        raise BadSetting("--workers needs REDIS_URL: workers share prices through Redis")
    quotes = reserve(settings.ws_host, settings.ws_port)
    http = reserve(settings.http_host, settings.http_port)
    ports = {"WS_PORT": _port(quotes), "HTTP_PORT": _port(http)}
    launch = Launch(
        command=worker_command,
        environment={**os.environ, **environment, **ports},
        silence=settings.worker_timeout,
    )
    addresses = addresses_of(quotes, http)
    return await Supervisor(launch, settings.worker_drain_rate).run(
        workers, lambda: on_started(addresses)
    )


def worker_command(number: int, fd: int) -> Sequence[str]:
    """The worker's command line; -P: a folder `server` where it is started is not this one."""
    return [sys.executable, "-P", "-m", "server", "serve", "--worker", f"{number}:{fd}"]


def _port(sockets: list[socket.socket]) -> str:
    return str(sockets[0].getsockname()[1])
