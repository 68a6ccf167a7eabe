"""Remembers what was counted, so that it counts once: sequence numbers and ids."""

from collections.abc import Iterable

from msgspec import Struct

SEQ_WINDOW = 4096
"""Sequence numbers of one source and symbol that may come out of order."""

ID_MEMORY_US = 300_000_000
"""Microseconds for which an id is remembered: five minutes."""

REMEMBERED_IDS = 1_000_000
"""Ids in each of two generations, some 80 MB: 3,300 a second for five minutes. If more come, the
memory is shorter.
"""


class SeenSeqs(Struct, gc=False):
    """The sequence numbers of one source, epoch and symbol that were counted.

    All from `unknown + 1` to `floor` are. Of lower ones it is not known whether they are. Bit n of
    `above` stands for the number `floor + 1 + n`. So a stream without gaps needs two numbers.
    """

    floor: int = -1
    above: int = 0
    unknown: int = -1

    def __contains__(self, seq: int) -> bool:
        """Whether `seq` was counted before, or is too far below the highest."""
        place = seq - self.floor - 1
        return place < 0 or bool(self.above >> place & 1)

    def add(self, seq: int) -> None:
        """Count `seq`, which is not in here."""
        place = seq - self.floor - 1
        if place >= SEQ_WINDOW:
            self._leave_behind(place - SEQ_WINDOW + 1)
            place = SEQ_WINDOW - 1
        self.above |= 1 << place
        if self.above & 1:
            # The lowest bit that is not set: all numbers below it were counted.
            self._raise_floor((~self.above & (self.above + 1)).bit_length() - 1)

    def merge(self, other: "SeenSeqs") -> None:
        """Count what `other` has counted, too."""
        low, high = sorted((self, other), key=lambda each: each.floor)
        above = high.above | low.above >> high.floor - low.floor
        self.floor, self.above, self.unknown = high.floor, above, high.unknown
        if self.above & 1:
            self._raise_floor((~self.above & (self.above + 1)).bit_length() - 1)

    def _leave_behind(self, numbers: int) -> None:
        """Raise the floor, also above numbers that were not counted."""
        missing = ~self.above & ((1 << min(numbers, SEQ_WINDOW)) - 1)
        if numbers > SEQ_WINDOW:
            self.unknown = self.floor + numbers
        elif missing:
            self.unknown = self.floor + missing.bit_length()
        self._raise_floor(numbers)

    def _raise_floor(self, by: int) -> None:
        self.floor += by
        self.above >>= by


class RecentIds:
    """The ids of the last five to ten minutes, as hashes: two sets, of which the older is dropped.

    `news`: if it is a list, each new id goes there, too. The caller takes them out.
    """

    def __init__(self, most: int = REMEMBERED_IDS) -> None:
        self._most = most
        self._newer = set[int]()
        self._older = set[int]()
        self._since = 0
        self.news: list[int] | None = None

    def __len__(self) -> int:
        """Return the number of ids that are remembered."""
        return len(self._newer) + len(self._older)

    def __contains__(self, key: int) -> bool:
        """Whether an id is remembered."""
        return key in self._newer or key in self._older

    def add(self, key: int) -> None:
        """Remember an id."""
        if self.news is not None:
            self.news.append(key)
        if len(self._newer) >= self._most:
            self._drop_older()
        self._newer.add(key)

    def restore(self, keys: Iterable[int], now: int) -> None:
        """Remember ids that another instance counted in the last five minutes."""
        self.pass_time(now)
        self._newer.update(keys)

    def pass_time(self, now: int) -> None:
        """Forget what is too old at the time `now`, in microseconds."""
        if now - self._since >= 2 * ID_MEMORY_US:
            self._newer.clear()
        if now - self._since >= ID_MEMORY_US:
            self._drop_older()
            self._since = now

    def _drop_older(self) -> None:
        self._older, self._newer = self._newer, set()
