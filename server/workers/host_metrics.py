"""Asks all workers of a machine, and makes one page of their metrics and the supervisor's."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping

import structlog
import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.workers.process import Stage, Worker
from server.workers.restarter import WorkerRestarter
from server.workers.stats import SupervisorStats

SUPERVISOR = "supervisor"
"""The label `worker` of the supervisor's own process metrics."""

log = structlog.get_logger()


class HostPage:
    """Asks the workers for their metrics at each scrape."""

    def __init__(self, restarters: Mapping[int, WorkerRestarter], stats: SupervisorStats) -> None:
        self._restarters = restarters
        self._stats = stats
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def render(self) -> str:
        """Return the page. Samples have a label `worker`. A worker without an answer counts as down."""
        told = await self._gather(Worker.collect)
        pages = {
            str(number): _parsed(number, page) for number, page in told.items() if page is not None
        }
        parsed = {name: families for name, families in pages.items() if families is not None}
        page = generate_latest(self._process).decode()
        parsed[SUPERVISOR] = list(text_string_to_metric_families(page))
        registry = CollectorRegistry()
        registry.register(_Families([*self._own(parsed), *merge(parsed)]))
        return generate_latest(registry).decode()

    async def ask(self, text: str) -> dict[int, str | None]:
        """Return all workers' answers to a question, None for a worker without an answer."""
        return await self._gather(lambda worker: worker.ask(text))

    async def _gather(
        self, ask: Callable[[Worker], Awaitable[str | None]]
    ) -> dict[int, str | None]:
        """Ask all workers at the same time. Return their answers in the order of their numbers."""
        told: dict[int, str | None] = dict.fromkeys(sorted(self._restarters))

        async def ask_one(number: int) -> None:
            restarter = self._restarters.get(number)
            worker = restarter.worker if restarter else None
            if worker and worker.sample:
                told[number] = await ask(worker)

        async with trio.open_nursery() as nursery:
            for number in told:
                nursery.start_soon(ask_one, number)
        return told

    async def render_one(self, name: str) -> str | None:
        """Return one worker's own page; None if the worker does not exist, "" if it gives no answer."""
        for number, restarter in list(self._restarters.items()):
            if str(number) == name:
                return (restarter.worker and await restarter.worker.collect()) or ""
        return None

    def _own(self, pages: Mapping[str, object]) -> Iterator[Metric]:
        stages = Counter(each.worker.stage for each in self._restarters.values() if each.worker)
        workers = GaugeMetricFamily("market_data_workers", "Workers by state", labels=["state"])
        for stage in Stage:
            workers.add_metric([stage.value], stages[stage])
        yield workers
        up = GaugeMetricFamily("market_data_worker_up", "Whether it answers", labels=["worker"])
        for number in sorted(self._restarters):
            up.add_metric([str(number)], str(number) in pages)
        yield up
        restarts = CounterMetricFamily(
            "market_data_worker_restarts", "Workers that took the place of one that ended by itself"
        )
        restarts.add_metric([], self._stats.restarts)
        yield restarts
        rolls = CounterMetricFamily("market_data_rolls", "Rolls by result", labels=["result"])
        for result, times in self._stats.rolls.items():
            rolls.add_metric([result], times)
        yield rolls
        yield from self._scaler()

    def _scaler(self) -> Iterator[Metric]:
        load = self._stats.load
        if load is None:
            return
        decisions = CounterMetricFamily(
            "market_data_scaler_decisions", "Looks at the load", labels=["action", "reason"]
        )
        for decision, times in self._stats.decisions.items():
            decisions.add_metric(decision, times)
        yield decisions
        signals = GaugeMetricFamily(
            "market_data_scaler_load",
            "What was seen last: shares from 0 to 1, latency in seconds",
            labels=["signal"],
        )
        for name, value in load._asdict().items():
            signals.add_metric([name], value)
        yield signals


def _parsed(number: int, page: str) -> list[Metric] | None:
    """Return the families of a worker's page, None for a page that cannot be read."""
    try:
        return list(text_string_to_metric_families(page))
    # The parser raises whatever its steps do: ValueError, IndexError, KeyError and others.
    except Exception as error:
        log.warning("a worker's metrics cannot be read", worker=number, problem=str(error))
        return None


def merge(pages: Mapping[str, Iterable[Metric]]) -> list[Metric]:
    """Return the families of all `pages`, each once. Samples get their page's name as `worker`."""
    families: dict[tuple[str, str], Metric] = {}
    for name, page in pages.items():
        for family in page:
            key = family.name, family.type
            merged = families.setdefault(
                key, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {**sample.labels, "worker": name}
                merged.add_sample(sample.name, labels, sample.value)
    return list(families.values())


class _Families(Collector):
    """Families for a registry to print."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        """Nothing: two families may have one name with different suffixes."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families."""
        return self._families
