"""The parts of one server that operators and other services see: HTTP ports, metrics and health."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from zoneinfo import ZoneInfo

import trio

from server.app.prices import Prices
from server.app.readiness import Readiness
from server.app.reporting import ask_workers, metrics_page
from server.cluster.member import Member
from server.cluster.shared_prices import SharedPrices
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
from server.ops.health import (
    HealthMonitor,
    check_publishing,
    check_venue,
    cluster_checks,
    service_checks,
    store_checks,
)
from server.ops.http import everybody, operator_routes, probe_routes
from server.ops.http_edge import HttpPorts
from server.ops.lag import LoopLag
from server.ops.machine import Machine
from server.ops.metrics import ServiceCollector, build_registry, render
from server.ops.metrics_http import HttpCollector
from server.ops.metrics_intake import IntakeCollector, VenueCollector
from server.ops.openapi import description_route, docs_route
from server.ops.operators import Operators, operator_endpoints
from server.ops.pages import PAGES, index_route
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
    listeners: Listeners,
    max_connections: int,
    health_interval: float,
    origins: Sequence[str],
    supervisor: SupervisorLink | None,
) -> Operations:
    """Build the HTTP ports. With a `supervisor`, `/metrics` shows all workers of the machine.

    Arguments:
        max_connections: of the public HTTP port.
        health_interval: seconds between two looks at the health.
        origins: those whose pages may use the API.
    """
    hub, store, member, gateway = parts.hub, parts.store, parts.member, parts.gateway
    lag = LoopLag()
    checks = service_checks(hub, gateway, lag) | store_checks(store) | cluster_checks(member)
    if parts.push:
        checks["publishing"] = partial(check_publishing, parts.push.intake)
        checks |= {
            f"venue_{each.venue.name}": partial(check_venue, each) for each in parts.push.venues
        }
    intake = parts.push.intake if parts.push else None
    health = HealthMonitor(checks, health_interval, intake, parts.prices.session)
    service = ServiceCollector(lag, parts.prices.bad_rows, health)
    registry = build_registry(service, hub, gateway, store, member)
    own_metrics = partial(render, registry)
    readiness = Readiness(gateway, hub, store, member)
    worker = supervisor.number if supervisor else None
    recorder = Recorder(registry, partial(lag.take_worst, "recorder"))
    machine = Machine(
        Clients(hub, gateway.pool, worker),
        recorder,
        health,
        partial(ask_workers, supervisor) if supervisor else None,
    )
    session = parts.prices.session
    hours = session if session.hours else None
    history = History(store, hub, session.zone or ZoneInfo("UTC"), hours)
    users_api = Api(hub, store)
    api = [
        *endpoints(users_api),
        *history_endpoints(history),
        *datafeed_endpoints(Datafeed(store, session)),
        *price_endpoints(parts.desk),
    ]
    search = next(each for each in api if each.handle == users_api.instruments)
    takes_prices = parts.desk is not None
    admins = [
        *operator_endpoints(Operators(machine, takes_prices=takes_prices)),
        *reference_endpoints(Reference(users_api, store, parts.desk), search, prices=takes_prices),
    ]
    gate = Gate(authenticator=parts.authenticator, budgets=gateway.budgets, proxies=gateway.proxies)
    pages = operator_routes(
        partial(metrics_page, own_metrics, supervisor),
        health,
        everybody if listeners.ops else gate.is_admin,
    )
    own_port = bool(listeners.ops)
    here = [each for each in PAGES if not (own_port and each.operators)]
    here_api = api if own_port else [*api, *admins]
    ports = listeners.ports
    described = (
        description_route([*api, *admins], PAGES),
        asyncapi_route(int(ports["WS_PORT"])),
    )
    admin_routes = [route for each in admins for route in each.routes(gate, open_to_all=own_port)]
    authenticator = parts.authenticator
    development_token = authenticator.development_token if authenticator.is_development else None
    web = Web(int(ports["HTTP_PORT"]), int(ports["WS_PORT"]), development_token, parts.prices.feeds)
    routes = Routes(
        probes=probe_routes(readiness.ask),
        users=[route for each in api for route in each.routes(gate)]
        + ([] if parts.desk else [no_prices_route()])
        + ([] if own_port else admin_routes),
        public=[
            index_route([*here, *here_api], partial(web.page, "index.html")),
            *asset_routes(web),
            *described,
        ],
        operators=[
            *pages,
            page_route("/ops", "ops.html", web),
            docs_route(),
            *(
                [index_route(PAGES), *asset_routes(web), *described, *admin_routes]
                if own_port
                else []
            ),
        ],
    )
    sharing = api_sharing(origins, here_api)
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
