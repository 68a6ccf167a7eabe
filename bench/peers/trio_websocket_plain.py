"""A usual trio-websocket server: each connection's task sends the messages of its own channel."""

import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from bench.peers.options import settings

CHANNEL_MESSAGES = 64
"""Messages that wait for one connection. More are dropped, as no server may grow without bound."""


async def main() -> None:
    """Serve until killed."""
    rate, burst, update = settings()
    channels: set[trio.MemorySendChannel[str | bytes]] = set()
    version = 1

    async def handle(request: WebSocketRequest) -> None:
        client = await request.accept()
        send, receive = trio.open_memory_channel[str | bytes](CHANNEL_MESSAGES)
        try:
            for number in range(burst):
                await client.send_message(update(f"S{number:03}", version))
            channels.add(send)
            async for message in receive:
                await client.send_message(message)
        except ConnectionClosed:
            pass
        finally:
            channels.discard(send)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve_websocket, handle, "127.0.0.1", 0, None)
        print("quotes", f"ws://127.0.0.1:{server.port}/ws/quotes", flush=True)
        due = trio.current_time()
        while True:
            due = max(due + 1 / rate, trio.current_time())
            await trio.sleep_until(due)
            version += 1
            for number in range(burst):
                message = update(f"S{number:03}", version)
                for channel in channels:
                    try:
                        channel.send_nowait(message)
                    except (trio.WouldBlock, trio.BrokenResourceError):
                        continue


if __name__ == "__main__":
    trio.run(main)
