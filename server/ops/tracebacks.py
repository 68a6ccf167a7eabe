"""Writes tracebacks without local variables and secrets, one a second for each place."""

import logging
import sys
import threading
import traceback
from time import monotonic
from types import TracebackType

import structlog

from server.config.redaction import redact

SAMPLE_INTERVAL = 1.0
"""Seconds between two tracebacks of one place. A client may cause a thousand a second."""

LEFT_OUT = "left_out"
"""The field with the number of tracebacks of the same place left out since the last one."""


class TracebackSampler(logging.Filter):
    """Lets a record with an exception pass once in SAMPLE_INTERVAL for each place.

    A place is the raising line and the exception's type. Clients cannot add to this fixed set.
    """

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[object, float] = {}
        self._left_out: dict[object, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether to write `record`, and note in it the number left out."""
        if (error := _error(record)) is None:
            return True
        place, now = _place(error), monotonic()
        if now < self._next.get(place, now):
            self._left_out[place] = self._left_out.get(place, 0) + 1
            return False
        self._next[place] = now + SAMPLE_INTERVAL
        setattr(record, LEFT_OUT, self._left_out.pop(place, 0))
        return True


def add_left_out(
    _: object, __: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Copy the number left out into the line, as a processor of structlog's formatter."""
    left_out = getattr(line["_record"], LEFT_OUT, None)
    if left_out is not None:
        line[LEFT_OUT] = left_out
    return line


def install_hooks() -> None:
    """Write uncaught exceptions of all threads without secrets."""
    sys.excepthook = _print
    threading.excepthook = _print_of_thread
    sys.unraisablehook = _print_unraisable


def _error(record: logging.LogRecord) -> BaseException | None:
    """Return a line's exception: structlog has it in the fields, other loggers in the record."""
    given: object = record.exc_info
    if isinstance(record.msg, dict):
        given = record.msg.get("exc_info")
    if isinstance(given, BaseException):
        return given
    if isinstance(given, tuple):
        return given[1] if isinstance(given[1], BaseException) else None
    return sys.exc_info()[1] if given else None


def _place(error: BaseException) -> object:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    step = error.__traceback__
    while step is not None and step.tb_next is not None:
        step = step.tb_next
    where = (step.tb_frame.f_code.co_filename, step.tb_lineno) if step else None
    return type(error).__qualname__, where


def _print(kind: type[BaseException], error: BaseException, step: TracebackType | None, /) -> None:
    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, step))))


def _print_of_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None and what.exc_type is not SystemExit:
        _print(what.exc_type, what.exc_value, what.exc_traceback)


def _print_unraisable(what: "sys.UnraisableHookArgs") -> None:
    if what.exc_value is not None:
        _print(what.exc_type, what.exc_value, what.exc_traceback)
