"""A running hub, and connections that are closed at the end of a test."""

import socket
from collections.abc import AsyncIterator, Callable

import pytest
import trio

from server.fanout.hub import Hub
from tests.fanout.peer import Peer, instruments

Connect = Callable[..., Peer]


@pytest.fixture
async def hub(nursery: trio.Nursery) -> Hub:
    """Return a running hub with three instruments."""
    hub = Hub(instruments("AAPL", "MSFT", "BRK.B"))
    await nursery.start(hub.run)
    return hub


@pytest.fixture
async def connect(hub: Hub) -> AsyncIterator[Connect]:
    """Return a function that makes a connection subscribed to the given symbols."""
    peers: list[Peer] = []

    def connect(*symbols: str, kind: socket.SocketKind = socket.SOCK_STREAM) -> Peer:
        peer = Peer(hub, kind)
        peers.append(peer)
        peer.subscribe(*symbols)
        return peer

    yield connect
    for peer in peers:
        peer.close()
