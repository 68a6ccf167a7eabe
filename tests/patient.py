"""Clients of the library websockets that lose no message at the end of a connection.

The library reads a close frame together with the messages before it, and answers at once. If the answer
meets a closed socket, it drops those messages. The server closes the socket two seconds after its close
frame, and a client on a busy machine may be that late.
"""

import threading
from contextlib import suppress

import trio
from websockets.sync.client import ClientConnection
from websockets.trio.client import ClientConnection as TrioConnection


class PatientConnection(ClientConnection):
    """A connection for threads."""

    def send_data(self) -> None:
        """Send what waits. The thread that reads takes no notice of a closed socket."""
        if threading.current_thread() is not self.recv_events_thread:
            super().send_data()
            return
        with suppress(OSError):
            super().send_data()


class PatientTrioConnection(TrioConnection):
    """A connection for trio. Its user only reads."""

    async def send_data(self) -> None:
        """Send what waits, and take no notice of a closed stream."""
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await super().send_data()
