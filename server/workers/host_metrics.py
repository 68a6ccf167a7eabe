"""One page of metrics for all workers of a machine, and the supervisor's own."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import trio
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from server.workers.process import Stage

if TYPE_CHECKING:
    from server.workers.supervisor import Supervisor

SUPERVISOR = "supervisor"
"""The label `worker` of what the process collector says of the supervisor."""


class HostPage:
    """Asks the workers when it is asked."""

    def __init__(self, supervisor: "Supervisor") -> None:
        self._supervisor = supervisor
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)

    async def render(self) -> str:
        """The page: each worker's samples with a label `worker`; who gives none is said to be down."""
        pages: dict[str, str] = {}

        async def collect(number: int) -> None:
            worker = self._supervisor.restarters[number].worker
            if worker and worker.sample and (page := await worker.collect()) is not None:
                pages[str(number)] = page

        async with trio.open_nursery() as nursery:
            for number in self._supervisor.restarters:
                nursery.start_soon(collect, number)
        pages = dict(sorted(pages.items()))
        pages[SUPERVISOR] = generate_latest(self._process).decode()
        registry = CollectorRegistry()
        registry.register(_Families([*self._own(pages), *merge(pages)]))
        return generate_latest(registry).decode()

    async def render_one(self, name: str) -> str | None:
        """One worker's own page; None if there is no such worker, or it gives none."""
        restarters = {
            str(number): restarter for number, restarter in self._supervisor.restarters.items()
        }
        worker = restarters[name].worker if name in restarters else None
        return await worker.collect() if worker else None

    def _own(self, pages: Mapping[str, str]) -> Iterator[Metric]:
        supervisor = self._supervisor
        stages = Counter(
            each.worker.stage for each in supervisor.restarters.values() if each.worker
        )
        workers = GaugeMetricFamily("market_data_workers", "Workers by state", labels=["state"])
        for stage in Stage:
            workers.add_metric([stage.value], stages[stage])
        yield workers
        up = GaugeMetricFamily("market_data_worker_up", "Whether it answers", labels=["worker"])
        for number in sorted(supervisor.restarters):
            up.add_metric([str(number)], str(number) in pages)
        yield up
        restarts = CounterMetricFamily(
            "market_data_worker_restarts", "Workers that took the place of one that ended by itself"
        )
        restarts.add_metric([], supervisor.restarts)
        yield restarts
        rolls = CounterMetricFamily("market_data_rolls", "Rolls by result", labels=["result"])
        for key, times in supervisor.rolls.items():
            rolls.add_metric(key, times)
        yield rolls
        yield from self._scaler()

    def _scaler(self) -> Iterator[Metric]:
        supervisor = self._supervisor
        if supervisor.scaler is None:
            return
        decisions = CounterMetricFamily(
            "market_data_scaler_decisions", "Looks at the load", labels=["action", "reason"]
        )
        for key, times in supervisor.decisions.items():
            decisions.add_metric(key, times)
        yield decisions
        if supervisor.load is not None:
            load = GaugeMetricFamily(
                "market_data_scaler_load",
                "What was seen last: shares from 0 to 1, latency in seconds",
                labels=["signal"],
            )
            for name, value in supervisor.load._asdict().items():
                load.add_metric([name], value)
            yield load


def merge(pages: Mapping[str, str]) -> list[Metric]:
    """The families of all `pages`, each once, every sample with the page's name as label `worker`."""
    families: dict[tuple[str, str], Metric] = {}
    for name, page in pages.items():
        for family in text_string_to_metric_families(page):
            key = family.name, family.type
            merged = families.setdefault(
                key, Metric(family.name, family.documentation, family.type)
            )
            for sample in family.samples:
                labels = {**sample.labels, "worker": name}
                merged.add_sample(sample.name, labels, sample.value)
    return list(families.values())


class _Families(Collector):
    """What a registry is given to print."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def describe(self) -> Iterable[Metric]:
        """Nothing: two families may have one name with different suffixes."""
        return []

    def collect(self) -> Iterable[Metric]:
        """All families."""
        return self._families
