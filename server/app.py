"""The nursery tree: every task of the server hangs somewhere below `serve`."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from random import Random
from typing import NamedTuple

import structlog
import trio

from server.cluster.interest import Interest
from server.cluster.line import Policy
from server.cluster.member import Member, open_member
from server.cluster.worker import Duties, SupervisorLink
from server.fanout.breaker import BreakerPolicy
from server.fanout.broadcaster import BROADCAST_TRADES, run_broadcaster
from server.fanout.hub import Hub
from server.fanout.topic import Topic
from server.feeds.replay import Replay, ReplayError
from server.feeds.simulator import run_simulator
from server.garbage import freeze_survivors
from server.gateway.auth import Authenticator
from server.gateway.directory import Directory
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.gateway.sockets import allow_sockets, bind
from server.ops.api import Api, endpoints
from server.ops.health import HealthMonitor, cluster_checks, service_checks, store_checks
from server.ops.http import HttpServer, build_http_app
from server.ops.lag import LoopLag
from server.ops.metrics import build_registry, render
from server.ops.metrics_cluster import ClusterCollector
from server.ops.metrics_store import StoreCollector
from server.ops.openapi import describing_routes
from server.ops.overload import run_overload_control
from server.quotes.instrument import normalize_symbol
from server.quotes.quote import Trade
from server.settings import Settings
from server.store.catalogue import StoreUnavailable
from server.store.loop import open_asyncio_loop
from server.store.store import StoreOptions, open_store
from server.work import Sampling, leave_cluster, metrics_page

STOP_TIMEOUT = 9.0
"""Seconds from the first signal to a hard exit, whatever hangs; 10 are promised."""

JOIN_TIMEOUT = 3.0
"""Seconds a start waits for the cluster; then it serves without, and goes on trying."""

WS_ADDRESS, HTTP_ADDRESS = "WS_HOST, WS_PORT", "HTTP_HOST, HTTP_PORT"
"""The variables that are named where an address cannot be listened on."""

log = structlog.get_logger()


class Addresses(NamedTuple):
    """Where the server listens: URLs."""

    quotes: str
    http: str


async def serve(
    settings: Settings,
    authenticator: Authenticator,
    on_started: Callable[[Addresses], None],
    supervisor: SupervisorLink | None = None,
) -> None:
    """Serve until SIGINT or SIGTERM; `on_started` gets the addresses once clients can connect.

    With a `supervisor`, which it ends with, the ports are shared with the other workers.

    Errors: BindError, ReplayError, StoreUnavailable, BadBusUrl, before anything was started;
    StoreMisconfigured in groups, before clients can connect.
    """
    replay = _open_replay(settings)
    shared = supervisor is not None
    ws_listeners = bind(settings.ws_host, settings.ws_port, setting=WS_ADDRESS, shared=shared)
    http_listeners = bind(
        settings.http_host, settings.http_port, setting=HTTP_ADDRESS, shared=shared
    )
    addresses = addresses_of(ws_listeners, http_listeners)

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
        gateway = _gateway(settings, hub, authenticator, directory)
        lag = LoopLag()
        health = HealthMonitor(
            service_checks(hub, gateway, lag) | store_checks(store) | cluster_checks(member),
            settings.ws_health_check_interval,
        )
        registry = build_registry(
            hub, gateway.pool, lag, lambda: replay.bad_rows if replay else 0, health
        )
        registry.register(StoreCollector(store))
        registry.register(ClusterCollector(member))
        own_metrics = partial(render, registry)
        api = endpoints(Api(hub, store))
        app = build_http_app(
            partial(metrics_page, own_metrics, supervisor),
            partial(unready, gateway, member),
            health,
            [*(each.route(authenticator) for each in api), *describing_routes(api)],
            authenticator=authenticator,
        )
        http = HttpServer(app, http_listeners)

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
                await streaming.start(handle_signals, gateway, member)
                freeze_survivors()
                log.info("started", quotes=addresses.quotes, http=addresses.http, feed=settings.feed,
                         catalogue=store.catalogue.name, cache=store.cache.name)  # fmt: skip
                on_started(addresses)
                if supervisor:  # on ports that the others share, only what is ready answers
                    nursery.start_soon(http.run)
                    duties = Duties(
                        sample=Sampling(gateway.pool, hub.stats).take,
                        metrics=own_metrics,
                        retire=partial(leave_cluster, gateway, member, http),
                        send_away=gateway.pool.send_away,
                    )
                    nursery.start_soon(follow_supervisor, supervisor, duties, gateway, member)
                await gateway.serve(ws_listeners)
                streaming.cancel_scope.cancel()
            await http.stop()
            nursery.cancel_scope.cancel()
    log.info("stopped", connections_served=gateway.pool.opened)


def _gateway(
    settings: Settings, hub: Hub, authenticator: Authenticator, directory: Directory
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
        max_sockets=_max_sockets(settings),
    )


def _max_sockets(settings: Settings) -> int:
    room = allow_sockets()
    if room < settings.ws_max_connections:
        log.warning("ulimit -n leaves room for fewer than WS_MAX_CONNECTIONS", connections=room)
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


def kept_topics(hub: Hub, member: Member | None, *, shared: bool) -> Iterable[Topic]:
    """The topics whose prices this instance writes to its catalogue: all, unless that is `shared` with
    others, and somebody else's prices are newer.
    """
    writes = member is None or not shared or member.authoritative
    return hub.known_topics() if writes else ()


def unready(gateway: Gateway, member: Member | None) -> list[str]:
    """Why no client should be sent here now; empty if one should."""
    return gateway.unready() + (member.unready() if member else [])


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


async def handle_signals(
    gateway: Gateway,
    member: Member | None,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Drain at the first SIGINT or SIGTERM; exit at once at the second, or when draining hangs. At
    SIGUSR1 have another instance lead.
    """
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM, signal.SIGUSR1) as signals:
        task_status.started()
        async for number in signals:
            if number == signal.SIGUSR1:
                _hand_over(member)
                continue
            if gateway.pool.draining:
                _exit_now("second signal", 128 + number)
            log.info("stopping", signal=signal.Signals(number).name)
            stop(gateway, member)


def _hand_over(member: Member | None) -> None:
    if member and member.leading:
        member.hand_over()
    else:
        log.info("nothing to hand over: this instance does not lead a cluster")


def stop(gateway: Gateway, member: Member | None) -> None:
    """Have another instance lead, and send all clients away; exit when that hangs."""
    # A thread, as nothing on the event loop can be trusted to end what hangs there.
    timer = threading.Timer(STOP_TIMEOUT, _exit_now, ("clean stop took too long", 1))
    timer.daemon = True
    timer.start()
    gateway.stop()
    if member:
        member.retire()


async def follow_supervisor(
    supervisor: SupervisorLink, duties: Duties, gateway: Gateway, member: Member | None
) -> None:
    """Report to the supervisor and do as it says; stop when it is gone."""
    await supervisor.run(duties)
    stop(gateway, member)


def _exit_now(reason: str, code: int) -> None:
    log.warning("exit at once", reason=reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _open_replay(settings: Settings) -> Replay | None:
    path = settings.feed.replay_path
    try:
        return Replay(path, settings.replay_speed, loop=settings.replay_loop) if path else None
    except ReplayError as error:
        raise ReplayError(f"FEED: {error}") from None


def addresses_of(quotes: list[socket.socket], http: list[socket.socket]) -> Addresses:
    """The URLs at which listening sockets are reached."""
    return Addresses(f"ws://{_address(quotes)}/ws/quotes", f"http://{_address(http)}")


def _address(listeners: list[socket.socket]) -> str:
    host, port = listeners[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
