"""The HTTP ports as the listeners have them: the public one, and the operators' own if there is one."""

from collections.abc import Sequence
from typing import NamedTuple

from starlette.routing import Route

from server.listeners import Listeners
from server.ops.admission import Gate, limit_strangers
from server.ops.http import build_http_app
from server.ops.http_edge import HttpEdge, HttpPorts
from server.ops.pace import Pace

OPS_MAX_CONNECTIONS = 16
"""Connections to the operators' port: some scrapers and people; they come out of the reserve."""


class Routes(NamedTuple):
    """The routes, by who may ask: load balancers, users with their tokens, anybody, operators."""

    probes: Sequence[Route]
    users: Sequence[Route]
    public: Sequence[Route]
    operators: Sequence[Route]


def build_ports(
    listeners: Listeners, max_connections: int, pace: Pace, routes: Routes, gate: Gate
) -> HttpPorts:
    """Return the ports, with the operators' routes on the public one if they have none of their own.

    Requests to the public port by nobody in particular are bounded by `gate`. The operators' own port
    is for them alone.
    """
    shared = [] if listeners.ops else routes.operators
    app = build_http_app([*routes.probes, *routes.users, *routes.public, *shared])
    limit_strangers(app, gate, routes.users)
    edges = [HttpEdge(app, listeners.http, max_connections, pace)]
    if listeners.ops:
        own = build_http_app([*routes.probes, *routes.operators])
        edges.append(HttpEdge(own, listeners.ops, OPS_MAX_CONNECTIONS, pace))
    return HttpPorts(edges)
