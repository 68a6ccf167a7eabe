"""A server with two built-in faults: requests for BOOM raise exceptions that hold secrets."""

import os
from typing import Any

from server.gateway.handshake import HandshakePolicy
from server.gateway.request import Request
from server.ops.api import Api
from server.ops.endpoint import Call

FAULT = "BOOM"


def _faulty(proper: Any) -> Any:
    async def select(self: HandshakePolicy, request: Request, user: str) -> Any:
        if FAULT in request.query.get("symbols", []):
            token = request.query["token"][0]
            raise LookupError(f"{token} of {request.query} {request.headers}")
        return await proper(self, request, user)

    return select


def _faulty_search(proper: Any) -> Any:
    async def search(self: Api, call: Call) -> Any:
        if call.values["query"] == FAULT:
            secrets = {name: os.environ.get(name) for name in ("JWT_SECRET", "DATABASE_URL")}
            raise LookupError(f"{secrets}: {os.environ.get('REDIS_URL')}", secrets)
        return await proper(self, call)

    return search


def main() -> None:
    """Run the command with these faults."""
    from server.__main__ import main as run

    HandshakePolicy._select = _faulty(HandshakePolicy._select)  # type: ignore[method-assign]  # the fault
    Api.instruments = _faulty_search(Api.instruments)  # type: ignore[method-assign]  # the fault
    run()


if __name__ == "__main__":
    main()
