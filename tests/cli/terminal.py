"""A terminal for the command `watch`: runs it in a pty and keeps the screen that it draws."""

import fcntl
import os
import re
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

from tests.cli.command import TIMEOUT, environment

_SYNCHRONIZED = "?2026"
"""The mode in which a terminal waits with what it shows until the frame is whole."""

_CONTROL = re.compile(r"\x1b\[(?:(\d+);(\d+)H|([?\d;]*)([A-Za-z]))|([^\x1b])")
"""A move of the cursor, another sequence, or a character."""


class Terminal:
    """A command in a terminal, whose `lines` are those that its user sees.

    It knows the sequences that the painter uses: moves of the cursor, erasing, and colours. A sequence
    that it does not know fails the test: a name must never become one.
    """

    def __init__(
        self,
        command: Sequence[str],
        folder: Path,
        *,
        size: tuple[int, int] = (100, 24),
        **variables: str,
    ) -> None:
        self.fd, other_end = os.openpty()
        self.columns, self.rows = size
        self.raw = b""
        self._erase()
        self._set_size()
        self.mode = termios.tcgetattr(self.fd)
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**{"TERM": "xterm-256color", "LANG": "C.UTF-8"} | variables),
            stdin=other_end,
            stdout=other_end,
            stderr=subprocess.PIPE,
            text=True,
        )
        os.close(other_end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        with suppress(OSError):
            os.close(self.fd)

    @property
    def lines(self) -> list[str]:
        """Return the lines of the screen without the spaces behind them."""
        return [
            "".join(self._cells.get((row, column), " ") for column in range(self.columns)).rstrip()
            for row in range(self.rows)
        ]

    @property
    def is_within(self) -> bool:
        """Return whether all that was drawn since the last erasure lies within the window."""
        return all(row < self.rows and column < self.columns for row, column in self._cells)

    def press(self, keys: str) -> None:
        """Send keys."""
        os.write(self.fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """Change the size, as a terminal's window does."""
        self.columns, self.rows = columns, rows
        self._set_size()
        self.process.send_signal(signal.SIGWINCH)

    def close_window(self) -> None:
        """Take the terminal away."""
        os.close(self.fd)
        self.fd = -1

    def wait_for(self, check: Callable[[list[str]], bool]) -> list[str]:
        """Read until the lines of a whole frame pass `check`, and return them."""
        deadline = time.monotonic() + TIMEOUT
        while self._is_within_frame or not check(self.lines):
            left = deadline - time.monotonic()
            assert left > 0, "\n".join(self.lines)
            if select.select([self.fd], [], [], left)[0]:
                self._read()
        return self.lines

    def wait_until_ended(self) -> int:
        """Read to the end, and return the exit code."""
        deadline = time.monotonic() + TIMEOUT
        while self.process.poll() is None:
            assert time.monotonic() < deadline
            if select.select([self.fd], [], [], 0.05)[0]:
                with suppress(OSError):
                    self._read()
        return self.process.returncode

    def read_all(self) -> str:
        """Return all that a command writes. It must succeed."""
        with suppress(OSError):
            # Linux answers the end of a terminal with EIO.
            while True:
                self._read()
        assert self.process.wait(TIMEOUT) == 0
        return self.raw.decode().replace("\r\n", "\n")

    def _read(self) -> None:
        self.raw += os.read(self.fd, 65536)
        # The rest behind the last whole character and sequence stays for the next time.
        text = self.raw[self._used :].decode(errors="ignore")
        end = max(text.rfind("\x1b"), 0)
        if _CONTROL.match(text, end):
            end = len(text)
        for match in _CONTROL.finditer(text, 0, end):
            self._apply(match)
        self._used += len(text[:end].encode())

    def _apply(self, match: "re.Match[str]") -> None:
        row, column, parameters, letter, character = match.groups()
        if row:
            self._cursor = (int(row) - 1, int(column) - 1)
        elif letter == "J":
            self._cells.clear()
        elif letter == "K":
            for each in [cell for cell in self._cells if cell[0] == self._cursor[0]]:
                del self._cells[each]
        elif parameters == _SYNCHRONIZED:
            self._is_within_frame = letter == "h"
        elif letter:
            assert letter == "m" or parameters.startswith("?"), match.group()
        else:
            assert character.isprintable() or character in "\r\n", repr(character)
            y, x = self._cursor
            self._cells[y, x] = character
            self._cursor = (y, x + 1)

    def _erase(self) -> None:
        self._cells: dict[tuple[int, int], str] = {}
        self._cursor = (0, 0)
        self._used = 0
        self._is_within_frame = False

    def _set_size(self) -> None:
        size = struct.pack("HHHH", self.rows, self.columns, 0, 0)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, size)
