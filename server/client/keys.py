"""The keys that scroll a table in the terminal."""

import os
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from enum import Enum

import trio


class Key(Enum):
    """A request of the user."""

    UP = "up"
    DOWN = "down"
    PAGE_UP = "page up"
    PAGE_DOWN = "page down"
    HOME = "home"
    END = "end"
    QUIT = "quit"


SEQUENCES = {
    b"\x1b[A": Key.UP,
    b"\x1bOA": Key.UP,
    b"k": Key.UP,
    b"\x1b[B": Key.DOWN,
    b"\x1bOB": Key.DOWN,
    b"j": Key.DOWN,
    b"\x1b[5~": Key.PAGE_UP,
    b"\x1b[6~": Key.PAGE_DOWN,
    b" ": Key.PAGE_DOWN,
    b"\x1b[H": Key.HOME,
    b"\x1bOH": Key.HOME,
    b"\x1b[1~": Key.HOME,
    b"\x1b[F": Key.END,
    b"\x1bOF": Key.END,
    b"\x1b[4~": Key.END,
    b"q": Key.QUIT,
}
"""The sequences of terminals (ECMA-48 and xterm), and the letters of less(1)."""


def parse_keys(data: bytes) -> Iterator[Key]:
    """Yield the keys in what a terminal sent. Others are ignored."""
    while data:
        sequence = next((each for each in SEQUENCES if data.startswith(each)), None)
        if sequence is not None:
            yield SEQUENCES[sequence]
        data = data[len(sequence or b".") :]


@contextmanager
def unbuffered_keys() -> Iterator[bool]:
    """Have the terminal pass each key at once and unseen; whether standard input is a terminal.

    Ctrl-C keeps its meaning. The terminal's own mode is back at the end.
    """
    if not sys.stdin.isatty():
        yield False
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    tty.setcbreak(fd)
    try:
        yield True
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


async def keys() -> AsyncIterator[Key]:
    """Yield the keys that are pressed, until standard input ends."""
    fd = sys.stdin.fileno()
    while True:
        await trio.lowlevel.wait_readable(fd)
        data = os.read(fd, 1024)
        if not data:
            return
        for key in parse_keys(data):
            yield key
