"""The log of what happened to kept trades in the last minutes, so that the next leader can revise them.

An entry has the changes of one step. The first change of a symbol in an entry comes with the symbol's
values before it, so that a log whose beginning is gone can be read.
"""

import struct
from collections import deque
from collections.abc import Iterable, Mapping
from secrets import token_bytes

import msgspec

from server.intake.intake import Intake
from server.intake.once import ID_MEMORY_US
from server.intake.trades import SymbolNews

LOG_BYTES = 8 * 1024 * 1024
"""Bytes of all entries: some 150,000 trades, which the next leader reads in half a second."""


class _Entry(msgspec.Struct, array_like=True):
    """One step. `sources`: the names of the numbers in the rows. `name`: as Redis may have it twice."""

    name: bytes
    sources: dict[int, str]
    symbols: dict[str, SymbolNews]


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(_Entry)


class KeptLog:
    """Knows the sizes and times of the log's entries. All times are in microseconds since 1970."""

    def __init__(self) -> None:
        self._entries = deque[tuple[int, int]]()
        self._bytes = 0

    @property
    def length(self) -> int:
        """The number of the newest entries that are still of use."""
        return len(self._entries)

    def take(self, intake: Intake, now: int) -> bytes:
        """Take out what happened to the kept trades since the last call; b"" if nothing did."""
        news, intake.trades.news = intake.trades.news, {}
        if not news:
            return b""
        names = {source.number: source.name for source in intake.sources.all.values()}
        used = {each.row.source for found in news.values() for each in found.events if each.row}
        sources = {number: names.get(number, "") for number in used}
        data = _encode(_Entry(token_bytes(8), sources, news))
        self._add(now, len(data))
        return data

    def restore(self, intake: Intake, entries: Iterable[tuple[int, bytes]], now: int) -> None:
        """Let an intake that has begun go on with the kept trades of some entries and their times."""
        seen = set[bytes]()
        renamed = intake.former.present()
        for time_us, data in entries:
            self._add(time_us, len(data))
            try:
                entry = _decoder.decode(data)
                if entry.name not in seen:
                    _restore_one(intake, entry, time_us, renamed, now)
            except (ValueError, struct.error):
                # Another program may have written it. What is wrong by it is dropped at the end.
                continue
            seen.add(entry.name)
        intake.drop_doubtful_trades()
        intake.trades.news = {}

    def _add(self, time_us: int, size: int) -> None:
        self._entries.append((time_us, size))
        self._bytes += size
        oldest = time_us - ID_MEMORY_US
        while self._entries and (self._bytes > LOG_BYTES or self._entries[0][0] < oldest):
            self._bytes -= self._entries.popleft()[1]


def _restore_one(
    intake: Intake, entry: _Entry, time_us: int, renamed: Mapping[str, tuple[str, int]], now: int
) -> None:
    """Errors: ValueError, struct.error."""
    numbers = {
        number: source.number
        for number, name in entry.sources.items()
        if (source := intake.sources.get(name, now))
    }
    for given, news in entry.symbols.items():
        new, renamed_at = renamed.get(given, (given, 0))
        symbol = new if time_us < renamed_at else given
        intake.trades.replay(symbol, news, numbers)
