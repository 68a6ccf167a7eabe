"""The nursery tree: every task of the server hangs somewhere below `serve`."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from functools import partial
from random import Random
from typing import NamedTuple

import structlog
import trio

from server.cluster.control import Sample
from server.cluster.worker import SupervisorLink
from server.fanout.breaker import BreakerPolicy
from server.fanout.broadcaster import BROADCAST_TRADES, run_broadcaster
from server.fanout.hub import Hub
from server.feeds.replay import Replay, ReplayError
from server.feeds.simulator import run_simulator
from server.garbage import freeze_survivors
from server.gateway.auth import Authenticator
from server.gateway.directory import Directory
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.gateway.sockets import bind
from server.ops.api import Api, endpoints
from server.ops.health import HealthMonitor, service_checks, store_checks
from server.ops.http import build_http_app, serve_http
from server.ops.lag import LoopLag
from server.ops.metrics import build_registry
from server.ops.metrics_store import StoreCollector
from server.ops.openapi import describing_routes
from server.ops.overload import run_overload_control
from server.quotes.instrument import normalize_symbol
from server.quotes.quote import Trade
from server.settings import Settings
from server.store.catalogue import StoreUnavailable
from server.store.store import StoreOptions, open_store

STOP_TIMEOUT = 9.0
"""Seconds from the first signal to a hard exit, whatever hangs; 10 are promised."""

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

    Errors: BindError, ReplayError, StoreUnavailable, before anything was started.
    """
    replay = _open_replay(settings)
    shared = supervisor is not None
    ws_listeners = bind(settings.ws_host, settings.ws_port, shared=shared)
    http_listeners = bind(settings.http_host, settings.http_port, shared=shared)
    addresses = addresses_of(ws_listeners, http_listeners)

    breaker = BreakerPolicy(
        settings.ws_circuit_breaker_threshold,
        settings.ws_circuit_breaker_recovery,
        settings.ws_stall_timeout,
    )
    hub = Hub(breaker=breaker, quiet_after=settings.quote_quiet_after)
    async with open_store(store_options(settings), hub.snapshot, hub.known_topics) as store:
        pool = Pool(settings.ws_max_connections, settings.ws_max_connections_per_user)
        directory = Directory(hub, store.loader, store.catalogue)
        gateway = Gateway(
            hub=hub,
            pool=pool,
            authenticator=authenticator,
            directory=directory,
            max_symbols=settings.ws_max_symbols,
            command_rate=settings.ws_command_rate,
            allowed_origins=settings.ws_allowed_origins,
            handshake_rate=settings.ws_handshake_rate,
            ping_interval=settings.ws_ping_interval,
            idle_timeout=settings.ws_idle_timeout,
            compression=settings.ws_compression == "shared",
        )
        lag = LoopLag()
        health = HealthMonitor(
            service_checks(hub, gateway, lag) | store_checks(store),
            settings.ws_health_check_interval,
        )
        registry = build_registry(hub, pool, lag, lambda: replay.bad_rows if replay else 0, health)
        registry.register(StoreCollector(store))
        api = endpoints(Api(hub, store))
        routes = [*(each.route(authenticator) for each in api), *describing_routes(api)]
        app = build_http_app(registry, gateway.unready, health, routes)
        http_stop = trio.Event()

        async with trio.open_nursery() as nursery:
            await nursery.start(hub.run)
            await nursery.start(store.run)
            nursery.start_soon(store.changes.run, directory)
            nursery.start_soon(lag.run)
            nursery.start_soon(health.run)
            if replay is None:  # a replay is held back instead
                nursery.start_soon(run_overload_control, hub, lag)
            await nursery.start(serve_http, app, http_listeners, http_stop.wait)
            async with trio.open_nursery() as streaming:
                if replay:  # else its symbols would be taken for new ones
                    await _list_catalogue(directory)
                streaming.start_soon(run_feed, hub, settings, replay)
                await streaming.start(stop_on_signal, gateway)
                freeze_survivors()
                log.info("started", quotes=addresses.quotes, http=addresses.http, feed=settings.feed,
                         catalogue=store.catalogue.name, cache=store.cache.name)  # fmt: skip
                on_started(addresses)
                if supervisor:
                    nursery.start_soon(follow_supervisor, supervisor, gateway)
                await gateway.serve(ws_listeners)
                streaming.cancel_scope.cancel()
            http_stop.set()
            nursery.cancel_scope.cancel()
    log.info("stopped", connections_served=pool.opened)


async def _list_catalogue(directory: Directory) -> None:
    try:
        await directory.list_everything()
    except StoreUnavailable as error:
        log.warning("replayed symbols go without names and base prices", problem=str(error))


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


async def run_feed(hub: Hub, settings: Settings, replay: Replay | None) -> None:
    """Run the chosen feed through the broadcaster; when it ends, every client is told."""
    send, receive = trio.open_memory_channel[Trade](BROADCAST_TRADES)
    reason = "feed_ended"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_broadcaster, hub, receive, lossless=replay is not None))
        async with send:
            if replay is None:
                random = Random(settings.simulator_seed)
                await run_simulator(
                    send, hub.watched_quotes, hub.is_watched, settings.price_update_interval, random
                )
            else:
                try:
                    await replay.run(send, hub.price_decimals)
                except ReplayError as error:
                    reason = "feed_failed"
                    log.error("feed failed", problem=str(error))
    hub.set_status("stale", reason)
    bad_rows = {"bad_rows": replay.bad_rows} if replay else {}
    log.warning("feed ended", reason=reason, trades=hub.stats.feed_updates, **bad_rows)


async def stop_on_signal(
    gateway: Gateway, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> None:
    """Drain at the first SIGINT or SIGTERM; exit at once at the second, or when draining hangs."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started()
        async for number in signals:
            if gateway.pool.draining:
                _exit_now("second signal", 128 + number)
            log.info("stopping", signal=signal.Signals(number).name)
            stop(gateway)


def stop(gateway: Gateway) -> None:
    """Send all clients away; exit when that hangs."""
    # A thread, as nothing on the event loop can be trusted to end what hangs there.
    timer = threading.Timer(STOP_TIMEOUT, _exit_now, ("clean stop took too long", 1))
    timer.daemon = True
    timer.start()
    gateway.stop()


async def follow_supervisor(supervisor: SupervisorLink, gateway: Gateway) -> None:
    """Report to the supervisor, and stop when it is gone."""
    pool = gateway.pool
    await supervisor.run(lambda: Sample(places=pool.places, capacity=pool.capacity))
    stop(gateway)


def _exit_now(reason: str, code: int) -> None:
    log.warning("exit at once", reason=reason)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _open_replay(settings: Settings) -> Replay | None:
    path = settings.feed.replay_path
    return Replay(path, settings.replay_speed, loop=settings.replay_loop) if path else None


def addresses_of(quotes: list[socket.socket], http: list[socket.socket]) -> Addresses:
    """The URLs at which listening sockets are reached."""
    return Addresses(f"ws://{_address(quotes)}/ws/quotes", f"http://{_address(http)}")


def _address(listeners: list[socket.socket]) -> str:
    host, port = listeners[0].getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
