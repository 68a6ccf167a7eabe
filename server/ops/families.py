"""Builds Prometheus metric families from the plain integers that the other packages count in.

Nothing on a price's path calls the metrics library: one `labels().observe()` costs as much as sending
half a frame. Collectors read the counts when Prometheus scrapes them.

To add a metric, count in the package's `stats`, and yield a family from the package's `metrics_*.py` in
this folder. Then describe it in docs/operations.md: `tests/ops/test_metrics.py` fails without that.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from server.histogram import Histogram


class PackageCollector(Collector):
    """The metrics of one package: a subclass yields its families from `collect`."""

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registry does not collect once at registration."""
        return []


def counter(name: str, text: str, value: float) -> Metric:
    """Return a counter without labels; the page adds `_total` to its name."""
    return counters(name, text, [], {(): value})


def counters(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    """Return a counter with labels; `values` by a tuple with a value for each of `labels`."""
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a gauge without labels."""
    return gauges(name, text, [], {(): value})


def gauges(name: str, text: str, labels: list[str], values: Mapping[Any, float]) -> Metric:
    """Return a gauge with labels; `values` by a tuple with a value for each of `labels`."""
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def histogram(name: str, text: str, counts: Histogram) -> Metric:
    """Return a histogram without labels."""
    return histograms(name, text, [], {(): counts})


def histograms(name: str, text: str, labels: list[str], values: Mapping[Any, Histogram]) -> Metric:
    """Return a histogram with labels; `values` by a tuple with a value for each of `labels`."""
    family = HistogramMetricFamily(name, text, labels=labels)
    for key, counts in values.items():
        cumulative, buckets = 0, []
        for bound, count in zip((*counts.bounds, "+Inf"), counts.counts, strict=True):
            cumulative += count
            buckets.append((str(bound), cumulative))
        family.add_metric(key, buckets, counts.total)
    return family


def by_label(values: Mapping[Any, float]) -> dict[tuple[str], float]:
    """Turn values by name into values by the only label."""
    return {(str(name),): value for name, value in values.items()}


def _filled(
    family: CounterMetricFamily | GaugeMetricFamily, values: Mapping[Any, float]
) -> CounterMetricFamily | GaugeMetricFamily:
    for key, value in values.items():
        family.add_metric(key, value)
    return family
