"""The routes beside the API, as they are described to people, and the page `/` that leads to all."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Annotated, Any, NamedTuple, Protocol

import msgspec
from msgspec import UNSET, Meta, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import __version__
from server.ops.endpoint import Parameter

ABOUT = (
    "Names, prices, live quotes. Streaming is at /ws/quotes of another port; /asyncapi.json describes "
    "it. Its parameter format chooses JSON Patch, compact arrays or MessagePack; fields names the "
    "fields to send. With these, messages are small. The simulator moves prices around base prices. "
    "Those of the shipped list are of March 2017, or invented."
)

_HTML = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>quotestream</title>
<h1>quotestream</h1><p>{about} Version {version}.</p><ul>{items}</ul>
"""


class Link(msgspec.Struct, frozen=True):
    """One route."""

    path: Annotated[str, Meta(description="Path of the route; braces stand for a parameter")]
    summary: Annotated[str, Meta(description="What the route answers")]


class Index(msgspec.Struct, frozen=True):
    """The routes of this port."""

    name: Annotated[str, Meta(description="Name of the service: quotestream")]
    version: Annotated[str, Meta(description="Version of the server")]
    description: Annotated[str, Meta(description="What the service is for")]
    routes: Annotated[Sequence[Link], Meta(description="All routes of this port")]


class Version(msgspec.Struct, frozen=True):
    """The answer of `/version`."""

    name: Annotated[str, Meta(description="Name of the service: quotestream")]
    version: Annotated[str, Meta(description="Version of the server")]


class Liveness(msgspec.Struct, frozen=True):
    """The answer of `/healthz`."""

    status: Annotated[str, Meta(description="Always `ok`")]


class Readiness(msgspec.Struct, frozen=True):
    """The answer of `/readyz`."""

    status: Annotated[str, Meta(description="`ready` or `unready`")]
    reasons: Annotated[Sequence[str], Meta(description="Why no client should come now")]


class ComponentHealth(msgspec.Struct, frozen=True):
    """The health of one component."""

    status: Annotated[str, Meta(description="`healthy`, `degraded`, `unhealthy` or `critical`")]
    detail: Annotated[str | UnsetType, Meta(description="The reason; only for operators")] = UNSET


class HealthCheck(msgspec.Struct, frozen=True):
    """One look at all components."""

    at: Annotated[str, Meta(description="Time of the check (RFC 3339)")]
    status: Annotated[str, Meta(description="Health of the worst component")]
    reasons: Annotated[
        Sequence[str] | UnsetType, Meta(description="Components that were not healthy, and why")
    ] = UNSET


class SourceNumbers(msgspec.Struct, frozen=True):
    """How a source of prices does."""

    lag: Annotated[
        float, Meta(description="Seconds from its last object's time to the intake of the object")
    ]
    rate: Annotated[float, Meta(description="Objects a second, over ten seconds")]
    silence: Annotated[float, Meta(description="Seconds since its last batch")]


class PublishingNumbers(msgspec.Struct, frozen=True):
    """The held trades and the sources of an instance that takes prices."""

    held: Annotated[int, Meta(description="Trades that `PRICE_BAND` holds back")]
    dropped: Annotated[int, Meta(description="Held trades that were dropped for want of room")]
    sources: Annotated[
        Mapping[str, SourceNumbers], Meta(description="Each source by its name; none on a follower")
    ]


class SessionState(msgspec.Struct, frozen=True):
    """Whether the market is open."""

    status: Annotated[str, Meta(description="`open` or `closed`")]
    next_open: Annotated[
        str | UnsetType, Meta(description="The next opening (RFC 3339), if there is one")
    ] = UNSET


class HealthReport(msgspec.Struct, frozen=True):
    """The answer of `/health`."""

    status: Annotated[str, Meta(description="Health of the worst component")]
    since: Annotated[str, Meta(description="Time since which it has been so (RFC 3339)")]
    session: Annotated[SessionState, Meta(description="The market's hours")]
    components: Annotated[
        Mapping[str, ComponentHealth], Meta(description="Health of each component by its name")
    ]
    checks: Annotated[Sequence[HealthCheck], Meta(description="The last checks, the newest last")]
    publishing: Annotated[
        PublishingNumbers | UnsetType,
        Meta(description="The prices from outside, as of now; only if publishers may send prices"),
    ] = UNSET


class Page(NamedTuple):
    """A route that needs no token. `result` is None for an answer that is not JSON.

    `others` describes its further answers by status. OPS_PORT moves the pages for `operators` to a port
    of their own. `cacheable`: an answer has an ETag. `takes_token`: a request may have a token, which
    must be good.
    """

    path: str
    summary: str
    media_type: str = "application/json"
    result: Any = None
    parameters: Sequence[Parameter] = ()
    others: Mapping[int, str] = {}
    operators: bool = False
    cacheable: bool = False
    takes_token: bool = False


PAGES = (
    Page("/", "The page of live quotes; as JSON, all routes of this port", result=Index),
    Page(
        "/ops",
        "The page for operators, who need a token",
        "text/html",
        operators=True,
        cacheable=True,
    ),
    Page("/quotes.js", "The client for browsers, an ES module", "text/javascript", cacheable=True),
    Page(
        "/docs",
        "The description as a page that tries routes out",
        "text/html",
        operators=True,
        cacheable=True,
    ),
    Page("/openapi.json", "Description of all routes (OpenAPI 3.1)", cacheable=True),
    Page(
        "/asyncapi.json",
        "Description of the streaming port and its messages (AsyncAPI 3.0)",
        cacheable=True,
    ),
    Page("/version", "Name and version of the server", result=Version),
    Page("/healthz", "Liveness: answers while the process serves", result=Liveness),
    Page(
        "/readyz",
        "Readiness: whether clients may come now",
        result=Readiness,
        others={503: "Not ready, or about to stop: `reasons` says why"},
    ),
    Page(
        "/health",
        "Health of each component, and the last checks; reasons for operators only",
        result=HealthReport,
        operators=True,
        takes_token=True,
    ),
    Page(
        "/metrics",
        "Metrics for Prometheus, of all workers",
        media_type="text/plain",
        parameters=(
            Parameter("worker", str, "Number of the only worker to show", "1", default=""),
        ),
        others={
            404: "No worker has the number",
            503: "The supervisor or the worker gives no answer",
        },
        operators=True,
    ),
)


class Described(Protocol):
    """A route with a line of text."""

    @property
    def path(self) -> str:
        """Return its path."""

    @property
    def summary(self) -> str:
        """Return what it answers."""


def index_route(
    routes: Sequence[Described], page: Callable[[Request], Response] | None = None
) -> Route:
    """Return the route `/`, which names `routes` as JSON. If the client asks for HTML, it answers with
    `page`, by default with a list of the routes.
    """
    links = [Link(each.path, each.summary) for each in routes]
    document = msgspec.json.encode(Index("quotestream", __version__, ABOUT, links))
    items = "".join(
        f"<li>{_named(route, each)}: {escape(each.summary)}"
        for route, each in zip(routes, links, strict=True)
    )
    listing = _HTML.format(about=ABOUT, version=__version__, items=items).encode()

    async def index(request: Request) -> Response:
        wants_page = "text/html" in request.headers.get("accept", "")
        if wants_page and page:
            return page(request)
        body, kind = (listing, "text/html") if wants_page else (document, "application/json")
        headers = {
            "Cache-Control": "no-cache",
            "Vary": "Accept",
            "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        }
        return Response(body, media_type=kind, headers=headers)

    return Route("/", index)


def _named(route: Described, link: Link) -> str:
    """Return the path, as a link if a browser can follow it: the API's routes take a token."""
    text = escape(link.path)
    return f'<a href="{text}">{text}</a>' if isinstance(route, Page) else text
