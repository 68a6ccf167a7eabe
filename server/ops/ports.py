"""Builds the HTTP ports: the public one, and the operators' own if OPS_PORT is set."""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.middleware import Middleware
from starlette.routing import Route

from server.ops.admission import Gate, LimitAnonymous
from server.ops.cors import Sharing
from server.ops.http import build_http_app
from server.ops.http_edge import HttpEdge, HttpPorts
from server.ops.lag import LoopLag
from server.ops.request_pacer import RequestPacer
from server.process.listeners import Listeners

OPS_MAX_CONNECTIONS = 16
"""Connections to the operators' port, for some scrapers and people. Their descriptors come from the
reserve.
"""


class Routes(NamedTuple):
    """The routes for load balancers, users with tokens, everybody, and operators."""

    probes: Sequence[Route]
    users: Sequence[Route]
    public: Sequence[Route]
    operators: Sequence[Route]


def build_ports(
    listeners: Listeners,
    max_connections: int,
    lag: LoopLag,
    routes: Routes,
    gate: Gate,
    sharing: Sharing,
) -> HttpPorts:
    """Return the ports. Without a port of their own, the operators' routes are on the public one.

    `gate` bounds anonymous requests to the public port, but not to the operators' own. `sharing` lets
    pages of other origins use the public port only.
    """
    shared = [] if listeners.ops else routes.operators
    limit = Middleware(LimitAnonymous, gate=gate, users=routes.users)
    app = build_http_app(
        [*routes.probes, *routes.users, *routes.public, *shared], sharing.middleware, [limit]
    )
    charge = gate.charge_failure
    edges = [HttpEdge(app, listeners.http, max_connections, RequestPacer(lag), charge, sharing)]
    if listeners.ops:
        own = build_http_app([*routes.probes, *routes.operators])
        pacer = RequestPacer(lag)
        edges.append(HttpEdge(own, listeners.ops, OPS_MAX_CONNECTIONS, pacer, charge, Sharing()))
    return HttpPorts(edges)
