"""Tells the state of a followed connection: live, stale, reconnecting, and whether all came."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from server.client.figures import clean

CLOCKS_DIFFER = 0.5
"""Seconds by which the server's time may lie ahead of ours before we call it a difference."""

SMOOTHING = 0.2
"""The share of the newest latency in the one that is shown, so that the figure can be read."""

REFUSAL_SHOWN = 15.0
"""Seconds for which the server's last error message is shown."""


class Connection:
    """The state of a connection, from the messages that its listener gets.

    The times that its methods take are in seconds since 1970, as the server's.
    """

    def __init__(self) -> None:
        self._state = "connecting"
        self._has_status = False
        self._problem = ""
        self._retry_at = 0.0
        self._refused = ""
        self._refused_at = 0.0
        self._versions: dict[str, int] = {}
        self._missed: set[str] = set()
        self._refetched = 0
        self._sent_at = 0.0
        self._latency: float | None = None

    @property
    def is_live(self) -> bool:
        """Return whether quotes are coming."""
        return self._state == "live"

    def take(self, message: Mapping[str, Any], now: float) -> None:
        """Take in one message."""
        kind = message["type"]
        if kind == "connected":
            self._state = "connected, no quotes yet"
        elif kind == "quotes_patch":
            self._begin()
            self._check(message)
            # The oldest change that is not on the screen: it is the one that is late. A full quote may
            # have had its time long ago.
            if message.get("ts") and "epoch" not in message and not self._sent_at:
                self._sent_at = message["ts"] / 1_000_000
        elif "recovered" in message:
            self._begin()
            results = Counter(message["recovered"].values())
            self._refetched += results["quote"]
        elif kind == "connection":
            self._state, self._has_status = "reconnecting", False
            self._problem = clean(message["problem"])
            self._retry_at = now + message["retry_in"]
        elif kind == "status" and "symbols" not in message:
            status, reason = clean(message["status"]), clean(message["reason"])
            self._state = status if status == "live" else f"{status}: {reason}"
            self._has_status = True
        elif kind == "error":
            self.refuse(message["message"], message.get("symbols", ()), now)

    def refuse(self, problem: str, symbols: Sequence[str], now: float) -> None:
        """Show a refusal for a while."""
        named = f": {', '.join(symbols)}" if symbols else ""
        self._refused, self._refused_at = clean(f"{problem}{named}"), now

    def restart(self, state: str) -> None:
        """Begin anew in `state`, with other symbols."""
        self._state, self._has_status = state, False
        self._versions.clear()
        self._missed.clear()

    def shown(self, now: float) -> None:
        """Note that all messages so far are on the screen."""
        if self._sent_at:
            latency = now - self._sent_at
            before = latency if self._latency is None else self._latency
            self._latency = before + SMOOTHING * (latency - before)
            self._sent_at = 0.0

    def words(self, now: float | None) -> list[tuple[str, str]]:
        """Return the parts of the state and their styles, the most important first. `now` is None
        without a clock: then nothing depends on the time.
        """
        parts = [self._state_word(now)]
        if self._refused and (now is None or now - self._refused_at < REFUSAL_SHOWN):
            parts.append((f"({self._refused})", "yellow"))
        if now is None:
            return parts
        if self._missed:
            parts.append((f"asking again for {len(self._missed)}", "yellow"))
        elif self._versions and self.is_live:
            refetched = f", {self._refetched} fetched again" if self._refetched else ""
            parts.append((f"nothing missed{refetched}", ""))
        if self._latency is not None and self.is_live:
            parts.append((_latency_text(self._latency), ""))
        return parts

    def _begin(self) -> None:
        """Note that a connection gives quotes. They also come while the server says `stale`, or while
        the market is closed.
        """
        if not self._has_status:
            self._state = "live"

    def _state_word(self, now: float | None) -> tuple[str, str]:
        if self._state == "reconnecting":
            left = max(0.0, self._retry_at - (self._retry_at if now is None else now))
            wait = f"reconnecting in {left:.0f} s" if left >= 0.5 else "reconnecting"
            return f"✕ {wait}: {self._problem}", "bold red"
        if self._state == "live":
            return ("live" if now is None else "● live"), "bold green"
        return f"◌ {self._state}", "bold yellow"

    def _check(self, message: Mapping[str, Any]) -> None:
        """Note the symbols of which a version was missed, until their full quote comes."""
        versions = message["versions"]
        operations = message.get("operations", ())
        if operations and all(each["op"] != "replace" for each in operations):
            self._missed.difference_update(versions)
        else:
            since = message.get("since", {})
            for symbol, version in versions.items():
                held = self._versions.get(symbol)
                if held is not None and since.get(symbol, version - 1) > held:
                    self._missed.add(symbol)
                    self._refetched += 1
        self._versions.update(versions)


def _latency_text(seconds: float) -> str:
    if seconds < -CLOCKS_DIFFER:
        return f"the server's clock is {-seconds:.1f} s ahead"
    return f"{max(0.0, seconds) * 1000:.0f} ms behind"
