"""The duties of a server that is a worker: it reports to its supervisor and follows its messages."""

from collections.abc import Awaitable, Callable
from functools import partial
from time import perf_counter, process_time

import structlog

from server.cluster.member import Member
from server.fanout.hub import Hub
from server.fanout.stats import FanoutStats
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.ops.http_edge import HttpPorts
from server.ops.problems import HOST_UNAVAILABLE, ApiError
from server.process.signals import Signals
from server.workers.control import Sample
from server.workers.worker import NoHost, SupervisorLink, WorkerCallbacks

log = structlog.get_logger()

NO_ANSWER = "the supervisor does not answer, try again"


class _Sampling:
    """Reports how this worker is doing. Processor time counts from the last report."""

    def __init__(self, pool: Pool, stats: FanoutStats) -> None:
        self._pool = pool
        self._stats = stats
        self._at, self._used = perf_counter(), process_time()

    def take(self) -> Sample:
        """Return a report."""
        now, used = perf_counter(), process_time()
        cpu = (used - self._used) / max(now - self._at, 0.001)
        self._at, self._used = now, used
        return Sample(
            places=self._pool.places,
            capacity=self._pool.capacity,
            cpu=cpu,
            delivered=self._stats.delivery_latency.counts,
        )


def worker_callbacks(
    gateway: Gateway,
    hub: Hub,
    member: Member | None,
    http: HttpPorts,
    metrics: Callable[[], str],
    answer: Callable[[str], Awaitable[str]],
) -> WorkerCallbacks:
    """Return the functions that the supervisor's messages call."""
    return WorkerCallbacks(
        sample=_Sampling(gateway.pool, hub.stats).take,
        metrics=partial(page_or_nothing, metrics),
        retire=partial(_retire, gateway, member, http),
        send_away=gateway.pool.send_away,
        answer=answer,
    )


def page_or_nothing(metrics: Callable[[], str]) -> str:
    """Return a page of metrics. It is empty if making it fails, as that must not end the worker."""
    try:
        return metrics()
    except Exception as error:
        log.error("the supervisor gets no metrics", exc_info=error)
        return ""


async def _retire(gateway: Gateway, member: Member | None, http: HttpPorts) -> None:
    """Leave the lead and both ports to the other workers, without refusing a client."""
    if member:
        member.retire()
    http.leave()
    await gateway.retire()
    await http.stop()


async def metrics_page(
    own: Callable[[], str], supervisor: SupervisorLink | None, worker: str | None
) -> str | None:
    """Return the metrics of all workers, or of one; None if that worker does not exist.

    Without a supervisor, return this server's `own` metrics.

    Errors: ApiError if the supervisor or the named worker does not answer. The own page is not an
    answer then: without the label `worker` it would look like another machine's.
    """
    if supervisor is None or worker == str(supervisor.number):
        return own()
    try:
        page = await supervisor.host_metrics(worker)
    except NoHost:
        raise ApiError(HOST_UNAVAILABLE, NO_ANSWER) from None
    if page == "":
        raise ApiError(HOST_UNAVAILABLE, f"worker {worker} does not answer, try again")
    return page


async def ask_workers(supervisor: SupervisorLink, text: str) -> dict[int, str | None]:
    """Return all workers' answers to a question. Errors: ApiError."""
    try:
        return await supervisor.ask_workers(text)
    except NoHost:
        raise ApiError(HOST_UNAVAILABLE, NO_ANSWER) from None


async def follow_supervisor(
    supervisor: SupervisorLink, callbacks: WorkerCallbacks, signals: Signals
) -> None:
    """Report to the supervisor and follow its messages. Stop the server when the supervisor is gone."""
    await supervisor.run(callbacks)
    signals.stop()
