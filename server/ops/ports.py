"""The HTTP ports as the listeners have them: the public one, and the operators' own if there is one."""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.middleware import Middleware
from starlette.routing import Route

from server.ops.admission import Gate, LimitStrangers
from server.ops.http import build_http_app
from server.ops.http_edge import HttpEdge, HttpPorts
from server.ops.lag import LoopLag
from server.ops.pace import Pace
from server.process.listeners import Listeners

OPS_MAX_CONNECTIONS = 16
"""Connections to the operators' port: some scrapers and people; they come out of the reserve."""


class Routes(NamedTuple):
    """The routes, by who may ask: load balancers, users with their tokens, anybody, operators."""

    probes: Sequence[Route]
    users: Sequence[Route]
    public: Sequence[Route]
    operators: Sequence[Route]


def build_ports(
    listeners: Listeners, max_connections: int, lag: LoopLag, routes: Routes, gate: Gate
) -> HttpPorts:
    """Return the ports, with the operators' routes on the public one if they have none of their own.

    `gate` bounds anonymous requests to the public port. The operators' own port is for them alone.
    """
    shared = [] if listeners.ops else routes.operators
    limit = Middleware(LimitStrangers, gate=gate, users=routes.users)
    app = build_http_app([*routes.probes, *routes.users, *routes.public, *shared], limit)
    charge = gate.charge_failure
    edges = [HttpEdge(app, listeners.http, max_connections, Pace(lag), charge)]
    if listeners.ops:
        own = build_http_app([*routes.probes, *routes.operators])
        edges.append(HttpEdge(own, listeners.ops, OPS_MAX_CONNECTIONS, Pace(lag), charge))
    return HttpPorts(edges)
