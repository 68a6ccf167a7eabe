"""The views of all connections: which there are, and how many connections use each."""

import re
from collections import Counter
from collections.abc import Mapping

from server.gateway.refusals import Refusal, Refused
from server.quotes.compact import CompactView
from server.quotes.view import FIELDS, FORMS, JSON, Form, JsonView, View

MAX_VIEWS = 16
"""Different selections of fields in use at a time. Each costs one encoding of each update."""

SUBPROTOCOLS: dict[str, Form] = {f"quotestream.v1.{form}": form for form in FORMS}
"""The forms by the subprotocol that names them."""

JSON_ONLY: dict[str, Form] = {"quotestream.v1.json": "json"}
"""The subprotocol of publishers."""

BEARER = "bearer."
"""The beginning of a subprotocol that is a token. A browser cannot send `Authorization`."""

_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A subprotocol (RFC 6455 §4.1, RFC 9110 §5.6.2). The server does not answer with other text."""


class Views:
    """Owned by the gateway. Connections with equal wishes share one view, and so its frames.

    `by_form` has the number of connections of each form.
    """

    def __init__(self) -> None:
        self.by_form: Counter[Form] = Counter()
        self._views: dict[tuple[Form, tuple[str, ...] | None], View] = {}
        self._uses: Counter[View] = Counter()

    def take(self, form: Form, fields: tuple[str, ...] | None) -> View:
        """Return the view for one more connection. Errors: Refusal if there are too many selections."""
        selections = {each for _, each in self._views} - {None}
        if fields is not None and fields not in selections and len(selections) >= MAX_VIEWS:
            raise Refusal(
                Refused.TOO_MANY_VIEWS,
                f"the server already sends {MAX_VIEWS} other selections of fields",
            )
        view = self._views.get((form, fields)) or _view(form, fields)
        self._views[form, fields] = view
        self._uses[view] += 1
        self.by_form[form] += 1
        return view

    def release(self, view: View) -> None:
        """Count one connection less. Nothing is kept of a view without connections."""
        self.by_form[view.form] -= 1
        self._uses[view] -= 1
        if not self._uses[view]:
            del self._uses[view], self._views[view.form, view.fields]


def _view(form: Form, fields: tuple[str, ...] | None) -> View:
    if form != "json":
        return CompactView(form, fields)
    return JSON if fields is None else JsonView(fields)


def chosen_form(
    given: str | None, offered: str, subprotocols: Mapping[str, Form] = SUBPROTOCOLS
) -> tuple[Form, str | None]:
    """Return the form of a connection, and the subprotocol that the answer names (RFC 6455 §4.2.2).

    A browser closes a connection that does not name one of those that it offered. So the answer
    names the token, and JSON is spoken, if the client offers a token and no form.

    Arguments:
        given: the parameter `format`.
        offered: the header `Sec-WebSocket-Protocol`. Others than `subprotocols` are ignored.

    Errors: ValueError if `given` is not a form, or only other forms are offered.
    """
    names = _names(offered)
    known = [name for name in names if name in subprotocols]
    token = next((name for name in names if _is_token(name)), None)
    if given is None:
        return (subprotocols[known[0]], known[0]) if known else ("json", token)
    form = next((each for each in FORMS if each == given), None)
    if form is None:
        raise ValueError(f"a form is one of {', '.join(FORMS)}")
    if not known:
        return form, token
    subprotocol = next((name for name in known if subprotocols[name] == form), None)
    if subprotocol is None:
        raise ValueError(f"{form} is not among the subprotocols: {', '.join(known)}")
    return form, subprotocol


def named_if_refused(offered: str) -> str | None:
    """Return the subprotocol that the upgrade of a refused request names, so that a browser takes it.

    It is a form, or else any that is not a token, or else the token.
    """
    names = [name for name in _names(offered) if _NAME.fullmatch(name)]
    return min(names, key=lambda name: (name not in SUBPROTOCOLS, _is_token(name)), default=None)


def offered_token(offered: str) -> str | None:
    """Return the token among the subprotocols; None without one."""
    return next((name[len(BEARER) :] for name in _names(offered) if name.startswith(BEARER)), None)


def _names(offered: str) -> list[str]:
    """Return the subprotocols in a header `Sec-WebSocket-Protocol`."""
    return [name for each in offered.split(",") if (name := each.strip())]


def _is_token(name: str) -> bool:
    return name.startswith(BEARER) and _NAME.fullmatch(name) is not None


def parse_fields(text: str) -> tuple[str, ...]:
    """Parse the parameter `fields`; the order is FIELDS'. Empty parts do not count.

    Errors: ValueError.
    """
    names = {name.strip() for name in text.split(",")} - {""}
    if not names or names - set(FIELDS):
        raise ValueError(f"the fields are {', '.join(FIELDS)}")
    return tuple(field for field in FIELDS if field in names)
