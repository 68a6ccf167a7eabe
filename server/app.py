"""The nursery tree: every task of the server hangs somewhere below `serve`."""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random

import structlog
import trio

from server.cluster.interest import Interest
from server.cluster.member import Member, open_member
from server.fanout.broadcaster import BROADCAST_TRADES, run_broadcaster
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.feeds.replay import Replay, ReplayError
from server.feeds.simulator import run_simulator
from server.garbage import freeze_survivors
from server.gateway.addresses import Proxies
from server.gateway.auth import Authenticator
from server.gateway.directory import Directory
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.gateway.sockets import Room, allow_sockets, bind
from server.listeners import Addresses, bind_all
from server.ops.admission import Gate
from server.ops.api import Api, endpoints
from server.ops.health import HealthMonitor, cluster_checks, service_checks, store_checks
from server.ops.http import everybody, operator_routes, probe_routes
from server.ops.lag import LoopLag
from server.ops.metrics import ServiceCollector, render
from server.ops.metrics_http import HttpCollector
from server.ops.openapi import description_route, docs_route
from server.ops.overload import run_overload_control
from server.ops.ports import Routes, build_ports
from server.ops.registry import build_registry
from server.options import breaker_policy, budgets, cluster_policy, store_options
from server.quotes.quote import Trade
from server.readiness import Readiness
from server.reload import Load, Reloading
from server.settings import Settings
from server.signals import Signals
from server.stop import (
    begin_stop,
    handle_signals,
    hard_exit_after,
    time_for_http,
)
from server.store.catalogue import StoreUnavailable
from server.store.loop import open_asyncio_loop
from server.store.store import open_store
from server.workers.reporting import Sampling, follow_supervisor, leave_cluster, metrics_page
from server.workers.worker import SupervisorLink, WorkerCallbacks

JOIN_TIMEOUT = 3.0
"""Seconds a start waits for the cluster; then it serves without, and goes on trying."""

log = structlog.get_logger()


async def serve(
    settings: Settings,
    authenticator: Authenticator,
    load: Load,
    on_started: Callable[[Addresses], None],
    supervisor: SupervisorLink | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `on_started` gets the addresses once clients can connect.
    At SIGHUP, `load` reads `settings` and `authenticator` anew.

    With a `supervisor`, which it ends with, the ports are shared with the other workers.

    Errors: BindError, ReplayError, StoreUnavailable, BadBusUrl, before anything was started;
    StoreMisconfigured in groups, before clients can connect.
    """
    replay = _open_replay(settings)
    shared = supervisor is not None
    listeners = bind_all(settings, partial(bind, shared=shared))
    addresses = listeners.addresses
    room = _share_descriptors(settings)

    hub = Hub(breaker=breaker_policy(settings), quiet_after=settings.quote_quiet_after)
    async with (
        open_asyncio_loop(settings.database_url, settings.redis_url),
        open_member(settings.redis_url, hub, cluster_policy(settings)) as member,
        open_store(
            store_options(settings),
            hub.snapshot,
            partial(kept_topics, hub, member, shared=shared or bool(settings.database_url)),
        ) as store,
    ):
        directory = Directory(hub, store.loader, store.catalogue, member)
        gateway = _gateway(settings, hub, authenticator, directory, room.streaming)
        lag = LoopLag()
        health = HealthMonitor(
            service_checks(hub, gateway, lag) | store_checks(store) | cluster_checks(member),
            settings.ws_health_check_interval,
        )
        service = ServiceCollector(
            hub, gateway.pool, lag, lambda: replay.bad_rows if replay else 0, health
        )
        registry = build_registry(service, hub, gateway, store, member)
        own_metrics = partial(render, registry)
        readiness = Readiness(gateway, hub, store, member)
        api = endpoints(Api(hub, store))
        gate = Gate(authenticator=authenticator, budgets=gateway.budgets, proxies=gateway.proxies)
        routes = Routes(
            probes=probe_routes(readiness.ask),
            users=[each.route(gate) for each in api],
            public=[description_route(api)],
            operators=[
                *operator_routes(
                    partial(metrics_page, own_metrics, supervisor),
                    health,
                    everybody if listeners.ops else gate.is_admin,
                ),
                docs_route(),
            ],
        )
        http = build_ports(listeners, room.http, lag, routes, gate)
        registry.register(HttpCollector(http.edges))
        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            await nursery.start(store.run, directory)
            nursery.start_soon(lag.run)
            nursery.start_soon(health.run)
            if replay is None:  # a replay is held back instead
                nursery.start_soon(run_overload_control, hub, lag)
            if not supervisor:
                await nursery.start(http.run)
            async with trio.open_nursery() as streaming:
                if replay:  # else its symbols would be taken for new ones
                    await _list_catalogue(directory)
                feed = partial(run_feed, hub, settings, replay, member.interest if member else hub)
                await _start_prices(streaming, feed, member, directory)
                signals = Signals(hard_exit_after(settings.drain_delay))
                await nursery.start(
                    handle_signals,
                    signals,
                    partial(begin_stop, gateway, readiness, settings.drain_delay),
                    member,
                    Reloading(settings, authenticator, load),
                )
                freeze_survivors()
                log.info("started", quotes=addresses.quotes, http=addresses.http, feed=settings.feed,
                         catalogue=store.catalogue.name, cache=store.cache.name)  # fmt: skip
                on_started(addresses)
                if supervisor:  # on ports that the others share, only what is ready answers
                    nursery.start_soon(http.run)
                    nursery.start_soon(
                        follow_supervisor,
                        supervisor,
                        WorkerCallbacks(
                            sample=Sampling(gateway.pool, hub.stats).take,
                            metrics=own_metrics,
                            retire=partial(leave_cluster, gateway, member, http),
                            send_away=gateway.pool.send_away,
                        ),
                        signals,
                    )
                await gateway.serve(listeners.quotes)
                streaming.cancel_scope.cancel()
            with trio.move_on_after(time_for_http(signals)):
                await http.stop()
            nursery.cancel_scope.cancel()
    log.info("stopped", connections_served=gateway.pool.opened_total)


def _gateway(
    settings: Settings,
    hub: Hub,
    authenticator: Authenticator,
    directory: Directory,
    max_sockets: int,
) -> Gateway:
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
        budgets=budgets(settings),
        proxies=Proxies(settings.trusted_proxies),
    )


def _share_descriptors(settings: Settings) -> Room:
    room = allow_sockets(settings.http_max_connections)
    if room.streaming < settings.ws_max_connections:
        log.warning("ulimit -n leaves room for fewer than WS_MAX_CONNECTIONS",
                    connections=room.streaming)  # fmt: skip
    if room.http < settings.http_max_connections:
        log.warning("ulimit -n leaves room for fewer than HTTP_MAX_CONNECTIONS",
                    connections=room.http)  # fmt: skip
    return room


async def _list_catalogue(directory: Directory) -> None:
    try:
        await directory.list_everything()
    except StoreUnavailable as error:
        log.warning("replayed symbols go without names and base prices", problem=str(error))


async def _start_prices(
    streaming: trio.Nursery,
    feed: Callable[[int], Awaitable[None]],
    member: Member | None,
    directory: Directory,
) -> None:
    """Have prices come from the feed or, in a cluster, from whoever leads."""
    if member is None:
        streaming.start_soon(feed, 0)
        return
    streaming.start_soon(member.run, feed, directory.list_symbols)
    with trio.move_on_after(JOIN_TIMEOUT):
        await member.settled.wait()


def kept_topics(hub: Hub, member: Member | None, *, shared: bool) -> Iterable[Topic]:
    """The topics whose prices this instance writes to its catalogue: all, unless that is `shared` with
    others, and somebody else's prices are newer.
    """
    writes = member is None or not shared or member.authoritative
    return hub.known_topics() if writes else ()


async def run_feed(
    hub: Hub, settings: Settings, replay: Replay | None, watching: Hub | Interest, position: int
) -> None:
    """Run the chosen feed through the broadcaster; when it ends, every client is told.

    Arguments:
        watching: knows what is watched, here or in the whole cluster.
        position: where a replay goes on, as in `Replay.run`.
    """
    send, receive = trio.open_memory_channel[Trade](BROADCAST_TRADES)
    reason = "feed_ended"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=replay is not None))
        async with send:
            if replay is None:
                random = Random(settings.simulator_seed)
                await run_simulator(
                    send,
                    watching.watched_quotes,
                    watching.is_watched,
                    settings.price_update_interval,
                    random,
                )
            else:
                try:
                    await replay.run(send, hub.price_decimals, position)
                except ReplayError as error:
                    reason = "feed_failed"
                    log.error("feed failed", problem=str(error))
    hub.set_status("stale", reason)
    bad_rows = {"bad_rows": replay.bad_rows} if replay else {}
    log.warning("feed ended", reason=reason, trades=hub.stats.feed_updates, **bad_rows)


def _open_replay(settings: Settings) -> Replay | None:
    path = settings.feed.replay_path
    try:
        return Replay(path, settings.replay_speed, loop=settings.replay_loop) if path else None
    except ReplayError as error:
        raise ReplayError(f"FEED: {error}") from None
