"""What the settings mean to each package: its own options, made from them."""

from server.cluster.state import Policy
from server.config.settings import Settings
from server.fanout.breaker import BreakerPolicy
from server.gateway.budgets import (
    ADDRESS_BURST_SECONDS,
    LOOKUP_BURST_SECONDS,
    Budget,
    Budgets,
)
from server.quotes.instrument import normalize_symbol
from server.store.store import StoreOptions


def budgets(settings: Settings) -> Budgets:
    """What the settings say about how much one user, and one address, may take."""
    return Budgets(
        commands=Budget(settings.user_command_rate),
        lookups=Budget(settings.user_lookup_rate, LOOKUP_BURST_SECONDS),
        failures=Budget(settings.address_failure_rate, ADDRESS_BURST_SECONDS),
        requests=Budget(settings.address_request_rate, ADDRESS_BURST_SECONDS),
    )


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """What the settings say about clients that do not read."""
    return BreakerPolicy(
        settings.ws_circuit_breaker_threshold,
        settings.ws_circuit_breaker_recovery,
        settings.ws_stall_timeout,
    )


def store_options(settings: Settings) -> StoreOptions:
    """What the settings say about the store."""
    return StoreOptions(
        database_url=settings.database_url,
        database_pool_size=settings.database_pool_size,
        database_migrate=settings.database_migrate,
        redis_url=settings.redis_url,
        sqlite_path=settings.sqlite_path,
        cache_ttl=settings.cache_ttl,
        cache_symbols=settings.cache_symbols,
        warm=[normalize_symbol(name) for name in settings.cache_warm],
        write_interval=settings.price_write_interval,
    )


def cluster_policy(settings: Settings) -> Policy:
    """What the settings say about the cluster."""
    return Policy(
        lease=settings.bus_lease,
        stale_after=settings.bus_stale_after,
        candidate=settings.feed != "bus",
        local=settings.bus_outage == "local",
    )
