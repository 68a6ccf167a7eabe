"""The nursery tree: every task of the server runs below `serve`."""

from collections.abc import Callable
from datetime import UTC
from functools import partial
from time import time

import structlog
import trio

from server.app.operations import Parts, build_operations
from server.app.options import breaker_policy, build_gateway, cluster_policy, store_options
from server.app.prices import Prices, kept_topics, may_write, stored_bar
from server.app.publishing import open_push, trades_memory
from server.app.reload import Load, Reloading
from server.app.reporting import follow_supervisor, worker_callbacks
from server.app.stop import begin_stop, handle_signals, time_for_http
from server.cluster.member import open_member
from server.config.settings import Settings
from server.fanout.hub import Hub
from server.fanout.openings import run_market_hours
from server.gateway.auth import Authenticator
from server.gateway.directory import Directory
from server.ops.http_edge import HttpPorts
from server.ops.overload import run_overload_control
from server.process.binding import bind
from server.process.garbage import freeze_survivors
from server.process.listeners import Addresses, bind_all, share_descriptors
from server.process.signals import Signals, hard_exit_after
from server.store.loop import open_asyncio_loop
from server.store.store import Store, open_store
from server.workers.worker import SupervisorLink

LOOK_TIMEOUT = 0.5
"""Seconds for the last look at the catalogue, some milliseconds of work."""

log = structlog.get_logger()


async def serve(
    settings: Settings,
    authenticator: Authenticator,
    load: Load,
    on_started: Callable[[Addresses], None],
    supervisor: SupervisorLink | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM. `on_started` gets the addresses once clients can connect.

    At SIGHUP, `load` reads `settings` and `authenticator` anew. With a `supervisor`, the ports are
    shared with its other workers, and the server ends with it.

    Errors: BindError, ReplayError, StoreUnavailable, BadRedisUrl, before any task is started;
    StoreMisconfigured in groups, before clients can connect.
    """
    prices = Prices(settings)
    shared = supervisor is not None
    listeners = bind_all(settings, partial(bind, shared=shared))
    addresses = listeners.addresses
    room = share_descriptors(settings)
    shared_catalogue = shared or bool(settings.database_url)
    hub = _build_hub(settings)
    async with (
        open_asyncio_loop(settings.database_url, settings.redis_url),
        open_member(settings.redis_url, hub, cluster_policy(settings)) as member,
        open_store(
            store_options(settings),
            hub.snapshot,
            partial(kept_topics, hub, member, shared=shared_catalogue),
            hub.bars.minutes,
            partial(may_write, member, shared=shared_catalogue),
        ) as store,
    ):
        hub.bars.load = partial(stored_bar, store)
        hub.bars.zone = prices.session.zone or UTC
        directory = Directory(hub, store.loader, store.catalogue, member)
        push = open_push(settings, hub, directory, member)
        desk = push if settings.feed.takes_prices else None
        gateway = build_gateway(settings, hub, authenticator, directory, room.streaming, desk)
        parts = Parts(
            hub=hub,
            store=store,
            member=member,
            gateway=gateway,
            authenticator=authenticator,
            prices=prices,
            push=push,
            desk=desk,
        )
        operations = build_operations(parts, settings, listeners, room.http, supervisor)
        http, readiness = operations.http, operations.readiness
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            await nursery.start(store.run, directory)
            await nursery.start(run_market_hours, hub, settings.session)
            nursery.start_soon(operations.watch)
            # A lossless feed waits for the clients instead.
            if not prices.lossless:
                nursery.start_soon(run_overload_control, hub, operations.lag)
            if not supervisor:
                await nursery.start(http.run)
            async with trio.open_nursery() as streaming:
                await prices.start(streaming, hub, member, directory, push, store.changes.finish)
                signals = Signals(hard_exit_after(settings.drain_delay))
                await nursery.start(
                    handle_signals,
                    signals,
                    partial(begin_stop, gateway, readiness, settings.drain_delay),
                    member,
                    Reloading(settings, authenticator, load),
                )
                freeze_survivors()
                log.info(
                    "started",
                    quotes=addresses.quotes,
                    http=addresses.http,
                    feed=settings.feed,
                    catalogue=store.catalogue.name,
                    cache=store.cache.name,
                )
                on_started(addresses)
                # Workers share their ports: only one that is ready may answer.
                if supervisor:
                    nursery.start_soon(http.run)
                    callbacks = worker_callbacks(
                        gateway,
                        hub,
                        member,
                        http,
                        operations.own_metrics,
                        operations.machine.answer,
                    )
                    nursery.start_soon(follow_supervisor, supervisor, callbacks, signals)
                await gateway.serve(listeners.quotes)
                streaming.cancel_scope.cancel()
            await _finish(store, http, signals)
            nursery.cancel_scope.cancel()
    log.info("stopped", connections_served=gateway.pool.opened_total)


def _build_hub(settings: Settings) -> Hub:
    hub = Hub(
        breaker=breaker_policy(settings),
        quiet_after=settings.quote_quiet_after,
        trades_memory=trades_memory(settings),
    )
    if settings.feed.replay_path is None:
        hub.bars.minutes.begin(int(time() * 1e6))
    return hub


async def _finish(store: Store, http: HttpPorts, signals: Signals) -> None:
    """Do what is left when no client is connected, in the time that is left."""
    # The database does not take the last prices of symbols that were renamed or split since.
    with trio.move_on_after(min(LOOK_TIMEOUT, time_for_http(signals))):
        await store.changes.finish()
    with trio.move_on_after(time_for_http(signals)):
        await http.stop()
