"""The streaming port's description (AsyncAPI 3.0), made from the messages' msgspec types.

The described application is the server: it sends quotes and receives commands.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from inspect import cleandoc
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import __version__
from server.gateway.closing import Close
from server.gateway.publisher import PricesAck
from server.gateway.refusals import Refused
from server.gateway.views import BEARER, JSON_ONLY, SUBPROTOCOLS
from server.history.messages import BarMessage, BarsEnd, BarsMissed
from server.intake.objects import Published
from server.ops.endpoint import answer
from server.quotes import compact, messages
from server.quotes.patch import Add, Remove, Replace
from server.quotes.quote import Quote
from server.quotes.view import FIELDS, FORMS

ABOUT = (
    "Live quotes and published prices over WebSockets. The form `json` sends objects with JSON Patch "
    "(RFC 6902); `compact` sends quotes as arrays, and `msgpack` the same arrays in MessagePack. "
    "Commands are objects in each form."
)

_REF = "#/components/schemas/{name}"

JSON_TYPE, MSGPACK_TYPE = "application/json", "application/msgpack"


def _with(kind: type[msgspec.Struct], **types: Any) -> type[msgspec.Struct]:
    """Return the struct `kind` with other types of some fields."""
    config = kind.__struct_config__
    fields: list[Any] = [
        (each.encode_name, types.get(each.name, each.type))
        + (() if each.required else (each.default,))
        for each in msgspec.structs.fields(kind)
    ]
    made = msgspec.defstruct(
        kind.__name__, fields, tag_field=config.tag_field, tag=config.tag, kw_only=True
    )
    made.__doc__ = kind.__doc__
    return made


SelectedQuote = msgspec.defstruct(
    "SelectedQuote",
    [(each.name, each.type | UnsetType, UNSET) for each in msgspec.structs.fields(Quote)],
    namespace={"__doc__": "The fields of a quote that `fields` selects."},
)

# msgspec describes neither a union of a struct and a mapping nor one of two texts. So the schema of
# `Add` is completed below.
_OPERATIONS: Any = _with(Add, value=Quote) | _with(Replace, value=float | int | str | None) | Remove

_PATCH = _with(messages.QuotesPatch, operations=list[_OPERATIONS])


class Described(NamedTuple):
    """One message: its name, its type, and what it is about."""

    name: str
    kind: type[msgspec.Struct]

    @property
    def text(self) -> str:
        """Return the type's docstring."""
        return cleandoc(self.kind.__doc__ or self.name)


def _named(kinds: Iterable[Any]) -> list[Described]:
    """Name each message of the server by its `type`."""
    return [Described(str(kind.__struct_config__.tag), kind) for kind in kinds]


CONTROLS = _named(
    [
        *(each for each in get_args(messages.Message) if hasattr(each, "__struct_config__")),
        BarMessage,
        BarsEnd,
        BarsMissed,
    ]
)
"""Messages that are objects in each form."""

PATCHES = [Described("quotes_patch", _PATCH)]
"""Messages about quotes in the form `json`."""

ARRAYS = [
    Described("schema", compact.Schema),
    Described("full_quotes", compact.FullQuotes),
    Described("quote_changes", compact.QuoteChanges),
    Described("quotes_removed", compact.QuotesRemoved),
    Described("quotes_renamed", compact.QuotesRenamed),
]
"""Messages about quotes in the forms `compact` and `msgpack`."""

COMMANDS = [
    Described(str(kind.__struct_config__.tag) + ("_bars" if hasattr(kind, "bars") else ""), kind)
    for kind in get_args(messages.AnyCommand)
]

PUBLISHED = [Described("prices", Published)]
"""Objects of publishers. A frame has one, several lines of them, or an array."""

TO_PUBLISHERS = [
    Described("prices_ack", PricesAck),
    *(each for each in CONTROLS if each.name in ("error", "reconnect")),
]


class Parameter(NamedTuple):
    """One query parameter of a handshake."""

    name: str
    text: str
    allowed: Sequence[str] = ()


SHARED = (
    Parameter("token", "A JSON Web Token, unless the request shows one in another way"),
    Parameter(
        "refuse", "`close`: a refusal is a close frame, which a browser can read", ("close",)
    ),
)

QUOTES_PARAMETERS = (
    *SHARED,
    Parameter("symbols", "Symbols with commas; `*` for all; absent: none"),
    Parameter("format", "Form of the messages; `json` by default", FORMS),
    Parameter(
        "fields", f"Fields of the quotes, with commas, from {', '.join(FIELDS)}; absent: all"
    ),
    Parameter("interval", "Least time between two updates of a symbol, such as `500ms`"),
    Parameter("resume", "`EPOCH:AAPL=1042,…`: the versions that the client already has"),
)

PRICES_PARAMETERS = (
    *SHARED,
    Parameter("source", "The source that `seq` belongs to; by default the token's user"),
    Parameter("source_epoch", "The epoch of the source's numbers"),
)


class Channel(NamedTuple):
    """One path of the streaming port. Each message has its name, and those of its forms."""

    address: str
    text: str
    parameters: Sequence[Parameter]
    subprotocols: Iterable[str]
    sent: Sequence[tuple[Described, Sequence[str]]]
    received: Sequence[tuple[Described, Sequence[str]]]


CHANNELS = {
    "quotes": Channel(
        "/ws/quotes",
        "Quotes and bars for clients, and the commands of clients.",
        QUOTES_PARAMETERS,
        SUBPROTOCOLS,
        [
            *((each, ("json",)) for each in PATCHES),
            *((each, ("compact", "msgpack")) for each in ARRAYS),
            *((each, FORMS) for each in CONTROLS),
        ],
        [(each, FORMS) for each in COMMANDS],
    ),
    "prices": Channel(
        "/ws/prices",
        "Prices from publishers, whose token has the role `publisher`; only with `FEED=push`.",
        PRICES_PARAMETERS,
        JSON_ONLY,
        [(each, ("json",)) for each in TO_PUBLISHERS],
        [(each, ("json",)) for each in PUBLISHED],
    ),
}


ECHOED = {"code": 1000, "reason": "the client's own close: the server sends its code back"}


def asyncapi_route(stream_port: int) -> Route:
    """Return the route `/asyncapi.json`. `stream_port` is the server's streaming port."""

    # Made when somebody first asks: few servers are asked.
    @cache
    def document() -> bytes:
        return msgspec.json.encode(asyncapi(stream_port))

    async def asyncapi_json(request: Request) -> Response:
        return answer(request, document(), JSON_TYPE, cacheable=True)

    return Route("/asyncapi.json", asyncapi_json)


def asyncapi(stream_port: int) -> dict[str, Any]:
    """Return the AsyncAPI document of the streaming port."""
    return {
        "asyncapi": "3.0.0",
        "info": {"title": "quotestream", "version": __version__, "description": ABOUT},
        "defaultContentType": JSON_TYPE,
        "servers": {
            "streaming": {
                "host": "{host}:{port}",
                "protocol": "ws",
                "description": "The streaming port. Behind a proxy with TLS, the protocol is wss.",
                "variables": {
                    "host": {"default": "localhost", "description": "Host of the server"},
                    "port": {"default": str(stream_port), "description": "`WS_PORT`"},
                },
                "security": [{"$ref": f"#/components/securitySchemes/{name}"} for name in SECURITY],
            }
        },
        "channels": {name: _channel(each) for name, each in CHANNELS.items()},
        "operations": {
            operation: described
            for name, each in CHANNELS.items()
            for operation, described in _operations(name, each)
        },
        "components": {
            "schemas": _schemas(),
            "messages": dict(_messages()),
            "securitySchemes": SECURITY,
        },
    }


SECURITY = {
    "header": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "query": {"type": "httpApiKey", "in": "query", "name": "token"},
    "subprotocol": {
        "type": "httpApiKey",
        "in": "header",
        "name": "Sec-WebSocket-Protocol",
        "description": f"A token as the subprotocol `{BEARER}TOKEN`, beside that of a form",
    },
}
"""Ways to show a token. The server takes the header first, then the subprotocol, then the query."""


def _channel(channel: Channel) -> dict[str, Any]:
    query = {
        each.name: {
            "type": "string",
            "description": each.text,
            **({"enum": [*each.allowed]} if each.allowed else {}),
        }
        for each in channel.parameters
    }
    names = [name for name, *_ in _entries([*channel.sent, *channel.received])]
    return {
        "address": channel.address,
        "description": channel.text,
        "servers": [{"$ref": "#/servers/streaming"}],
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {
            "ws": {
                "method": "GET",
                "query": {"type": "object", "properties": query},
                "bindingVersion": "0.1.0",
            }
        },
        "x-subprotocols": [*channel.subprotocols],
        "x-close-codes": [
            ECHOED,
            *({"code": each.value.code, "reason": each.value.reason} for each in Close),
        ],
        "x-refusals": [_refusal(each) for each in Refused if each in _OF_HANDSHAKES],
    }


_OF_HANDSHAKES = [
    each
    for each in Refused
    if each.value.close
    or each in (Refused.HEADERS_TOO_LARGE, Refused.NOT_FOUND, Refused.UPGRADE_REQUIRED)
]
"""The refusals of the streaming port. Those with a close code can be close frames (`refuse=close`)."""


def _refusal(refused: Refused) -> dict[str, Any]:
    status, code, _, close = refused.value
    return {"status": status, "code": code, **({"close": close} if close else {})}


def _operations(name: str, channel: Channel) -> Iterable[tuple[str, dict[str, Any]]]:
    ways = ("send", channel.sent), ("receive", channel.received)
    for action, parts in ways:
        listed = [{"$ref": f"#/channels/{name}/messages/{each}"} for each, *_ in _entries(parts)]
        yield (
            f"{action}_{name}",
            {
                "action": action,
                "channel": {"$ref": f"#/channels/{name}"},
                "summary": f"What the server {action}s at {channel.address}",
                "messages": listed,
            },
        )


def _entries(
    parts: Iterable[tuple[Described, Sequence[str]]],
) -> Iterable[tuple[str, Described, Sequence[str]]]:
    """Return each message's name in the document. One in MessagePack has a name of its own."""
    for described, forms in parts:
        if set(forms) != {"msgpack"}:
            yield described.name, described, forms
        if "msgpack" in forms:
            yield f"{described.name}_msgpack", described, ("msgpack",)


def _messages() -> Iterable[tuple[str, dict[str, Any]]]:
    for channel in CHANNELS.values():
        for name, described, forms in _entries([*channel.sent, *channel.received]):
            is_packed = tuple(forms) == ("msgpack",)
            yield (
                name,
                {
                    "name": described.name,
                    "summary": described.text.partition("\n")[0],
                    "description": described.text,
                    "contentType": MSGPACK_TYPE if is_packed else JSON_TYPE,
                    "payload": _payload(described),
                    "x-forms": [form for form in forms if is_packed or form != "msgpack"],
                },
            )


def _payload(described: Described) -> dict[str, Any]:
    one = {"$ref": _REF.format(name=described.kind.__name__)}
    if described.kind is not Published:
        return one
    return {"anyOf": [one, {"type": "array", "items": one}]}


def _schemas() -> dict[str, Any]:
    """Return the schemas of all messages, and of what they are made of."""
    kinds = [each.kind for part in CHANNELS.values() for each, _ in [*part.sent, *part.received]]
    _, schemas = msgspec.json.schema_components([*kinds, Quote, SelectedQuote], ref_template=_REF)
    whole, selected = (_REF.format(name=kind.__name__) for kind in (Quote, SelectedQuote))
    schemas["Add"]["properties"]["value"] = {"anyOf": [{"$ref": whole}, {"$ref": selected}]}
    for name in ("SubscribeBars", "UnsubscribeBars"):
        # The field is there to refuse commands that have it.
        del schemas[name]["properties"]["symbols"]
    _tidy(schemas)
    return schemas


def _tidy(part: Any) -> None:
    """Take out OpenAPI's discriminators and the indentation of docstrings.

    AsyncAPI's discriminators have another form, and each tag is an `enum` anyway.
    """
    if isinstance(part, dict):
        part.pop("discriminator", None)
        if isinstance(text := part.get("description"), str):
            part["description"] = cleandoc(text)
    for each in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
        _tidy(each)
