"""Configures the log: readable on a terminal, JSON elsewhere. Libraries' lines have the same form."""

import logging
import sys
from collections.abc import Mapping
from functools import partial

import structlog

from server.config.redaction import redact
from server.ops.tracebacks import TracebackSampler, add_left_out

_SHARED: list[structlog.typing.Processor] = [
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.StackInfoRenderer(),
]


def _in_reading_order(
    _: object, __: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Put time, level and event before all other fields."""
    first = {key: line.pop(key) for key in ("timestamp", "level", "event") if key in line}
    return first | dict(line)


def _name(
    worker: int, _: object, __: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    line["worker"] = worker
    return line


def _redact(_: object, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Hide secrets in every value before rendering, as quoting could hide a secret from the search."""
    return {key: _without_secrets(value) for key, value in line.items()}


def _without_secrets(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    if isinstance(value, Mapping):
        return {str(key): _without_secrets(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(each) for each in value]
    return redact(value if isinstance(value, str) else repr(value))


def configure_logging(form: str, level: str, worker: int | None = None) -> None:
    """Write lines of `level` and above to standard error.

    `form` is auto, console or json. `worker` is the number that each line of a worker carries.
    """
    if form == "auto":
        form = "console" if sys.stderr.isatty() else "json"
    shared: list[structlog.typing.Processor] = list(_SHARED)
    if worker is not None:
        shared.append(partial(_name, worker))
    # The console's default, rich's tracebacks, would show local variables, such as tokens.
    finish: list[structlog.typing.Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if form == "console"
        else [_in_reading_order, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler()
    handler.addFilter(TracebackSampler())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                add_left_out,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _redact,
                *finish,
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    set_level(level)


def set_level(level: str) -> None:
    """Change the lowest level that is written."""
    logging.getLogger("server").setLevel(level.upper())
