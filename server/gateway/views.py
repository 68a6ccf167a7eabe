"""The views of all connections: which there are, and how many connections use each."""

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

    A browser closes a connection that does not name one of those that it offered.

    Arguments:
        given: the parameter `format`.
        offered: the header `Sec-WebSocket-Protocol`. Others than `subprotocols` are ignored.

    Errors: ValueError if `given` is not a form, or only other forms are offered.
    """
    known = [name for each in offered.split(",") if (name := each.strip()) in subprotocols]
    if given is None:
        return (subprotocols[known[0]], known[0]) if known else ("json", None)
    form = next((each for each in FORMS if each == given), None)
    if form is None:
        raise ValueError(f"a form is one of {', '.join(FORMS)}")
    subprotocol = next((name for name in known if subprotocols[name] == form), None)
    if known and subprotocol is None:
        raise ValueError(f"{form} is not among the subprotocols: {', '.join(known)}")
    return form, subprotocol


def parse_fields(text: str) -> tuple[str, ...]:
    """Parse the parameter `fields`; the order is FIELDS'. Errors: ValueError."""
    names = {name.strip() for name in text.split(",")}
    if names - set(FIELDS):
        raise ValueError(f"the fields are {', '.join(FIELDS)}")
    return tuple(field for field in FIELDS if field in names)
