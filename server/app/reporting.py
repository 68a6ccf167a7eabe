"""What a server does beside serving where it is one of a machine's workers."""

from collections.abc import Callable
from time import perf_counter, process_time

from starlette.exceptions import HTTPException

from server.cluster.member import Member
from server.fanout.stats import FanoutStats
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.ops.http_edge import HttpPorts
from server.process.signals import Signals
from server.workers.control import Sample
from server.workers.worker import NoHost, SupervisorLink, WorkerCallbacks


class Sampling:
    """Says how this worker is doing; processor time is that since it was last asked."""

    def __init__(self, pool: Pool, stats: FanoutStats) -> None:
        self._pool = pool
        self._stats = stats
        self._at, self._used = perf_counter(), process_time()

    def take(self) -> Sample:
        """How it is now."""
        now, used = perf_counter(), process_time()
        cpu = (used - self._used) / max(now - self._at, 0.001)
        self._at, self._used = now, used
        return Sample(
            places=self._pool.places,
            capacity=self._pool.capacity,
            cpu=cpu,
            delivered=self._stats.delivery_latency.counts,
        )


async def leave_cluster(gateway: Gateway, member: Member | None, http: HttpPorts) -> None:
    """Leave the lead and both ports to the other workers, refusing nobody."""
    if member:
        member.retire()
    http.leave()
    await gateway.retire()
    await http.stop()


async def metrics_page(
    own: Callable[[], str], supervisor: SupervisorLink | None, worker: str | None
) -> str | None:
    """The metrics of all workers, or of one; None if there is no such one. `own` without workers.

    Errors: HTTPException 503 if the supervisor does not answer: a page without label `worker`
    would look like another machine's.
    """
    if supervisor is None or worker == str(supervisor.number):
        return own()
    try:
        return await supervisor.host_metrics(worker)
    except NoHost:
        raise HTTPException(503, "the supervisor does not answer") from None


async def follow_supervisor(
    supervisor: SupervisorLink, callbacks: WorkerCallbacks, signals: Signals
) -> None:
    """Report to the supervisor and do as it says; stop when it is gone."""
    await supervisor.run(callbacks)
    signals.stop()
