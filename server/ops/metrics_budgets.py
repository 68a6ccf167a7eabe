"""The budgets' metrics, read from what they count."""

from collections.abc import Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from server.gateway.budgets import Budgets
from server.ops.metrics import counters


class BudgetCollector(Collector):
    """Turns the budgets' counts into metric families."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = {
            "commands": budgets.commands,
            "lookups": budgets.lookups,
            "failures": budgets.failures,
            "requests": budgets.requests,
        }

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry then does not collect once at registration."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, at this moment."""
        yield counters(
            "market_data_rate_limited",
            "Refused as a user's or an address's budget was spent",
            ["budget"],
            {(name,): budget.refused for name, budget in self._budgets.items()},
        )
        kept = GaugeMetricFamily(
            "market_data_budgets", "Users and addresses with a budget in use", labels=["budget"]
        )
        for name, budget in self._budgets.items():
            kept.add_metric([name], len(budget))
        yield kept
