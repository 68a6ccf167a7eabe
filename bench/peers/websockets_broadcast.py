"""A server with the library `websockets` (asyncio) and its `broadcast()` to all connections."""

import asyncio

from websockets.asyncio.server import ServerConnection, broadcast, serve

from bench.peers.options import say_address, settings


async def main() -> None:
    """Serve until killed."""
    rate, burst, update = settings()
    clients: set[ServerConnection] = set()
    version = 1

    async def handle(client: ServerConnection) -> None:
        for number in range(burst):
            await client.send(update(f"S{number:03}", version))
        clients.add(client)
        try:
            await client.wait_closed()
        finally:
            clients.discard(client)

    async with serve(handle, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        say_address(next(iter(server.sockets)))
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + 1 / rate, loop.time())
            await asyncio.sleep(due - loop.time())
            version += 1
            for number in range(burst):
                broadcast(clients, update(f"S{number:03}", version))


if __name__ == "__main__":
    asyncio.run(main())
