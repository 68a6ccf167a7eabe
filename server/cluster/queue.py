"""The streams in Redis that published prices come through, and how far the feeds have come."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from server.cluster.bus import ID_MEMORY_MS, Bus
from server.cluster.scripts import APPEND, READ
from server.cluster.steps import POSITION, Progress
from server.cluster.wire import ANSWER, IDS, INTAKE, KEPT, PAGE_FIELDS, QUEUE, StreamEntry

QUEUED_ENTRIES = 512
"""Entries of the queue, some 30 MB in Redis: ten seconds of work for the leader. Then it is full."""

BEGINNING = "0-0"
"""Before the first entry of a stream."""

_ID = re.compile(rb"[0-9]{1,19}-[0-9]{1,19}")


class PriceStreams:
    """Reads and writes the streams. Errors of all methods: BusLost."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._append = bus.redis.register_script(APPEND)
        self._read = bus.redis.register_script(READ)

    async def append(self, entries: Sequence[bytes]) -> bool:
        """Add entries to the queue, all or none. Return whether there was room."""
        arguments: list[int | bytes] = [QUEUED_ENTRIES, *entries]
        return bool(await self._bus.do(lambda: self._append(keys=[QUEUE], args=arguments)))

    async def read(self, key: str, after: str, most: int) -> list[StreamEntry]:
        """Return the entries of a stream behind one, up to `most`."""
        found = await self._bus.do(lambda: self._read(keys=[key], args=[after, most]))
        return [
            StreamEntry(name.decode(), dict(zip(parts[::2], parts[1::2], strict=True)))
            for name, parts in found
        ]

    async def wait_entries(self, positions: Mapping[str, str]) -> None:
        """Wait for an entry behind those, but not longer than a command may take."""
        half = max(1, round(self._bus.patience * 500))
        streams: dict[Any, Any] = dict(positions)
        await self._bus.do(lambda: self._bus.redis.xread(streams, count=1, block=half))

    async def first_answer(self, key: int) -> bytes | None:
        """Return the first answer to a key, None if there is none."""
        value = await self._bus.do(lambda: self._bus.redis.get(f"{ANSWER}{key:x}"))
        return cast("bytes | None", value)

    async def remember_answer(self, key: int, answer: bytes) -> None:
        """Remember the first answer to a key for as long as the key itself."""
        name = f"{ANSWER}{key:x}"
        await self._bus.do(lambda: self._bus.redis.set(name, answer, px=ID_MEMORY_MS, nx=True))

    async def load_progress(self) -> Progress:
        """Return how far the feeds have come."""
        states: dict[str, bytes] = {}
        positions: dict[str, str] = {}
        for key, value in (await self._bus.do(self._fields)).items():
            name = key.decode(errors="replace")
            if not name.startswith(POSITION):
                states[name] = value
            elif _ID.fullmatch(value):
                positions[name.removeprefix(POSITION)] = value.decode()
        ids = [each.fields.get(b"i", b"") for each in await self._all(IDS)]
        kept = [
            (int(each.id.split("-")[0]) * 1000, each.fields.get(b"t", b""))
            for each in await self._all(KEPT)
        ]
        return Progress(states, positions, ids, kept)

    async def _all(self, key: str) -> list[StreamEntry]:
        """Return all entries of a stream, page by page."""
        found: list[StreamEntry] = []
        while page := await self.read(key, found[-1].id if found else BEGINNING, PAGE_FIELDS):
            found += page
        return found

    async def _fields(self) -> dict[bytes, bytes]:
        """Return the hash INTAKE, page by page, as Redis does nothing else meanwhile."""
        found: dict[bytes, bytes] = {}
        cursor = None
        while cursor != 0:
            redis = self._bus.redis
            cursor, page = await redis.hscan(INTAKE, cursor or 0, count=PAGE_FIELDS)
            found |= cast("dict[bytes, bytes]", page)
        return found
