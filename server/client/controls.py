"""Turns the user's keys into changes of the screen and of the followed symbols."""

from server.client.keys import Key
from server.client.panel import SPANS
from server.client.subscription import Subscription
from server.client.table import Screen

LONGEST_SYMBOL = 64
"""Characters that the user can type for a symbol."""


class Controls:
    """Carries out keys, one at a time."""

    def __init__(self, screen: Screen, subscription: Subscription) -> None:
        self._screen = screen
        self._subscription = subscription

    @property
    def is_typing(self) -> bool:
        """Return whether letters are text."""
        return self._screen.typed is not None

    def press(self, key: Key | str) -> bool:
        """Carry out one key. Return whether the user wants to quit."""
        if key is Key.QUIT:
            return True
        if self._screen.typed is not None:
            self._type(key, self._screen.typed)
        elif isinstance(key, Key):
            self._act(key)
        self._screen.changed.set()
        return False

    def _type(self, key: Key | str, typed: str) -> None:
        screen = self._screen
        if isinstance(key, str):
            screen.typed = (typed + key.upper()).strip()[:LONGEST_SYMBOL]
        elif key is Key.BACKSPACE:
            screen.typed = typed[:-1]
        elif key in (Key.ENTER, Key.ESCAPE):
            screen.typed = None
            if key is Key.ENTER:
                for symbol in filter(None, typed.split(",")):
                    self._subscription.add(symbol)

    def _act(self, key: Key) -> None:
        screen = self._screen
        if key is Key.ADD:
            screen.typed = ""
        elif key is Key.REMOVE:
            self._remove()
        elif key in (Key.SORT, Key.SORT_BACK):
            screen.sorting.step(screen.columns, 1 if key is Key.SORT else -1)
        elif key is Key.REVERSE:
            screen.sorting.reverse()
        elif key is Key.PAUSE:
            self._pause()
        elif key in (Key.CHART, Key.ENTER):
            screen.is_charted, screen.is_helping = not screen.is_charted, False
        elif key is Key.SPAN:
            screen.span = SPANS[(SPANS.index(screen.span) + 1) % len(SPANS)]
        elif key is Key.HELP:
            screen.is_helping = not screen.is_helping
        elif key is Key.ESCAPE:
            screen.is_charted = screen.is_helping = False
        else:
            screen.cursor.move(key)

    def _remove(self) -> None:
        symbol = self._screen.cursor.chosen
        if symbol:
            self._screen.cursor.leave()
            self._subscription.remove(symbol)

    def _pause(self) -> None:
        if self._screen.market.is_paused:
            self._screen.market.go_on()
        else:
            self._screen.market.pause(self._screen.now)
