"""The API's description (OpenAPI 3.1), made from the routes and their msgspec types, and its page."""

import re
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server import __version__
from server.gateway.refusals import RETRIED
from server.ops.admission import PROBES
from server.ops.endpoint import Endpoint, Parameter, answer
from server.ops.pages import ABOUT, Page
from server.ops.problems import (
    BAD_REQUEST,
    HEADERS_TOO_LARGE,
    RATE_LIMITED,
    REQUEST_TIMEOUT,
    TOO_LARGE,
    UNAUTHORIZED,
    Problem,
)

OF_THE_PORT = (REQUEST_TIMEOUT, TOO_LARGE, HEADERS_TOO_LARGE)
"""Errors of every route: the port refuses these requests before a route sees them."""

GZIP = "As it is, or compressed with `Content-Encoding: gzip`"

_REF = "#/components/schemas/{name}"

_INLINE = re.compile(rb"<(style|script)>(.*?)</\1>", re.DOTALL)


class ErrorDetail(msgspec.Struct, frozen=True):
    """An error."""

    code: Annotated[str, Meta(description="Name of the error, for programs")]
    message: Annotated[str, Meta(description="What is wrong, for people")]


class ErrorBody(msgspec.Struct, frozen=True):
    """The body of every error."""

    error: Annotated[ErrorDetail, Meta(description="The error")]


def description_route(endpoints: Sequence[Endpoint], pages: Sequence[Page]) -> Route:
    """Return the route `/openapi.json`."""

    # Made when somebody first asks: few servers are asked.
    @cache
    def document() -> bytes:
        return msgspec.json.encode(openapi(endpoints, pages))

    async def openapi_json(request: Request) -> Response:
        return answer(request, document(), "application/json", cacheable=True)

    return Route("/openapi.json", openapi_json)


def docs_route() -> Route:
    """Return the route `/docs`, a page with the description that loads nothing from other sites."""
    page = Path(__file__).with_name("docs.html").read_bytes()
    protection = {
        "Content-Security-Policy": content_policy(page),
        "Referrer-Policy": "no-referrer",
    }

    async def docs(request: Request) -> Response:
        return answer(request, page, "text/html", cacheable=True, headers=protection)

    return Route("/docs", docs)


def content_policy(page: bytes) -> str:
    """Return a Content-Security-Policy (CSP Level 3) for `page`.

    The page runs only its own inline script and style, connects only to this server, and cannot be
    shown in a frame.
    """
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, text in _INLINE.findall(page):
        digest = b64encode(sha256(text).digest()).decode()
        hashes[kind.decode()].append(f"'sha256-{digest}'")
    return (
        f"default-src 'none'; script-src {' '.join(hashes['script'])}; "
        f"style-src {' '.join(hashes['style'])}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


FORMATS = {"integer": "int64", "number": "double"}
"""Formats of the OpenAPI registry. Without one, generators take an integer for 32 bits."""


def openapi(endpoints: Sequence[Endpoint], pages: Sequence[Page]) -> dict[str, Any]:
    """Return the OpenAPI document of the routes."""
    document = _document(endpoints, pages)
    _add_formats(document)
    return document


def _add_formats(part: Any) -> None:
    """Give each number of a document, however deep, its format. Give a field that may be null the
    format of its values: a generator looks there.
    """
    if isinstance(part, dict):
        kind = part.get("type")
        # A field may be called `type`, too.
        if isinstance(kind, str) and kind in FORMATS:
            part.setdefault("format", FORMATS[kind])
        for each in part.values():
            _add_formats(each)
        for each in part.get("anyOf", ()):
            if "format" in each:
                part["format"] = each["format"]
    elif isinstance(part, list):
        for each in part:
            _add_formats(each)


def _document(endpoints: Sequence[Endpoint], pages: Sequence[Page]) -> dict[str, Any]:
    results = [each.result for each in endpoints] + [each.result for each in pages]
    bodies = [each.takes for each in endpoints if each.takes]
    others = [kind for each in endpoints for kind in each.others]
    types = [*results, *others, ErrorBody, *bodies]
    shapes, components = msgspec.json.schema_components(types, ref_template=_REF)
    further = iter(shapes[len(results) :])
    paths: dict[str, dict[str, Any]] = {}
    for endpoint, only in zip(endpoints, shapes, strict=False):
        also = [*islice(further, len(endpoint.others))]
        shape = {"anyOf": [only, *also]} if also else only
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, shape)
    for page, shape in zip(pages, shapes[len(endpoints) :], strict=False):
        paths[page.path] = {"get": _page(page, shape)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "quotestream",
            "version": __version__,
            "description": ABOUT,
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
                "url": {
                    "type": "apiKey",
                    "in": "query",
                    "name": "token",
                    "description": "A token in the URL, or in its path: `/udf/TOKEN/config`",
                },
            },
        },
    }


def _operation(endpoint: Endpoint, shape: dict[str, Any]) -> dict[str, Any]:
    responses: dict[str, Any] = {"200": _response("The answer", shape)}
    if endpoint.headers:
        responses["200"]["headers"] = _headers(**endpoint.headers)
    if endpoint.cacheable:
        _add_tag(responses)
    _add_problems(responses, endpoint.every_problem)
    schemes = ["token", "url"] if endpoint.token_in_url else ["token"] if endpoint.role else []
    return {
        "operationId": endpoint.handle.__name__,
        "summary": endpoint.summary,
        **({"requestBody": _request_body(endpoint.takes)} if endpoint.takes else {}),
        **({"requestBody": _file(endpoint.takes_file)} if endpoint.takes_file else {}),
        "parameters": [_parameter(each) for each in endpoint.parameters],
        "responses": responses,
        **({"security": [{each: []} for each in schemes]} if schemes else {}),
    }


def _add_tag(responses: dict[str, Any]) -> None:
    """Describe the ETag of an answer, and the answer to a client that has it already."""
    responses["304"] = {"description": "As the ETag in If-None-Match says"}
    for each in responses.values():
        each["headers"] = each.get("headers", {}) | _headers(ETag="The version of the answer")


def _add_problems(responses: dict[str, Any], problems: Sequence[Problem]) -> None:
    """Describe the answers to errors. Those of one status have one description."""
    error = {"$ref": _REF.format(name="ErrorBody")}
    for problem in (*problems, *OF_THE_PORT):
        found = responses.setdefault(str(problem.status), _response("", error))
        text = f"`{problem.code}`: {problem.text}"
        if text not in found["description"]:
            found["description"] = "; ".join(filter(None, [found["description"], text]))
        if problem.status in RETRIED:
            found["headers"] = _headers(**{"Retry-After": "Seconds to wait"})
        elif problem is UNAUTHORIZED:
            found["headers"] = _headers(**{"WWW-Authenticate": "Always `Bearer`"})


def _headers(**texts: str) -> dict[str, Any]:
    return {
        name: {"description": text, "schema": {"type": "string"}} for name, text in texts.items()
    }


def _page(page: Page, shape: dict[str, Any]) -> dict[str, Any]:
    error = {"$ref": _REF.format(name="ErrorBody")}
    found = _response("The answer", shape) if page.result else _without_schema(page.media_type)
    if page.path == "/":
        found["content"]["text/html"] = {}
    responses = {"200": found}
    if page.cacheable:
        _add_tag(responses)
    for status, text in page.others.items():
        responses[str(status)] = _response(text, shape if page.result else error)
    problems = [BAD_REQUEST]
    if page.path not in PROBES:
        problems.append(RATE_LIMITED)
    if page.takes_token:
        problems.append(UNAUTHORIZED)
    _add_problems(responses, problems)
    return {
        "operationId": page.path.strip("/").replace(".", "_") or "index",
        "summary": page.summary,
        "parameters": [_parameter(each) for each in page.parameters],
        "responses": responses,
        **({"security": [{}, {"token": []}]} if page.takes_token else {}),
    }


def _request_body(item: Any) -> dict[str, Any]:
    """Describe a body: an array of objects, or one object a line."""
    (shape,), _ = msgspec.json.schema_components([item], ref_template=_REF)
    return {
        "required": True,
        "description": GZIP,
        "content": {
            "application/json": {"schema": {"type": "array", "items": shape}},
            "application/x-ndjson": {"schema": shape},
        },
    }


def _file(media_type: str) -> dict[str, Any]:
    content = {media_type: {"schema": {"type": "string"}}}
    return {"required": True, "description": GZIP, "content": content}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    schema = msgspec.json.schema(parameter.type)
    if parameter.default:
        schema["default"] = parameter.default
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.default is None,
        "description": parameter.text,
        "schema": schema,
        "example": parameter.example,
    }


def _without_schema(media_type: str) -> dict[str, Any]:
    return {"description": "The answer", "content": {media_type: {}}}


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}
