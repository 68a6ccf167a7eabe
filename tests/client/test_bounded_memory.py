"""A server that sends more than any market has: the client leaves it, and its memory stays bounded."""

import json
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from quotestream import core as core_module
from quotestream.changes import MAX_REMOVED, Changes
from quotestream.core import SPARE_SYMBOLS, Core
from quotestream.decoder import MAX_VALUES
from quotestream.document import MAX_FIELDS, MAX_VALUE, Document
from quotestream.errors import BadMessage
from tests.client.following import FULL, message

MIB = 1024 * 1024

MOST_MEMORY = 64 * MIB
"""Bytes for what a few messages of 1 MiB leave and need."""


def opened(*symbols: str, form: str = "json") -> Core:
    """Return a core with a connection."""
    core = Core(symbols)
    core.target("ws://server/ws/quotes")
    core.opened(f"quotestream.v1.{form}", 0.0)
    return core


def receive(core: Core, value: Any) -> None:
    """Give a message to the core. Errors: BadMessage."""
    text = value if isinstance(value, str) else json.dumps(value)
    assert len(text) <= MIB
    for _ in core.receive(text, 0.0):
        pass


def patch(*operations: Any, **versions: int) -> dict[str, Any]:
    """Return a `quotes_patch`."""
    return {"type": "quotes_patch", "ts": 1, "versions": versions, "operations": [*operations]}


def added(symbol: str) -> dict[str, Any]:
    """Return the operation that adds a quote."""
    return {"op": "add", "path": f"/quotes/{symbol}", "value": {"price": 1}}


def copies() -> Iterator[Any]:
    """Yield operations each of which doubles a quote."""
    for number in range(10_000):
        yield {"op": "copy", "from": "/quotes/A", "path": f"/quotes/A/x{number}"}


FIELDS = {f"f{number}": number for number in range(MAX_FIELDS + 1)}

BOMBS: dict[str, list[Any]] = {
    "copies into itself": [message(1, FULL), patch(*copies(), A=2)],
    "copies of quotes": [
        message(1, FULL),
        patch(*({"op": "copy", "from": "/quotes/A", "path": f"/quotes/{n}"} for n in range(9))),
    ],
    "copies of all": [patch({"op": "copy", "from": "/quotes", "path": "/quotes/A"})],
    "copies from outside": [message(1, FULL), patch({"op": "copy", "from": "", "path": "/quotes/A"})],
    "moves into itself": [patch({"op": "move", "from": "/quotes/A", "path": "/quotes/A/x"})],
    "moves out": [message(1, FULL), patch({"op": "move", "from": "/quotes/A", "path": "/A"})],
    "many fields": [patch({"op": "add", "path": "/quotes/A", "value": FIELDS}, A=1)],
    "one field after another": [
        message(1, FULL),
        patch(*({"op": "add", "path": f"/quotes/A/{name}", "value": 1} for name in FIELDS), A=2),
    ],
    "a field below a field": [
        message(1, FULL | {"value": {"x": {}}}),
        patch({"op": "add", "path": "/quotes/A/x/y", "value": 1}, A=2),
    ],
    "a long text": [patch({"op": "add", "path": "/quotes/A", "value": {"x": "x" * MAX_VALUE}}, A=1)],
    "a long list": [
        message(1, FULL),
        patch({"op": "replace", "path": "/quotes/A/current_price", "value": [1] * MAX_VALUE}, A=2),
    ],
    "unknown symbols": [
        patch(
            *(
                {"op": "add", "path": f"/quotes/N{number}", "value": {}}
                for number in range(SPARE_SYMBOLS + 2)
            ),
            **{f"N{number}": 1 for number in range(SPARE_SYMBOLS + 2)},
        )
    ],
    "versions without quotes": [patch(**{f"N{number}": 1 for number in range(50_000)})],
    "unknown markets": [
        {
            "type": "status", "status": "halted", "reason": "x",
            "symbols": [f"N{number}" for number in range(50_000)],
        }
    ],
}  # fmt: skip


@pytest.mark.parametrize("messages", BOMBS.values(), ids=BOMBS)
def test_what_no_server_sends_is_refused(messages):
    """The last message ends the connection. The client keeps and asks for its own symbols only."""
    core = opened("A")
    for each in messages[:-1]:
        receive(core, each)
    tracemalloc.start()
    try:
        with pytest.raises(BadMessage):
            receive(core, messages[-1])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
    core.broken("")
    assert core.target("ws://server").startswith("ws://server?symbols=A")
    assert len(core.document.versions) <= 1


def test_rows_of_few_bytes_do_not_fill_the_memory():
    """In the compact form each row of a full quote has all fields of the schema."""
    core = opened("*", form="compact")
    fields = 10_000
    receive(core, {"type": "schema", "fields": [f"f{number}" for number in range(fields)]})
    rows = [[f"N{number}", 1, 0] for number in range(MAX_VALUES // fields + 1)]
    with pytest.raises(BadMessage, match="51 quotes of 10000 fields"):
        receive(core, ["s", "e", 1, rows])


def test_all_symbols_may_be_many(monkeypatch):
    """A client that asks for `*` does not know their number, but it has a limit, too."""
    monkeypatch.setattr(core_module, "MOST_SYMBOLS", 2 * SPARE_SYMBOLS)
    core = opened("*")
    for number in range(2 * SPARE_SYMBOLS):
        receive(core, message(1, FULL, f"N{number}"))
    assert len(core.document.quotes) == 2 * SPARE_SYMBOLS
    with pytest.raises(BadMessage):
        receive(core, message(1, FULL, "ANOTHER"))


def test_symbols_given_up_count_until_they_are_gone():
    """A client that gives up more symbols than it may hold besides still gets their changes."""
    names = [f"N{number}" for number in range(2 * SPARE_SYMBOLS)]
    core = opened(*names)
    for name in names:
        receive(core, message(1, FULL, name))
    core.unsubscribe(names)
    receive(core, message(2, FULL, names[0]))
    assert len(core.document.quotes) == len(names)


@pytest.mark.parametrize("has_quotes", [True, False], ids=["removed", "without quotes"])
@pytest.mark.parametrize("everything", [True, False], ids=["all", "names"])
def test_markets_of_symbols_given_up_do_not_count(has_quotes, everything):
    """A client that gave up many closed symbols still gets the state of those that it holds."""
    names = [f"N{number}" for number in range(2 * SPARE_SYMBOLS)]
    asked = ["*"] if everything else names
    core = opened(*asked)
    closed = {"type": "status", "status": "closed", "reason": "night"}
    if has_quotes:
        receive(core, patch(*map(added, names), **dict.fromkeys(names, 1)))
    receive(core, closed | {"symbols": names})
    core.unsubscribe(asked)
    core.subscribe(names[:1])
    if has_quotes:
        removals = [{"op": "remove", "path": f"/quotes/{name}"} for name in names[1:]]
        receive(core, patch(*removals, **dict.fromkeys(names[1:], 2)))
    receive(core, {"type": "ack", "action": "unsubscribe", "symbols": asked})
    receive(core, closed | {"symbols": names[:1]})
    assert [*core.markets] == names[:1]


def test_too_many_symbols_are_counted_before_they_go():
    """The error tells how many symbols the server sent."""
    core = opened("A")
    names = [f"N{number}" for number in range(2 * SPARE_SYMBOLS)]
    with pytest.raises(BadMessage, match=f"{len(names)} symbols, and the client asked for 1"):
        receive(core, patch(*map(added, names), **dict.fromkeys(names, 1)))


def test_removed_symbols_do_not_pile_up():
    """The application does not iterate, and symbols come and go."""
    document = Document()
    changes = Changes(document)
    for number in range(2 * MAX_REMOVED):
        symbol = f"N{number}"
        document.apply(json.loads(message(1, FULL, symbol)))
        changes.note([symbol])
        document.apply(json.loads(message(1, {"op": "remove", "path": "/quotes/A"}, symbol)))
        changes.note([symbol])
    assert not changes.quotes
    assert len(changes._waiting) == MAX_REMOVED
