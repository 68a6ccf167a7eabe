"""One object for everything that the sessions share. The gateway makes it and runs its tasks."""

from dataclasses import dataclass

from server.fanout.hub import Hub
from server.gateway.commands import ClientContext
from server.gateway.connection import Connection
from server.gateway.deadlines import DeadlineWheel
from server.gateway.heartbeat import Heartbeat
from server.gateway.poller import Poller
from server.gateway.pool import Pool
from server.gateway.sampling import Sampler


@dataclass(frozen=True, kw_only=True, slots=True)
class Services:
    """`context` is for answers to clients; `breaker_log` logs changes of circuit breakers."""

    hub: Hub
    pool: Pool
    context: ClientContext
    deadlines: DeadlineWheel
    heartbeat: Heartbeat
    poller: Poller[Connection]
    breaker_log: Sampler
