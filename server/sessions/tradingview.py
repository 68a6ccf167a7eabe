"""The hours of a market as TradingView's charts write them."""

from server.sessions.calendar import DAY_MINUTES, Calendar, Hours

DATE = "%Y%m%d"


def session_text(calendar: Calendar) -> str:
    """Return the usual hours: `0930-1600`, from Monday to Friday, or `24x7`."""
    return "24x7" if calendar.hours is None else _text(calendar.hours)


def zone_name(calendar: Calendar) -> str:
    """Return the time zone of the hours."""
    return "Etc/UTC" if calendar.zone is None or calendar.zone.key == "UTC" else calendar.zone.key


def holidays_text(calendar: Calendar) -> str:
    """Return the days without a session: `20261225,20270101`."""
    return ",".join(f"{day:{DATE}}" for day, hours in calendar.special.items() if hours is None)


def corrections_text(calendar: Calendar) -> str:
    """Return the days with other hours: `0930-1300:20261127;0930-1300:20261224`."""
    other = [(day, hours) for day, hours in calendar.special.items() if hours]
    return ";".join(f"{_text(hours)}:{day:{DATE}}" for day, hours in other)


def splits_days(calendar: Calendar) -> bool:
    """Return whether a session goes over midnight, so that a date has parts of two."""
    hours = calendar.hours
    return hours is not None and hours.closing <= hours.opening


def _text(hours: Hours) -> str:
    opening, closing = (_time(each) for each in hours)
    return f"{opening}-{closing}"


def _time(minutes: int) -> str:
    hour, minute = divmod(minutes % DAY_MINUTES, 60)
    return f"{hour:02}{minute:02}"
