"""Reacts to signals: the server stops, hands over, or reloads.

These are the phases of a stop. The later ones get the time that the earlier ones leave
(`time_for_http`):

    DRAIN_DELAY       `/readyz` is red, the port is open: load balancers notice       2 s by default
    the drain         the port is closed, clients are sent away                       2 s, 5 at most
    the HTTP port     requests in progress are answered                               3.25 s at most
    the store         last prices are written                                         1.5 s at most
    STOP_TIMEOUT      the hard exit, whatever hangs                                   9 s
"""

import signal
from collections.abc import Callable

import structlog
import trio

from server.app.readiness import Readiness
from server.app.reload import Reloading
from server.cluster.member import Member
from server.gateway.gateway import Gateway
from server.process.signals import Signals
from server.store.store import FINAL_TIMEOUT

CLOSING_TIME = 0.25
"""Seconds after everything has stopped: to close files and to leave the interpreter."""

log = structlog.get_logger()


def time_for_http(signals: Signals) -> float:
    """Return the seconds that the HTTP port may still take, so that the last prices can be written."""
    return max(0.0, signals.time_left - FINAL_TIMEOUT - CLOSING_TIME)


async def handle_signals(
    signals: Signals,
    stop: Callable[[int], float],
    member: Member | None,
    reloading: Reloading,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Stop at the first SIGINT or SIGTERM. At SIGUSR1 let another instance lead, at SIGHUP reload.

    `stop` begins a stop and returns the seconds for which clients may still come. `signals` handles the
    second SIGINT or SIGTERM, and a stop that hangs.
    """
    stopping = False
    async with trio.open_nursery() as tasks:
        tasks.start_soon(reloading.run)
        task_status.started()
        async for number in signals.received:
            if number == signal.SIGUSR1:
                _hand_over(member)
            elif number == signal.SIGHUP:
                reloading.request()
            elif not stopping:
                stopping = True
                log.info("stopping", signal=signal.Signals(number).name)
                tasks.start_soon(_retire, member, stop(number))


async def _retire(member: Member | None, delay: float) -> None:
    """Let another instance lead, but only when the clients leave, as there may be no other instance."""
    await trio.sleep(delay)
    if member:
        member.retire()


def _hand_over(member: Member | None) -> None:
    if member and member.leading:
        member.hand_over()
    else:
        log.info("nothing to hand over: this instance does not lead a cluster")


def begin_stop(gateway: Gateway, readiness: Readiness, drain_delay: float, number: int) -> float:
    """Turn `/readyz` red, and close the port `drain_delay` later. Return the delay in seconds.

    Meanwhile load balancers notice `/readyz`. If none has ever asked, Ctrl-C has no delay.
    """
    alone = number == signal.SIGINT and not readiness.asked
    delay = 0.0 if alone else drain_delay
    gateway.stop(delay)
    return delay
