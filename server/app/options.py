"""Maps the settings to the options of each package."""

from server.cluster.state import Policy
from server.config.settings import Settings
from server.fanout.breaker import BreakerPolicy
from server.fanout.hub import Hub
from server.gateway.addresses import Proxies
from server.gateway.auth import Authenticator
from server.gateway.budgets import (
    ADDRESS_BURST_SECONDS,
    LOOKUP_BURST_SECONDS,
    Budget,
    Budgets,
)
from server.gateway.directory import Directory
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.intake.batch import Desk
from server.quotes.instrument import normalize_symbol
from server.store.store import StoreOptions


def _budgets(settings: Settings) -> Budgets:
    return Budgets(
        commands=Budget(settings.user_command_rate),
        lookups=Budget(settings.user_lookup_rate, LOOKUP_BURST_SECONDS),
        failures=Budget(settings.address_failure_rate, ADDRESS_BURST_SECONDS),
        requests=Budget(settings.address_request_rate, ADDRESS_BURST_SECONDS),
    )


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """Return the limits for clients that do not read."""
    return BreakerPolicy(
        settings.ws_circuit_breaker_threshold,
        settings.ws_circuit_breaker_recovery,
        settings.ws_stall_timeout,
    )


def store_options(settings: Settings) -> StoreOptions:
    """Return the options of the store."""
    return StoreOptions(
        database_url=settings.database_url,
        database_pool_size=settings.database_pool_size,
        database_pooler=settings.database_pooler == "transaction",
        shipped=settings.catalogue == "shipped",
        database_migrate=settings.database_migrate,
        redis_url=settings.redis_url,
        sqlite_path=settings.sqlite_path,
        cache_ttl=settings.cache_ttl,
        cache_symbols=settings.cache_symbols,
        warm=[normalize_symbol(name) for name in settings.cache_warm],
        write_interval=settings.price_write_interval,
        session=settings.session,
        bars_keep=settings.bars_keep,
    )


def cluster_policy(settings: Settings) -> Policy:
    """Return the times and the role of an instance in its cluster."""
    return Policy(
        lease=settings.bus_lease,
        stale_after=settings.bus_stale_after,
        candidate=settings.feed != "bus",
        local=settings.bus_outage == "local",
    )


def build_gateway(
    settings: Settings,
    hub: Hub,
    authenticator: Authenticator,
    directory: Directory,
    max_sockets: int,
    desk: Desk | None,
) -> Gateway:
    """Return the streaming port, with at most `max_sockets` open connections. `desk` takes prices."""
    return Gateway(
        hub=hub,
        pool=Pool(settings.ws_max_connections, settings.ws_max_connections_per_user),
        authenticator=authenticator,
        directory=directory,
        max_symbols=settings.ws_max_symbols,
        command_rate=settings.ws_command_rate,
        allowed_origins=settings.ws_allowed_origins,
        handshake_rate=settings.ws_handshake_rate,
        ping_interval=settings.ws_ping_interval,
        idle_timeout=settings.ws_idle_timeout,
        compression=settings.ws_compression == "shared",
        max_sockets=max_sockets,
        budgets=_budgets(settings),
        proxies=Proxies(settings.trusted_proxies),
        desk=desk,
    )
