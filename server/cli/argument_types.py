"""Types of the command's arguments. Each raises ArgumentTypeError, whose message argparse shows."""

import argparse
from collections.abc import Sequence
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from server.cli.credentials import is_word
from server.config.values import Duration
from server.gateway.claims import MAX_NAME_LENGTH, is_name
from server.quotes.instrument import normalize_symbol
from server.workers.worker import SupervisorLink

AUTO = "auto"
"""The number of workers follows the load."""


def workers(text: str) -> int | str:
    """Read a number of workers, or AUTO."""
    if text == AUTO:
        return text
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of processes from 1, nor {AUTO}"
        )
    return int(text)


def supervisor_link(text: str) -> SupervisorLink:
    """Read number and descriptor that a supervisor gave its worker."""
    try:
        number, fd = map(int, text.split(":"))
        return SupervisorLink(number, fd)
    except (ValueError, OSError):
        raise argparse.ArgumentTypeError("only a supervisor can start a worker") from None


def positive(text: str) -> int:
    """Read a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def duration(text: str) -> Duration:
    """Read a duration such as 30m."""
    try:
        return Duration.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 30m or 1h") from None


def user(text: str) -> str:
    """Read the name of a user."""
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"a user is 1 to {MAX_NAME_LENGTH} printable characters")
    return text


def role(text: str) -> str:
    """Read the name of a role."""
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"a role is 1 to {MAX_NAME_LENGTH} printable characters")
    return text


def utf8(text: str) -> str:
    """Read a text. A byte that is not UTF-8 becomes half of a character, which nothing can send."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not UTF-8 text") from None
    return text


def symbol(text: str) -> str:
    """Read a symbol in any case."""
    return normalize_symbol(utf8(text))


def word(text: str) -> str:
    """Read a text that can stand in a request's line or header."""
    if not is_word(text):
        raise argparse.ArgumentTypeError("only printable ASCII characters without spaces, please")
    return text


def url(text: str) -> str:
    """Read the address of a streaming port. It may leave the path out."""
    return _address(text, ("ws", "wss"), "ws://host:8080/ws/quotes").removesuffix("/")


def http_url(text: str) -> str:
    """Read the address of an HTTP port."""
    return _address(text, ("http", "https"), "http://host:8081")


def _address(text: str, schemes: Sequence[str], example: str) -> str:
    try:
        parts = urlsplit(word(text))
        host = (parts.hostname or "").encode("idna")
        good = parts.scheme in schemes and host and parts.port != 0 and not parts.query
    # It includes UnicodeError, which a name raises that DNS cannot have.
    except ValueError:
        good = False
    if not good:
        raise argparse.ArgumentTypeError(f"{text!r} is not an address such as {example}")
    return text


def time_zone(text: str) -> str:
    """Read the name of a time zone."""
    try:
        return ZoneInfo(text).key
    except (KeyError, ValueError, OSError):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a time zone such as America/New_York or UTC"
        ) from None
