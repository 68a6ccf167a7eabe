"""The parts of one server that operators and other services see: HTTP ports, metrics and health."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple
from zoneinfo import ZoneInfo

import trio
from starlette.routing import Route

from server.app.prices import Prices
from server.app.readiness import Readiness
from server.app.reporting import ask_workers, metrics_page
from server.cluster.member import Member
from server.cluster.shared_prices import SharedPrices
from server.config.settings import Settings
from server.fanout.hub import Hub
from server.feeds.push import Push
from server.gateway.auth import Authenticator
from server.gateway.gateway import Gateway
from server.intake.batch import Desk
from server.ops.admission import Gate
from server.ops.api import Api, endpoints
from server.ops.asyncapi import asyncapi_route
from server.ops.bars import History, history_endpoints
from server.ops.clients import Clients
from server.ops.cors import api_sharing
from server.ops.endpoint import Endpoint
from server.ops.health import (
    HealthMonitor,
    check_publishing,
    check_venue,
    cluster_checks,
    service_checks,
    store_checks,
)
from server.ops.http import operator_routes, probe_routes
from server.ops.http_edge import HttpPorts
from server.ops.lag import LoopLag
from server.ops.machine import Machine
from server.ops.metrics import ServiceCollector, build_registry, render
from server.ops.metrics_http import HttpCollector
from server.ops.metrics_intake import IntakeCollector, VenueCollector
from server.ops.names import Names
from server.ops.openapi import description_route, docs_route
from server.ops.operators import Operators, operator_endpoints
from server.ops.pages import PAGES, Described, index_route
from server.ops.ports import Routes, build_ports
from server.ops.publishing import no_prices_route, price_endpoints
from server.ops.recorder import Recorder
from server.ops.reference import Reference, reference_endpoints
from server.ops.udf import Datafeed, datafeed_endpoints
from server.ops.web import Web, asset_routes, page_route
from server.process.listeners import Listeners
from server.store.store import Store
from server.workers.worker import SupervisorLink


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The parts of the server that its operators see."""

    hub: Hub
    store: Store
    member: Member | None
    gateway: Gateway
    authenticator: Authenticator
    prices: Prices
    push: Push | SharedPrices | None
    desk: Desk | None


@dataclass(frozen=True, kw_only=True)
class Operations:
    """Made by `build_operations`. The caller runs `http` and `watch`."""

    http: HttpPorts
    lag: LoopLag
    health: HealthMonitor
    readiness: Readiness
    own_metrics: Callable[[], str]
    recorder: Recorder
    machine: Machine

    async def watch(self) -> None:
        """Measure the loop's lag, check the health and record the last hour until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.lag.run)
            nursery.start_soon(self.health.run)
            nursery.start_soon(self.recorder.run)


def build_operations(
    parts: Parts,
    settings: Settings,
    listeners: Listeners,
    max_connections: int,
    supervisor: SupervisorLink | None,
) -> Operations:
    """Build the HTTP ports. With a `supervisor`, `/metrics` shows all workers of the machine.

    `max_connections` are those of the public HTTP port.
    """
    hub, store, member, gateway = parts.hub, parts.store, parts.member, parts.gateway
    lag = LoopLag()
    health = _health(parts, lag, settings.ws_health_check_interval)
    service = ServiceCollector(lag, parts.prices.bad_rows, health)
    registry = build_registry(service, hub, gateway, store, member)
    own_metrics = partial(render, registry)
    readiness = Readiness(gateway, hub, store, member)
    recorder = Recorder(registry, partial(lag.take_worst, "recorder"))
    machine = Machine(
        Clients(hub, gateway.pool, supervisor.number if supervisor else None),
        recorder,
        health,
        partial(ask_workers, supervisor) if supervisor else None,
    )
    gate = Gate(
        authenticator=parts.authenticator,
        budgets=gateway.budgets,
        proxies=gateway.proxies,
        names=Names([*settings.ops_allowed_hosts, settings.ops_host]),
    )
    probes = probe_routes(readiness.ask)
    operators = operator_routes(
        partial(metrics_page, own_metrics, supervisor),
        health,
        gate.has_known_name if listeners.ops else gate.is_admin,
    )
    api = _api(parts, machine)
    routes = _routes(api, parts, gate, listeners, probes, operators)
    here = api.users if listeners.ops else [*api.users, *api.admins]
    sharing = api_sharing(settings.http_allowed_origins, here)
    http = build_ports(listeners, max_connections, lag, routes, gate, sharing)
    registry.register(HttpCollector(http.edges))
    if parts.push:
        registry.register(IntakeCollector(parts.push.intake))
        registry.register(VenueCollector(parts.push.venues))
    return Operations(
        http=http,
        lag=lag,
        health=health,
        readiness=readiness,
        own_metrics=own_metrics,
        recorder=recorder,
        machine=machine,
    )


def _health(parts: Parts, lag: LoopLag, interval: float) -> HealthMonitor:
    checks = service_checks(parts.hub, parts.gateway, lag)
    checks |= store_checks(parts.store) | cluster_checks(parts.member)
    if parts.push:
        checks["publishing"] = partial(check_publishing, parts.push.intake)
        checks |= {
            f"venue_{each.venue.name}": partial(check_venue, each) for each in parts.push.venues
        }
    intake = parts.push.intake if parts.push else None
    return HealthMonitor(checks, interval, intake, parts.prices.session)


class _Api(NamedTuple):
    """The routes that need a token: those of users and publishers, and those of administrators."""

    users: list[Endpoint]
    admins: list[Endpoint]


def _api(parts: Parts, machine: Machine) -> _Api:
    hub, store, desk = parts.hub, parts.store, parts.desk
    session = parts.prices.session
    hours = session if session.hours else None
    api = Api(hub, store)
    of_names = endpoints(api)
    search = next(each for each in of_names if each.handle == api.instruments)
    takes_prices = desk is not None
    return _Api(
        users=[
            *of_names,
            *history_endpoints(History(store, hub, session.zone or ZoneInfo("UTC"), hours)),
            *datafeed_endpoints(Datafeed(store, session)),
            *price_endpoints(desk),
        ],
        admins=[
            *operator_endpoints(Operators(machine, takes_prices=takes_prices)),
            *reference_endpoints(Reference(api, store, desk), search, prices=takes_prices),
        ],
    )


def _routes(
    api: _Api,
    parts: Parts,
    gate: Gate,
    listeners: Listeners,
    probes: Sequence[Route],
    operators: Sequence[Route],
) -> Routes:
    """Return all routes by the port that they belong to."""
    own_port = bool(listeners.ops)
    ports = {name: int(port) for name, port in listeners.ports.items()}
    authenticator = parts.authenticator
    token = authenticator.development_token if authenticator.is_development else None
    feeds = parts.prices.feeds
    web = Web(ports["HTTP_PORT"], ports["WS_PORT"], token, feeds, has_operators=not own_port)
    pages = [each for each in PAGES if not (own_port and each.operators)]
    admins = [route for each in api.admins for route in each.routes(gate, open_to_all=own_port)]
    users = [route for each in api.users for route in each.routes(gate)]
    if not parts.desk:
        users.append(no_prices_route())
    shared = [
        *asset_routes(web),
        description_route([*api.users, *api.admins], PAGES),
        asyncapi_route(ports["WS_PORT"]),
    ]
    here: list[Described] = [*pages, *api.users]
    if not own_port:
        here += api.admins
    index = index_route(here, partial(web.page, "index.html"))
    for_operators = [*operators, page_route("/ops", "ops.html", web), docs_route()]
    if own_port:
        for_operators += [index_route(PAGES), *shared, *admins]
    else:
        users += admins
    return Routes(probes=probes, users=users, public=[index, *shared], operators=for_operators)
