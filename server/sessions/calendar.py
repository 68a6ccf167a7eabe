"""The calendar of a market: its hours, its holidays and half days, in the market's time zone.

A session belongs to a date. If it closes at or before the time of day of its opening, as futures do
(`18:00-17:00`), it opens on the day before its date. All moments are microseconds since the Unix epoch.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple
from zoneinfo import ZoneInfo

ALLOWED = (
    "always, or hours and a time zone, such as 09:30-16:00 America/New_York, "
    "then perhaps a file of holidays"
)
"""The values of SESSION."""

SATURDAY = 5

LONGEST_CLOSURE = 400
"""Days. A market without a session for longer counts as closed for good."""

DAY_MINUTES = 24 * 60

_TIME = r"([0-9]{1,2}):([0-9]{2})"
_HOURS = re.compile(rf"{_TIME}-{_TIME}", re.ASCII)
_CLOSING = re.compile(_TIME, re.ASCII)
_LIKE_HOURS = re.compile(r"[0-9]+:")
"""The second word of a line that is meant as hours, not as a holiday's name."""


class BadSession(ValueError):
    """A value of SESSION is not allowed. The message says why, in one line."""


class Hours(NamedTuple):
    """Minutes after midnight, local time. Midnight at a session's end is DAY_MINUTES."""

    opening: int
    closing: int


class Session(NamedTuple):
    """One session: its date, and its first moment and the first one after it."""

    date: date
    opening: int
    closing: int


class Calendar:
    """Never changes. `hours` and `zone` are None for a market that is always open. `special` has each
    day with other hours, None for a holiday.
    """

    def __init__(
        self,
        hours: Hours | None = None,
        zone: ZoneInfo | None = None,
        special: Mapping[date, Hours | None] = MappingProxyType({}),
    ) -> None:
        self.hours = hours
        self.zone = zone
        self.special = special

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Calendar) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((self.hours, self.zone))

    @classmethod
    def parse(cls, text: str) -> "Calendar":
        """Read a value of SESSION. Errors: BadSession."""
        if text.strip().lower() == "always":
            return ALWAYS
        words = text.split(maxsplit=2)
        if len(words) < 2:
            raise BadSession(ALLOWED)
        hours = _hours(words[0])
        if hours is None:
            raise BadSession(f"{words[0]!r} is not hours such as 09:30-16:00; allowed: {ALLOWED}")
        try:
            zone = ZoneInfo(words[1])
        except (KeyError, ValueError, OSError):
            raise BadSession(
                f"there is no time zone {words[1]!r}; one is America/New_York or UTC"
            ) from None
        special = _read_holidays(Path(words[2].strip()), hours) if len(words) == 3 else {}
        return cls(hours, zone, special)

    def present(self, now: int) -> Session | None:
        """Return the session at a moment, None if the market is closed or always open."""
        last = self.last(now)
        return last if last and now < last.closing else None

    def is_open(self, now: int) -> bool:
        """Return whether the market is open at a moment."""
        return self.hours is None or self.present(now) is not None

    def last(self, now: int) -> Session | None:
        """Return the newest session that opened at or before a moment, None without one."""
        sessions = self._sessions(now, step=-1)
        return next((each for each in sessions if each.opening <= now), None)

    def next_opening(self, now: int) -> int | None:
        """Return the next opening after a moment, None without one."""
        sessions = self._sessions(now, step=1)
        return next((each.opening for each in sessions if each.opening > now), None)

    def _sessions(self, now: int, step: int) -> Iterator[Session]:
        """Return the sessions around a moment and then further ones, forwards or backwards in time."""
        if self.hours is None or self.zone is None:
            return
        today = datetime.fromtimestamp(now // 1_000_000, self.zone).date()
        # A session may open on the day before its date.
        for days in range(-1, LONGEST_CLOSURE):
            day = today + timedelta(days=days * step)
            usual = None if day.weekday() >= SATURDAY else self.hours
            if hours := self.special.get(day, usual):
                yield self._session(day, hours, self.zone)

    def _session(self, day: date, hours: Hours, zone: ZoneInfo) -> Session:
        begin = day - timedelta(days=hours.opening >= hours.closing)
        return Session(day, _moment(begin, hours.opening, zone), _moment(day, hours.closing, zone))


class LastOpening:
    """Finds the last opening for moments that mostly grow, and keeps its newest answer."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._since, self._until, self._opening = 0, 0, 0

    def at(self, now: int) -> int:
        """Return the last opening at or before a moment, 0 without one."""
        if not self._since <= now < self._until:
            last, following = self._calendar.last(now), self._calendar.next_opening(now)
            self._opening = last.opening if last else 0
            self._since = self._opening or now
            self._until = now + LONGEST_KEPT if following is None else following
        return self._opening


LONGEST_KEPT = 3_600_000_000
"""Microseconds, an hour, for which an answer holds if there is no next opening."""

ALWAYS = Calendar()
"""A market without sessions: no opening, and never closed."""


def _moment(day: date, minutes: int, zone: ZoneInfo) -> int:
    """Return a local time as UTC. If a clock change skips the time, it comes after the change. If a
    change repeats it, the first one counts.
    """
    later, minutes = divmod(minutes, DAY_MINUTES)
    hour, minute = divmod(minutes, 60)
    local = datetime(day.year, day.month, day.day, hour, minute, tzinfo=zone)
    local += timedelta(days=later)
    return int(local.astimezone(UTC).timestamp()) * 1_000_000


def _hours(text: str) -> Hours | None:
    """Return the hours in `09:30-16:00`, None if it has none."""
    match = _HOURS.fullmatch(text)
    opening = _minutes(match[1], match[2]) if match else None
    closing = _minutes(match[3], match[4]) if match else None
    if opening is None or closing is None or opening == DAY_MINUTES:
        return None
    # Midnight ends the day of the session.
    return Hours(opening, closing or DAY_MINUTES)


def _minutes(hour: str, minute: str) -> int | None:
    """Return a time of day in minutes, None if the clock does not have it."""
    minutes = int(hour) * 60 + int(minute)
    return minutes if int(minute) < 60 and minutes <= DAY_MINUTES else None


def _read_holidays(path: Path, usual: Hours) -> dict[date, Hours | None]:
    """Read the file of holidays. Errors: BadSession, with the line's number."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        problem = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise BadSession(f"cannot read the file of holidays {str(path)!r}: {problem}") from None
    special: dict[date, Hours | None] = {}
    for number, line in enumerate(lines, 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            day = date.fromisoformat(words[0]) if len(words[0]) == len("2026-12-25") else None
            if day is None or day in special:
                raise BadSession("a line begins with a date such as 2026-12-25, each date once")
            special[day] = _special_hours(words[1:2], usual)
        except ValueError as error:
            problem = str(error) if isinstance(error, BadSession) else f"no date {words[0]!r}"
            raise BadSession(f"file of holidays {str(path)!r}, line {number}: {problem}") from None
    return special


def _special_hours(words: list[str], usual: Hours) -> Hours | None:
    """Return the hours in the second word of a line, None for a holiday. Errors: BadSession."""
    if not words or not _LIKE_HOURS.match(words[0]):
        return None
    if hours := _hours(words[0]):
        return hours
    match = _CLOSING.fullmatch(words[0])
    closing = (_minutes(match[1], match[2]) if match else None) or 0
    overnight = usual.opening >= usual.closing
    if not closing or (closing <= usual.opening and not overnight):
        raise BadSession(
            f"{words[0]!r} is neither a closing after the opening, such as 13:00, "
            "nor hours such as 09:30-13:00"
        )
    return Hours(usual.opening, closing)
