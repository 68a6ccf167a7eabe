"""Paints a screen on a terminal: only lines that changed, at most ten times a second."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import trio
from rich.color import ColorSystem
from rich.console import Console
from rich.segment import Segment

from server.client.keys import buffered_keys
from server.client.table import Screen

REDRAW_INTERVAL = 0.1
"""Seconds between two redraws at least."""

TICK = 1.0
"""Seconds after which ages and waits are drawn anew although no message came."""

ENTER = "\x1b[?1049h\x1b[?25l\x1b[2J"
"""The alternate screen (xterm), without a cursor, empty."""

LEAVE = "\x1b[?25h\x1b[?1049l"

BEGIN_FRAME = "\x1b[?2026h"
"""The terminal shows what follows at once at END_FRAME, not line by line (synchronized output).

Terminals that do not know the mode ignore it.
"""

END_FRAME = "\x1b[?2026l"

COLOR_SYSTEMS = {
    "standard": ColorSystem.STANDARD,
    "256": ColorSystem.EIGHT_BIT,
    "truecolor": ColorSystem.TRUECOLOR,
}

PLAIN = str.maketrans(
    {
        "▲": "^",
        "▼": "v",
        "▸": ">",
        "●": "*",
        "◌": "o",
        "✕": "x",
        "❚": "|",
        "▏": "_",
        "…": ".",
        "─": "-",
        "│": "|",
        "┤": "|",
        "┴": "+",
        "┘": "+",
        "↑": "^",
        "↓": "v",
        "→": ">",
        "←": "<",
        **dict(zip("▁▂▃▄▅▆▇█", "_.,-~=*#", strict=True)),
        **{chr(0x2800 + bits): "*" for bits in range(1, 256)},
    }
)
"""The characters for a terminal whose encoding lacks the others."""


class Refreshed(Protocol):
    """Something that can be drawn."""

    def refresh(self) -> None:
        """Draw it now."""


class Painter:
    """Writes the lines of a screen that changed since the last time."""

    def __init__(self, screen: Screen, console: Console) -> None:
        self._screen = screen
        self._console = console
        self._painted: list[list[Segment]] = []
        self._size = (0, 0)
        self._colors = None if console.no_color else COLOR_SYSTEMS.get(console.color_system or "")
        self._encoding = console.encoding

    @contextmanager
    def on_terminal(self) -> Iterator[None]:
        """Take the terminal's alternate screen. At the end the terminal is as before."""
        self._write(ENTER)
        try:
            yield
        finally:
            self._write(LEAVE)

    def suspend(self) -> None:
        """Stop this process as Ctrl-Z does, with the terminal as before; paint all when it goes on."""
        self._write(LEAVE)
        with buffered_keys():
            os.kill(os.getpid(), signal.SIGSTOP)
        self._write(ENTER)
        self._painted = []

    def refresh(self) -> None:
        """Bring the terminal up to date. A new size makes all lines new."""
        width, height = self._console.size
        output: list[str] = []
        if self._size != (width, height):
            self._size, self._painted = (width, height), []
            output.append("\x1b[2J")
        lines = [line.segments(width) for line in self._screen.draw(width, height).lines]
        for number, line in enumerate(lines[:height]):
            if number >= len(self._painted) or self._painted[number] != line:
                output.append(f"\x1b[{number + 1};1H\x1b[K{self._rendered(line)}")
        self._painted = lines
        if output:
            self._write(f"{BEGIN_FRAME}{''.join(output)}{END_FRAME}")
        self._screen.connection.shown(self._screen.now)

    def _rendered(self, line: list[Segment]) -> str:
        if self._console.no_color:
            line = [*Segment.remove_color(line)]
        system = self._colors or ColorSystem.STANDARD
        return "".join(
            style.render(text, color_system=system) if style else text for text, style, _ in line
        )

    def _write(self, text: str) -> None:
        """Write to the terminal. Errors: BrokenPipeError if its window was closed."""
        if not self._encoding.startswith("utf"):
            text = text.translate(PLAIN).encode(self._encoding, "replace").decode(self._encoding)
        try:
            sys.stdout.write(text)
            sys.stdout.flush()
        except OSError:
            raise BrokenPipeError from None


async def redraw(screen: Screen, painter: Refreshed) -> None:
    """Draw what has changed, at most once in REDRAW_INTERVAL."""
    while True:
        await screen.changed.wait()
        screen.changed = trio.Event()
        painter.refresh()
        await trio.sleep(REDRAW_INTERVAL)


async def tick(screen: Screen) -> None:
    """Have the screen drawn every second, since ages grow."""
    while True:
        await trio.sleep(TICK)
        screen.changed.set()
