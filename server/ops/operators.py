"""The operators' routes: an overview of all workers with the last hour, and their clients."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import msgspec
from msgspec import Meta

from server import __version__
from server.ops.admission import SHOWN_NAME
from server.ops.api import NEXT_PAGE
from server.ops.audit import audited
from server.ops.clients import ClientView
from server.ops.endpoint import Call, Endpoint, Parameter, limit
from server.ops.machine import Action, Machine
from server.ops.pages import HealthReport
from server.ops.problems import HOST_UNAVAILABLE, MISDIRECTED, UNKNOWN_CLIENT, ApiError
from server.ops.recorder import INTERVAL, Series, merge, series

MAX_CLIENTS = 100
"""Clients of one page."""

MAX_SKIPPED = 1000
"""Clients on the pages before: a search finds the others."""

PROBLEMS = (MISDIRECTED, HOST_UNAVAILABLE)


class WorkerView(msgspec.Struct, frozen=True):
    """One worker, or the only server of the machine."""

    worker: Annotated[int | None, Meta(description="Number of the worker, null without workers")]
    health: Annotated[HealthReport, Meta(description="Its health, with the history")]
    metrics: Annotated[
        Mapping[str, float],
        Meta(description="Its metrics by the names of `/metrics`, without buckets of histograms"),
    ]


class Overview(msgspec.Struct, frozen=True):
    """How the workers of this machine are doing, and did in the last hour."""

    version: Annotated[str, Meta(description="Version of the server")]
    at: Annotated[str, Meta(description="Time of the answer (RFC 3339)")]
    interval: Annotated[int, Meta(description="Seconds between two points of the series")]
    last: Annotated[
        int,
        Meta(description="Number of the newest point; times `interval` it is in Unix seconds"),
    ]
    series: Annotated[
        Sequence[Series],
        Meta(description="The numbers of all workers together, at most an hour of each"),
    ]
    workers: Annotated[Sequence[WorkerView], Meta(description="All workers that answer")]
    silent: Annotated[Sequence[int], Meta(description="Workers that give no answer")]
    takes_prices: Annotated[bool, Meta(description="Whether `POST /ops/prices` exists")]


class ClientPage(msgspec.Struct, frozen=True):
    """Clients, those that are most behind first."""

    clients: Annotated[Sequence[ClientView], Meta(description="The clients of this page")]
    matching: Annotated[
        int, Meta(description="Number of clients that match the query, on all pages")
    ]
    silent: Annotated[
        Sequence[int], Meta(description="Workers that give no answer: their clients are missing")
    ]


class SentAway(msgspec.Struct, frozen=True):
    """A client that was sent away."""

    message: Annotated[str, Meta(description="What was done, for people")]
    client: Annotated[ClientView, Meta(description="The client as it was")]


class Operators:
    """The handlers of the routes."""

    def __init__(self, machine: Machine, *, takes_prices: bool) -> None:
        self._machine = machine
        self._takes_prices = takes_prices

    async def overview(self, call: Call) -> Overview:
        """Return the state of all workers."""
        states = await self._machine.states(call.values["since"])
        told = {number: each for number, each in states.items() if each}
        recording = merge([each.recording for each in told.values()])
        return Overview(
            version=__version__,
            at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            interval=INTERVAL,
            last=recording.last,
            series=series(recording),
            workers=[
                WorkerView(number, each.health, each.samples) for number, each in told.items()
            ],
            silent=_silent(states),
            takes_prices=self._takes_prices,
        )

    async def clients(self, call: Call) -> ClientPage:
        """Return clients of all workers, those that are most behind first."""
        skipped = call.values["page_token"]
        after = skipped + call.values["limit"]
        found = await self._machine.ranks(call.values["query"], after)
        ranks = [each for some in found.values() if some for each in some.ranks]
        ids = [each.id for each in sorted(ranks, reverse=True)[skipped:after]]
        matching = sum(each.matching for each in found.values() if each)
        if after < matching and after <= MAX_SKIPPED:
            call.headers[NEXT_PAGE] = str(after)
        # Only now, as a thousand views of each of many workers take megabytes.
        clients = await self._machine.views(ids) if ids else []
        return ClientPage(clients, matching, _silent(found))

    async def drain(self, call: Call) -> SentAway:
        """Tell a client to come back, which may bring it to another instance, and close."""
        client = await self._close(call, "drain")
        return SentAway("the client was told to come back, and is closed", client)

    async def disconnect(self, call: Call) -> SentAway:
        """Close a client's connection with the code 1008."""
        client = await self._close(call, "disconnect")
        return SentAway("the client's connection is closed", client)

    async def _close(self, call: Call, action: Action) -> ClientView:
        named, user = call.values["id"], call.user.user if call.user else None
        # The worker that has the client logs what is done.
        with audited(action, call, logs_done=False) as record:
            record["client"] = named[:SHOWN_NAME]
            client = await self._machine.close(named, action, user, call.address)
            if client is None:
                message = "no open connection has this id; GET /ops/clients lists the open ones"
                raise ApiError(UNKNOWN_CLIENT, message)
        return client


def _silent(answers: Mapping[int | None, object | None]) -> list[int]:
    return [number for number, each in answers.items() if number is not None and not each]


def operator_endpoints(operators: Operators) -> list[Endpoint]:
    """Return the routes for the operators' page."""
    since = Parameter(
        "since",
        Annotated[int, Meta(ge=0, le=2**53)],
        "Only points after this one: `last` of an answer before",
        0,
        default=0,
    )
    query = Parameter(
        "query",
        Annotated[str, Meta(max_length=100)],
        "A part of the user or of the address",
        "alice",
        default="",
    )
    page_token = Parameter(
        "page_token",
        Annotated[int, Meta(ge=0, le=MAX_SKIPPED)],
        f"The {NEXT_PAGE} of the page before",
        0,
        default=0,
    )
    client = Parameter("id", str, "The `id` of a client", "0-1764190000000000", "path")
    of_operators = partial(Endpoint, method="GET", role="admin", problems=PROBLEMS)
    on_client = partial(
        of_operators,
        method="POST",
        result=SentAway,
        parameters=[client],
        problems=(*PROBLEMS, UNKNOWN_CLIENT),
    )
    return [
        of_operators(
            path="/ops/overview",
            handle=operators.overview,
            result=Overview,
            summary="How all workers are doing, with the last hour",
            parameters=[since],
        ),
        of_operators(
            path="/ops/clients",
            handle=operators.clients,
            result=ClientPage,
            summary="The clients, those that are most behind first",
            parameters=[query, limit(MAX_CLIENTS, 20), page_token],
            headers={NEXT_PAGE: "The `page_token` of the next page; not on the last"},
        ),
        on_client(
            path="/ops/clients/{id}/drain",
            handle=operators.drain,
            summary="Tell a client to come back, and close its connection",
        ),
        on_client(
            path="/ops/clients/{id}/disconnect",
            handle=operators.disconnect,
            summary="Close a client's connection",
        ),
    ]
