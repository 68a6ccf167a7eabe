"""All of the server's metrics in one registry."""

from prometheus_client import CollectorRegistry, ProcessCollector

from server.cluster.member import Member
from server.fanout.hub import Hub
from server.gateway.gateway import Gateway
from server.ops.metrics import ServiceCollector
from server.ops.metrics_budgets import BudgetCollector
from server.ops.metrics_cluster import ClusterCollector
from server.ops.metrics_invalid import InvalidCollector
from server.ops.metrics_store import StoreCollector
from server.store.store import Store


def build_registry(
    service: ServiceCollector, hub: Hub, gateway: Gateway, store: Store, member: Member | None
) -> CollectorRegistry:
    """Return a registry with the metrics of `service`, of what it is made of, and of the process."""
    invalid = [hub.stats.invalid, store.stats.invalid]
    invalid += [member.stats.invalid] if member else []
    registry = CollectorRegistry()
    for collector in (
        service,
        StoreCollector(store),
        ClusterCollector(member),
        BudgetCollector(gateway.budgets),
        InvalidCollector(*invalid),
    ):
        registry.register(collector)
    ProcessCollector(registry=registry)
    return registry
