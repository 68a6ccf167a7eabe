"""A picows server (Cython, asyncio on uvloop if installed): a loop over all transports."""

import asyncio

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

from bench.peers.options import say_address, settings


def send(client: WSTransport, message: str | bytes) -> None:
    """Send text or bytes."""
    if isinstance(message, str):
        client.send(WSMsgType.TEXT, message.encode())
    else:
        client.send(WSMsgType.BINARY, message)


async def main() -> None:
    """Serve until killed."""
    rate, burst, update = settings()
    clients: set[WSTransport] = set()
    version = 1

    class Client(WSListener):
        """One connection."""

        def on_ws_connected(self, transport: WSTransport) -> None:
            """Send the first messages."""
            for number in range(burst):
                send(transport, update(f"S{number:03}", version))
            clients.add(transport)

        def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
            """Answer the client's close."""
            if frame.msg_type is WSMsgType.CLOSE:
                transport.send_close()
                transport.disconnect()

        def on_ws_disconnected(self, transport: WSTransport) -> None:
            """Forget the connection."""
            clients.discard(transport)

    def listen(_: WSUpgradeRequest) -> Client:
        return Client()

    server = await ws_create_server(listen, "127.0.0.1", 0, enable_auto_ping=False)
    say_address(server.sockets[0])
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        due = max(due + 1 / rate, loop.time())
        await asyncio.sleep(due - loop.time())
        version += 1
        for number in range(burst):
            message = update(f"S{number:03}", version)
            for client in clients:
                send(client, message)


if __name__ == "__main__":
    asyncio.run(main())
