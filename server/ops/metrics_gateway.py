"""The gateway's metrics: connections, commands and the users' and addresses' budgets."""

from collections import Counter
from collections.abc import Iterator

from prometheus_client.core import Metric

from server.fanout.breaker import BreakerState
from server.fanout.hub import Hub
from server.gateway.closing import KNOWN_CODES
from server.gateway.gateway import Gateway
from server.gateway.lifecycle import State
from server.ops.families import PackageCollector, by_label, counter, counters, gauges
from server.quotes.view import FORMS


class GatewayCollector(PackageCollector):
    """Reads the gateway's counts, and the hub's counts of circuit breakers."""

    def __init__(self, gateway: Gateway, hub: Hub) -> None:
        self._pool = gateway.pool
        self._hub = hub
        self._budgets = {
            "commands": gateway.budgets.commands,
            "lookups": gateway.budgets.lookups,
            "failures": gateway.budgets.failures,
            "requests": gateway.budgets.requests,
        }

    def collect(self) -> Iterator[Metric]:
        pool = self._pool
        yield gauges(
            "market_data_connections",
            "Open connections by state",
            ["state"],
            {(state.value,): pool.states[state] for state in State if state is not State.CLOSED},
        )
        yield gauges(
            "market_data_connections_by_form",
            "Open connections by the form of their messages",
            ["form"],
            by_label({form: pool.views.by_form[form] for form in FORMS}),
        )
        yield self._breakers()
        yield counter("market_data_connections", "Connections opened", pool.opened_total)
        yield counters(
            "market_data_connections_rejected",
            "Connections refused before the upgrade",
            ["reason"],
            by_label(pool.rejected),
        )
        closed: Counter[str] = Counter()
        for code, count in pool.closed.items():
            closed[str(code) if code in KNOWN_CODES else "other"] += count
        yield counters(
            "market_data_connections_closed",
            "Connections closed, by close code",
            ["code"],
            by_label(closed),
        )
        yield counters(
            "market_data_commands", "Clients' commands", ["action", "result"], pool.commands
        )
        yield counters(
            "market_data_rate_limited",
            "Refusals because a user's or an address's budget was spent",
            ["budget"],
            by_label({name: budget.refused for name, budget in self._budgets.items()}),
        )
        yield gauges(
            "market_data_budgets",
            "Users and addresses with a budget in use",
            ["budget"],
            by_label({name: len(budget) for name, budget in self._budgets.items()}),
        )

    def _breakers(self) -> Metric:
        states = {state.value: self._hub.breakers[state] for state in BreakerState}
        not_closed = sum(self._hub.breakers.values())
        states[BreakerState.CLOSED.value] = len(self._pool.sessions) - not_closed
        return gauges(
            "market_data_circuit_breakers",
            "Open connections by circuit breaker",
            ["state"],
            by_label(states),
        )
