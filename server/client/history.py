"""Asks a server's `GET /bars` page by page, for the command line."""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from itertools import chain
from math import isfinite
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit
from zoneinfo import ZoneInfo

from server.reconnecting import LONGEST_ASKED, readable, retry_after

TIMEOUT = 30.0
"""Seconds for one answer. The server ends a page after two."""

ATTEMPTS = 6
"""Times that a page is asked for, if the server or its store is away or busy."""

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0
"""Seconds between two attempts: doubled each time, or longer if the server says so."""

MAX_BODY = 16 * 1024 * 1024
"""Bytes of an answer. A page of 10,000 bars has a tenth of that."""

NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
"""A number, as JSON writes it."""

UNAVAILABLE = "Unavailable-Symbols"

NOT_QUOTESTREAM = "the server does not answer as quotestream does"

UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
"""The errors of reading an answer that is not one of quotestream."""

COLUMNS = ("t", "o", "h", "l", "c", "v", "n", "vw", "final", "rev")
"""The fields of a bar, as the server sends them."""

NUMBERS = [name for name in COLUMNS if name not in ("t", "final")]

Bar = Mapping[str, Any]
"""One bar, its numbers as text, exactly as the server sent them."""


class HistoryRefused(Exception):
    """The server does not give the bars. The message is one line."""


class _Away(Exception):
    """Perhaps the next attempt succeeds, after `wait` seconds."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


class Page(NamedTuple):
    """The bars of one page by symbol, and the token of the next page, empty on the last."""

    bars: Mapping[str, Sequence[Bar]]
    next_page_token: str


class HistoryClient:
    """Asks the HTTP port at `url`, such as `http://127.0.0.1:8081`, for one user."""

    def __init__(
        self,
        url: str,
        token: str,
        tell: Callable[[str], None] = lambda _: None,
        patience: float = LONGEST_ASKED,
    ) -> None:
        """
        Arguments:
            tell: gets one line before each wait for the next attempt.
            patience: seconds to wait at most if the server asks for it. A longer wait is a refusal.
        """
        self._url = urlsplit(url)
        self._tell = tell
        self._patience = patience
        self._headers = {"Authorization": f"Bearer {token}"}

    def pages(self, parameters: Mapping[str, str]) -> Iterator[Page]:
        """Return page after page. Errors: HistoryRefused."""
        token = ""
        while True:
            more = {"page_token": token} if token else {}
            page = self._page({**parameters, **more})
            yield page
            if not page.next_page_token:
                return
            if page.next_page_token == token:
                raise HistoryRefused(
                    "the server gives the same page again, so the bars are incomplete"
                )
            token = page.next_page_token

    def exists(self, symbol: str) -> bool:
        """Return whether there is such an instrument. Errors: HistoryRefused."""
        response, _ = self._ask(f"/instruments/{quote(symbol, safe='')}", missing=404)
        return response.status != 404

    def zone(self, symbol: str) -> str:
        """Return the time zone in which the server's days begin, `UTC` if it does not say."""
        try:
            _, body = self._ask_once(f"/udf/symbols?symbol={quote(symbol, safe='')}", missing=200)
            name = json.loads(body)["timezone"]
            return str(ZoneInfo(name))
        except (HistoryRefused, _Away, OSError, *UNREADABLE):
            return "UTC"

    def _page(self, parameters: Mapping[str, str]) -> Page:
        given = {name: value for name, value in parameters.items() if value}
        response, body = self._ask(f"/bars?{urlencode(given)}")
        if left_out := response.headers.get(UNAVAILABLE):
            raise HistoryRefused(f"the server's store gives no answer about {readable(left_out)}")
        try:
            # Numbers stay as they were sent: a float would show 1e-05 for 0.00001.
            page = json.loads(body, parse_float=str, parse_int=str)
            _check(page)
            return Page({**page["bars"]}, page["next_page_token"] or "")
        except UNREADABLE:
            raise HistoryRefused(f"{response.status} {NOT_QUOTESTREAM}") from None

    def _ask(self, path: str, missing: int = 0) -> tuple[HTTPResponse, bytes]:
        wait = FIRST_WAIT
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._ask_once(path, missing)
            except _Away as away:
                asked = min(away.wait, LONGEST_ASKED)
                if attempt == ATTEMPTS or asked > self._patience:
                    raise HistoryRefused(str(away)) from None
                pause = max(wait, asked)
                self._tell(f"{away}; asking again in {_seconds(pause)} s")
                time.sleep(pause)
                wait = min(wait * 2, LONGEST_WAIT)
        raise AssertionError("the loop returns or raises")

    def _ask_once(self, path: str, missing: int) -> tuple[HTTPResponse, bytes]:
        kind = HTTPSConnection if self._url.scheme == "https" else HTTPConnection
        connection = kind(self._url.hostname or "", self._url.port, timeout=TIMEOUT)
        try:
            connection.request("GET", self._url.path.rstrip("/") + path, headers=self._headers)
            # Otherwise an answer that was not read to its end holds the socket.
            with connection.getresponse() as response:
                body = response.read(MAX_BODY + 1)
        except (OSError, HTTPException) as error:
            raise _Away(_problem(error)) from None
        finally:
            connection.close()
        if len(body) > MAX_BODY:
            raise HistoryRefused(f"an answer of more than {MAX_BODY} bytes")
        # A read with a limit gives what came of a body that was cut off, without an error.
        if response.length:
            raise _Away("the answer breaks off")
        if response.status in (200, missing):
            return response, body
        problem = f"{response.status} {_message(body)}"
        if response.status in (429, 503):
            raise _Away(problem, retry_after(response.headers.get("Retry-After", "")))
        raise HistoryRefused(problem)


def _check(page: Any) -> None:
    """Check a page's values, which a terminal gets as they are. Errors: one of UNREADABLE."""
    good = isinstance(page["next_page_token"], str | None) and "".join(page["bars"]).isprintable()
    for bar in chain.from_iterable(page["bars"].values()):
        opening, final, *numbers = (bar[name] for name in ("t", "final", *NUMBERS))
        good = good and isinstance(final, bool) and bar["c"] is not None
        good = good and datetime.fromisoformat(opening).tzinfo is not None
        # Any character may stand between the date and the time.
        good = good and opening.isprintable()
        good = good and all(each is None or _is_number(each) for each in numbers)
    if not good:
        raise ValueError("a page of other types")


def _is_number(text: str) -> bool:
    """Return whether `text` is a number that a float can hold: JSON has numbers of any size."""
    return NUMBER.fullmatch(text) is not None and isfinite(float(text))


def _seconds(pause: float) -> str:
    """Return a wait as a plain number: whole seconds if it is long."""
    return f"{pause:.0f}" if pause >= 100 else f"{pause:.3g}"


def _message(body: bytes) -> str:
    """Return the message of an error's body."""
    try:
        error = json.loads(body)["error"]
        return readable(f"{error['code']}: {error['message']}")
    except UNREADABLE:
        return NOT_QUOTESTREAM


def _problem(error: Exception) -> str:
    """Return the reason of a failed request in one line, without the error's number."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
