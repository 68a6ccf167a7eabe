"""An independent client of any form, on a real socket."""

from typing import Any, Self

import msgspec
from websockets.sync.client import connect

from tests.forms import FormDocument
from tests.gateway.wire import new_user
from tests.patient import PatientConnection
from tests.processes import TIMEOUT, ServerProcess, make_token

ANSWERS = ("ack", "error", "pong")


class FormClient(FormDocument):
    """A connection with a form. `sizes` has the bytes of each change's frame."""

    def __init__(
        self, server: ServerProcess, form: str, fields: str = "", symbols: str = "AAPL", **more: Any
    ) -> None:
        super().__init__(form, fields)
        self.fields = fields
        query = f"{symbols}&format={form}" + (f"&fields={fields}" if fields else "")
        query += "".join(f"&{name}={value}" for name, value in more.items())
        url = server.url(query, make_token(new_user()))
        self._connecting = connect(
            url,
            open_timeout=TIMEOUT,
            ping_interval=None,
            max_queue=None,
            create_connection=PatientConnection,
        )
        self.connection = self._connecting.__enter__()
        self.sizes: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connecting.__exit__(None, None, None)

    def send(self, **command: Any) -> None:
        """Send a command in this form."""
        encoder = msgspec.msgpack if self.form == "msgpack" else msgspec.json
        payload = encoder.encode(command)
        self.connection.send(payload if self.form == "msgpack" else payload.decode())

    def receive(self) -> Any:
        """Return the next message, after applying it."""
        data = self.connection.recv(TIMEOUT)
        payload = data.encode() if isinstance(data, str) else data
        changes = self.changes
        message = self.read(1 if isinstance(data, str) else 2, payload)
        if self.changes > changes:
            self.sizes.append(len(payload) + (2 if len(payload) < 126 else 4))
        return message

    def answer(self) -> Any:
        """Return the next answer to a command."""
        while isinstance(message := self.receive(), list) or message["type"] not in ANSWERS:
            pass
        return message

    def wait(self, changes: int) -> None:
        """Read until so many changes have come."""
        while self.changes < changes:
            self.receive()
