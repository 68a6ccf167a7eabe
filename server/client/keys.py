"""The keys of a table in the terminal."""

import os
import re
import sys
import termios
import tty
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from enum import Enum

import trio

ESCAPE_TIMEOUT = 0.05
"""Seconds after which an escape character is the key of that name, not the start of a sequence."""


class Key(Enum):
    """A request of the user."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    HOME = "home"
    END = "end"
    QUIT = "quit"
    ADD = "add"
    REMOVE = "remove"
    SORT = "sort by the next column"
    SORT_BACK = "sort by the column before"
    REVERSE = "reverse"
    PAUSE = "pause"
    CHART = "chart"
    SPAN = "span of the chart"
    HELP = "help"
    ENTER = "enter"
    ESCAPE = "escape"
    BACKSPACE = "backspace"


SEQUENCES = {
    b"\x1b[A": Key.UP,
    b"\x1bOA": Key.UP,
    b"\x1b[B": Key.DOWN,
    b"\x1bOB": Key.DOWN,
    b"\x1b[C": Key.SORT,
    b"\x1bOC": Key.SORT,
    b"\x1b[D": Key.SORT_BACK,
    b"\x1bOD": Key.SORT_BACK,
    b"\x1b[5~": Key.PAGE_UP,
    b"\x1b[6~": Key.PAGE_DOWN,
    b"\x1b[3~": Key.REMOVE,
    b"\x1b[H": Key.HOME,
    b"\x1bOH": Key.HOME,
    b"\x1b[1~": Key.HOME,
    b"\x1b[F": Key.END,
    b"\x1bOF": Key.END,
    b"\x1b[4~": Key.END,
    b"\x1b": Key.ESCAPE,
    b"\r": Key.ENTER,
    b"\n": Key.ENTER,
    b"\x7f": Key.BACKSPACE,
    b"\b": Key.BACKSPACE,
}
"""The sequences of terminals (ECMA-48 and xterm). They mean the same while the user types."""

LETTERS = {
    b"k": Key.UP,
    b"j": Key.DOWN,
    b" ": Key.PAGE_DOWN,
    b"q": Key.QUIT,
    b"a": Key.ADD,
    b"d": Key.REMOVE,
    b"s": Key.SORT,
    b"S": Key.SORT_BACK,
    b"r": Key.REVERSE,
    b"p": Key.PAUSE,
    b"c": Key.CHART,
    b"t": Key.SPAN,
    b"?": Key.HELP,
    b"h": Key.HELP,
}
"""Letters; some are those of less(1). While the user types, they are text."""

_TOKEN = re.compile(rb"\x1b\[[0-?]*[ -/]*[@-~]|\x1bO.|[\xc0-\xff][\x80-\xbf]*|.", re.DOTALL)
"""A whole sequence, a character of several bytes in UTF-8, or one byte."""

_UNFINISHED = re.compile(rb"(\x1b(\[[0-?]*[ -/]*|O)?|[\xc0-\xff][\x80-\xbf]{0,2})\Z")
"""The beginning of a sequence or of a character, whose rest may still come."""


def parse_keys(data: bytes) -> Iterator[Key]:
    """Yield the keys in what a terminal sent. Others are ignored."""
    for token in _TOKEN.findall(data):
        key = SEQUENCES.get(token) or LETTERS.get(token)
        if key is not None:
            yield key


def parse_typed(data: bytes) -> Iterator[Key | str]:
    """Yield the characters that the user typed, and the keys that are not characters."""
    for token in _TOKEN.findall(data):
        if token in SEQUENCES:
            yield SEQUENCES[token]
        elif (text := token.decode("utf-8", "ignore")).isprintable() and text:
            yield text


@contextmanager
def unbuffered_keys() -> Iterator[bool]:
    """Have the terminal pass each key at once and unseen. Yield whether standard input is a terminal.

    Ctrl-C keeps its meaning. The terminal's own mode is back at the end.
    """
    # A closed input is None.
    if not (sys.stdin and sys.stdin.isatty()):
        yield False
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield True
    finally:
        # Of a window that was closed, nothing is left to restore.
        with suppress(termios.error):
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def buffered_keys() -> Iterator[None]:
    """Give the terminal its line mode and echo back for a while, as for a shell."""
    if not (sys.stdin and sys.stdin.isatty()):
        yield
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    lines = [*before]
    lines[3] |= termios.ICANON | termios.ECHO
    termios.tcsetattr(fd, termios.TCSADRAIN, lines)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def keys(is_typing: Callable[[], bool]) -> AsyncIterator[Key | str]:
    """Yield the keys that are pressed, until standard input ends; characters too while `is_typing`."""
    fd = sys.stdin.fileno()
    data = b""
    while True:
        with trio.move_on_after(ESCAPE_TIMEOUT if data else float("inf")):
            await trio.lowlevel.wait_readable(fd)
            try:
                more = os.read(fd, 1024)
            except OSError:
                # The window was closed.
                return
            if not more:
                return
            data += more
            if _UNFINISHED.search(data) and len(data) < 1024:
                continue
        while data:
            # One at a time, as each may begin or end the typing.
            token = _TOKEN.match(data)
            assert token is not None, "a dot matches any byte"
            data = data[token.end() :]
            parse = parse_typed if is_typing() else parse_keys
            for key in parse(token.group()):
                yield key
