"""Starts a supervisor as the settings say."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence

from server.config.environment import BadSetting
from server.config.settings import Settings
from server.process.binding import reserve
from server.process.listeners import Addresses, bind_all
from server.process.signals import hard_exit_after
from server.workers.process import Launch
from server.workers.scaler import ScalePolicy, Scaler
from server.workers.supervisor import STOP_TIMEOUT, Supervisor


async def supervise(
    settings: Settings,
    workers: int | None,
    environment: Mapping[str, str],
    on_started: Callable[[Addresses], None],
) -> int:
    """Run workers until SIGINT or SIGTERM. Return the exit code. Errors: BadSetting, BindError.

    Arguments:
        workers: their number; None lets the load decide.
        environment: variables of the workers beside the supervisor's own. Each worker reads the
            settings itself when it starts.
        on_started: called with the addresses once all workers serve.
    """
    if not settings.redis_url:
        raise BadSetting("--workers needs REDIS_URL: workers share prices through Redis")
    listeners = bind_all(settings, reserve)
    launch = Launch(
        command=worker_command,
        environment={**os.environ, **environment, **listeners.ports},
        silence=settings.worker_timeout,
    )
    scaler = Scaler(scale_policy(settings)) if workers is None else None
    timeout = hard_exit_after(settings.drain_delay, STOP_TIMEOUT)
    supervisor = Supervisor(launch, settings.worker_drain_rate, scaler, timeout)
    return await supervisor.run(
        workers or settings.workers_min, lambda: on_started(listeners.addresses)
    )


def scale_policy(settings: Settings) -> ScalePolicy:
    """Return the settings of the scaler."""
    cores = len(os.sched_getaffinity(0))
    return ScalePolicy(
        minimum=settings.workers_min,
        maximum=settings.workers_max or max(cores, settings.workers_min),
        up_connections=settings.scale_up_connections / 100,
        up_cpu=settings.scale_up_cpu / 100,
        up_latency=settings.scale_up_latency,
        down=settings.scale_down / 100,
        after=settings.scale_after,
        cooldown=settings.scale_cooldown,
    )


def worker_command(number: int, fd: int) -> Sequence[str]:
    """Return the worker's command line. -P: not of a folder `server` in the working folder."""
    return [sys.executable, "-P", "-m", "server", "serve", "--worker", f"{number}:{fd}"]
