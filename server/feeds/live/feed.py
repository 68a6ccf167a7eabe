"""Follows one venue: connects, subscribes, notices silence and gaps, and comes back after an outage."""

import json
from collections.abc import Awaitable, Callable, Sequence
from typing import NoReturn, Protocol

import structlog
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection

from server.feeds.live.venue import BadMessage, Published, Refused, Venue
from server.invalid import InvalidRecords
from server.reconnecting import LONGEST_DELAY, Backoff, ConnectionFailed
from server.websocket_client import open_connection

Deliver = Callable[[str, Sequence[Published]], Awaitable[None]]
"""Takes a source's objects, and waits while there is no room for them."""

REPORT_INTERVAL = 10.0
"""Seconds between two log lines about gaps, and between two about faults."""

GREETING_TIMEOUT = 10.0
"""Seconds for the first message of a venue that speaks first."""

log = structlog.get_logger()


class Listener(Protocol):
    """Learns whether prices can come from the venue."""

    def on_connected(self) -> None:
        """Note that the venue sent its first message that asks for nothing, such as credentials."""

    def on_away(self) -> None:
        """Note that the connection is lost or cannot be made."""


class LiveFeed:
    """See `VenueFeed`."""

    def __init__(
        self, venue: Venue, deliver: Deliver, listener: Listener, invalid: InvalidRecords
    ) -> None:
        self.venue = venue
        self.connected = False
        self.connections = 0
        self.missed = 0
        self._deliver = deliver
        self._listener = listener
        self._invalid = invalid
        # The number of each symbol's newest trade, also of earlier connections.
        self._newest: dict[str, int] = {}
        self._symbols = frozenset(venue.symbols)
        self._report_at = self._fault_at = 0.0

    async def run(self) -> NoReturn:
        backoff = Backoff()
        while True:
            asked = 0.0
            try:
                await self._follow(backoff)
                problem = "the venue closed the connection"
            except ConnectionFailed as failed:
                problem, asked = str(failed), failed.retry_after
            except Refused as refused:
                # Time seldom cures this, and venues ban clients that insist.
                problem, asked = f"refused: {refused}", LONGEST_DELAY
            finally:
                # Also if this instance leads no more.
                self.connected = False
            self._listener.on_away()
            wait = backoff.next(trio.current_time(), asked)
            log.warning(
                "venue away", venue=self.venue.name, problem=problem, retry_in=round(wait, 1)
            )
            await trio.sleep(wait)

    async def _follow(self, backoff: Backoff) -> None:
        """Follow the venue until it closes the connection. Errors: ConnectionFailed, Refused."""
        async with open_connection(self.venue.url) as socket:
            backoff.accepted(trio.current_time())
            self.connections += 1
            try:
                await _send(socket, self.venue.greeting())
                while True:
                    await self._read(socket)
            except ConnectionClosed:
                return

    async def _read(self, socket: WebSocketConnection) -> None:
        """Read one message and deliver what it says. A bad one is counted and left out."""
        greeting = GREETING_TIMEOUT if self.venue.greets and not self.connected else None
        with trio.fail_after(self.venue.silence or greeting or float("inf")):
            text = await socket.get_message()
        try:
            reading = self.venue.read(text)
            objects = [each for each in reading.objects if each["symbol"] in self._symbols]
        except (BadMessage, RecursionError) as bad:
            self._invalid.report("venue", self.venue.name, str(bad))
            return
        except Refused:
            raise
        except Exception:
            # A fault of the server costs neither the other messages nor the feed.
            self._report_fault()
            return
        if len(objects) < len(reading.objects):
            problem = "prices of symbols that were not asked for"
            self._invalid.report("venue", self.venue.name, problem)
        if not self.connected and not reading.replies:
            self.connected = True
            log.info("venue connected", venue=self.venue.name, symbols=len(self.venue.symbols))
            self._listener.on_connected()
        await _send(socket, reading.replies)
        if objects:
            self._look_for_gaps(objects)
            await self._deliver(self.venue.name, objects)

    def _look_for_gaps(self, objects: Sequence[Published]) -> None:
        if not self.venue.numbered:
            return
        for each in objects:
            symbol, seq = each["symbol"], each.get("seq")
            if not isinstance(symbol, str) or not isinstance(seq, int):
                continue
            newest = self._newest.get(symbol, seq - 1)
            self._newest[symbol] = max(newest, seq)
            if seq > newest + 1:
                self._report_gap(symbol, seq - newest - 1)

    def _report_gap(self, symbol: str, trades: int) -> None:
        self.missed += trades
        if trio.current_time() >= self._report_at:
            self._report_at = trio.current_time() + REPORT_INTERVAL
            log.warning("trades missed", venue=self.venue.name, symbol=symbol, missed=self.missed)

    def _report_fault(self) -> None:
        """Log the exception at hand, unless one was logged a moment ago."""
        if trio.current_time() >= self._fault_at:
            self._fault_at = trio.current_time() + REPORT_INTERVAL
            log.exception("venue message failed", venue=self.venue.name)


async def _send(socket: WebSocketConnection, messages: Sequence[object]) -> None:
    for message in messages:
        await socket.send_message(json.dumps(message))
