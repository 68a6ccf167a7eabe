"""uWebSockets (C++), by its bindings for Python: it publishes to a topic, as its documentation advises.

It joins what a connection gets in one pass of its loop into one write, as our server does.
"""

import asyncio
from typing import Any

from socketify import App, OpCode

from bench.peers.options import settings
from bench.services import free_port

TOPIC = "quotes"


def main() -> None:
    """Serve until killed."""
    rate, burst, update = settings()
    app = App()
    version = 1

    def messages() -> list[str | bytes]:
        return [update(f"S{number:03}", version) for number in range(burst)]

    def on_open(client: Any) -> None:
        for message in messages():
            client.send(message, _opcode(message))
        client.subscribe(TOPIC)

    async def publish() -> None:
        nonlocal version
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            due = max(due + 1 / rate, loop.time())
            await asyncio.sleep(due - loop.time())
            version += 1
            for message in messages():
                app.publish(TOPIC, message, _opcode(message))

    app.ws("/*", {"open": on_open, "idle_timeout": 0, "max_backpressure": 1024 * 1024})
    port = free_port()
    app.listen(port, lambda _: print("quotes", f"ws://127.0.0.1:{port}/ws/quotes", flush=True))
    app.loop.create_background_task(publish)
    app.run()


def _opcode(message: str | bytes) -> int:
    opcode: int = OpCode.TEXT if isinstance(message, str) else OpCode.BINARY
    return opcode


if __name__ == "__main__":
    main()
