"""Every form and selection over a real socket: the handshake, the order, the rules, the bytes."""

import signal
from contextlib import ExitStack, suppress
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from server.gateway.views import parse_fields
from tests.forms import FORMS, FormDocument, selected
from tests.gateway.form_client import FormClient
from tests.gateway.wire import new_user, refusal
from tests.processes import TIMEOUT, ServerProcess, eventually, make_token

PRICE = "current_price"

MOST_BYTES = {("json", PRICE): 180, ("compact", ""): 70, ("msgpack", ""): 48}
"""Bytes of a change with the frame's header, by form and selection."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("fields", ["", PRICE, "volume,change,name", "symbol,last_updated"])
def test_every_form_gives_the_same_quotes(server, form, fields):
    """After each version a client has what a JSON client has after it, in the selected fields."""
    with FormClient(server, "json") as plain, FormClient(server, form, fields) as client:
        client.wait(12)
        plain.wait(16)
        both = plain.seen.keys() & client.seen.keys()
        assert len(both) >= 5
        for key in both:
            assert client.seen[key] == selected(plain.seen[key], fields), key


@pytest.mark.parametrize(("form", "fields"), MOST_BYTES)
def test_change_has_few_bytes(server, form, fields):
    """An ordinary change fits; a new high or low adds ten bytes to it."""
    with FormClient(server, form, fields) as client:
        client.wait(12)
        sizes = sorted(client.sizes)
        assert sizes[len(sizes) // 2] <= MOST_BYTES[form, fields]


@pytest.mark.parametrize("form", ["compact", "msgpack"])
def test_schema_comes_first(server, form):
    """It names the fields that are sent, and those that a client computes unless it selects some."""
    with FormClient(server, form) as client:
        message = client.receive()
        assert message["type"] == "schema"
        assert message["derived"] == ["change", "change_percent"]
        assert message["fields"][:2] == ["current_price", "volume"]
        assert not {"symbol", *message["derived"]} & set(message["fields"])
        client.receive()
        assert len(client.quotes["AAPL"]) == 19
    with FormClient(server, form, "change,volume,change") as client:
        assert client.receive() == {"type": "schema", "fields": ["volume", "change"]}


@pytest.mark.parametrize("form", FORMS)
def test_commands_and_answers(server, form):
    """Each command works in each form, answers are objects, and a quote goes with its symbol."""
    with FormClient(server, form, symbols="MSFT") as client:
        client.send(action="subscribe", symbols=["AAPL", "NOPE"], id="x")
        first = client.answer()
        assert first == {"type": "ack", "action": "subscribe", "symbols": ["AAPL"], "id": "x"}
        error = client.answer()
        assert (error["code"], error["id"], error["symbols"]) == ("unknown_symbol", "x", ["NOPE"])
        client.wait(2)
        client.send(action="resync", symbols=["AAPL"], id=2)
        assert client.answer()["id"] == 2
        client.send(action="throttle", interval=0.25)
        assert client.answer()["interval"] == 0.25
        client.send(action="throttle", interval=0)
        assert client.answer()["interval"] == 0
        client.send(action="fly", id=7)
        error = client.answer()
        assert (error["code"], error["id"]) == ("bad_command", 7)
        client.send(action="unsubscribe", symbols=["AAPL"])
        assert client.answer()["action"] == "unsubscribe"
        client.send(action="ping", id=9)
        assert client.answer()["id"] == 9
        assert client.quotes.keys() == {"MSFT"}


def test_messages_of_the_other_kind_end_the_connection(server):
    """MessagePack is binary both ways, and the other forms are text both ways: else 1003."""
    for form in FORMS:
        with FormClient(server, form) as client:
            wrong: Any = b"\x80" if form != "msgpack" else '{"action":"ping"}'
            client.connection.send(wrong)
            with suppress(ConnectionClosed):
                while True:
                    client.connection.recv(TIMEOUT)
            assert client.connection.close_code == 1003


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", b"\x81", b"\x01\x01", b"\xa1\xff", b"\x91" * 9000, b"\xdd\xff\xff"]
)
def test_bytes_that_are_not_messagepack(server, payload):
    """They are refused with `bad_json`, and the connection goes on."""
    with FormClient(server, "msgpack") as client:
        client.connection.send(payload)
        assert client.answer()["code"] == "bad_json"
        client.send(action="ping", id=1)
        assert client.answer()["id"] == 1


@pytest.mark.parametrize("interval", [float("nan"), float("inf"), -float("inf")])
def test_numbers_that_json_does_not_have(server, interval):
    """They are not durations."""
    with FormClient(server, "msgpack") as client:
        client.send(action="throttle", interval=interval, id=1)
        answer = client.answer()
    assert (answer["type"], answer.get("code"), answer["id"]) == ("error", "bad_command", 1)


@pytest.mark.parametrize(
    ("query", "offered", "form"),
    [
        ("", "quotestream.v1.compact", "compact"),
        ("", "other, quotestream.v1.msgpack, quotestream.v1.json", "msgpack"),
        ("&format=compact", "quotestream.v1.json, quotestream.v1.compact", "compact"),
        ("&format=compact", "other", "compact"),
        ("&format=json", None, "json"),
        ("", "other", "json"),
    ],
)
def test_form_by_subprotocol_or_parameter(server, query, offered, form):
    """The first known subprotocol counts. The answer names it, and only if it was offered."""
    offers = [each.strip() for each in offered.split(",")] if offered else None
    url = server.url(f"AAPL{query}", make_token(new_user()))
    document = FormDocument(form)
    with connect(url, subprotocols=offers, open_timeout=TIMEOUT) as connection:
        chosen = f"quotestream.v1.{form}"
        assert connection.subprotocol == (chosen if chosen in (offers or []) else None)
        for _ in range(2):
            data = connection.recv(TIMEOUT)
            is_text = isinstance(data, str)
            document.read(1 if is_text else 2, data.encode() if isinstance(data, str) else data)
        assert "AAPL" in document.quotes


@pytest.mark.parametrize(
    ("query", "offered"),
    [
        ("&format=xml", None),
        ("&format=", None),
        ("&format=JSON", None),
        ("&format=json", ["quotestream.v1.compact"]),
        ("&fields=", None),
        ("&fields=,", None),
        ("&fields=price", None),
        ("&fields=volume,price", None),
    ],
)
def test_refused_forms_and_fields(server, query, offered):
    """An unknown form, two different ones, and unknown or no fields are refused."""
    url = server.url(f"AAPL{query}", make_token(new_user()))
    answer = refusal(url, subprotocols=offered)
    assert answer.verdict == (400, "bad_request")
    if "fields" in query:
        assert "current_price, volume" in answer.error["message"]


@pytest.mark.parametrize("fields", ["volume,", ",volume", "volume,,volume", " ,volume"])
def test_empty_parts_of_fields_do_not_count(fields):
    """As with `symbols`."""
    assert parse_fields(fields) == ("volume",)


def test_selections_are_limited(server):
    """The seventeenth is refused, equal ones count once, and a place is free again at the end."""
    names = ("volume", "change", "high", "low", "bid", "ask", "name", "open")
    sets = [f"{name},{other}" for name in (PRICE, "market_cap") for other in names] + ["currency"]
    assert len(sets) == 17
    with ExitStack() as clients:
        for number, each in enumerate(sets[:16]):
            clients.enter_context(FormClient(server, FORMS[number % 3], each))
        reordered = ",".join(reversed(sets[1].split(",")))
        clients.enter_context(FormClient(server, "compact", reordered))
        last = f"AAPL&fields={sets[16]}"
        answer = refusal(server.url(last, make_token(new_user())))
        assert answer.verdict == (400, "too_many_views")
        clients.enter_context(FormClient(server, "compact"))
    url = server.url(last, make_token(new_user()))
    eventually(lambda: is_accepted(url))


def is_accepted(url: str) -> bool:
    """Return whether a connection is not refused."""
    with suppress(InvalidStatus), connect(url, open_timeout=TIMEOUT):
        return True
    return False


def test_resume_in_every_form(server):
    """A client that comes back gets what it missed, and its versions prove that."""
    for form in FORMS:
        for fields in ("", PRICE, "bid,ask"):
            changes = 0 if fields == "bid,ask" else 2
            with FormClient(server, form, fields) as before:
                while before.changes < changes or not before.quotes:
                    before.receive()
            with FormClient(server, form, fields, resume=before.position()) as client:
                client.go_on_from(before)
                while not client.control:
                    client.receive()
                assert client.control[0]["recovered"]["AAPL"] in ("current", "patches")
                client.wait(changes)


@pytest.mark.parametrize("form", FORMS)
def test_stop_is_told_in_every_form(tmp_path, form):
    """A client is told to come back, and which market is quiet, in its own form."""
    quiet = {"QUOTE_QUIET_AFTER": "1s", "PRICE_UPDATE_INTERVAL": "1h"}
    with ServerProcess(tmp_path, **quiet) as server, FormClient(server, form) as client:
        while not client.control:
            client.receive()
        assert client.control[0]["type"] == "status"
        server.process.send_signal(signal.SIGTERM)
        with suppress(ConnectionClosed):
            while True:
                client.receive()
        assert client.control[-1]["type"] == "reconnect"
        assert client.connection.close_code == 1001


@pytest.mark.parametrize(("offered", "chosen"), [("compact", None), ("msgpack, json", "json")])
def test_publishers_speak_json(tmp_path, offered, chosen):
    """A publisher's connection has the form of JSON only, and ignores other offers."""
    with ServerProcess(tmp_path, FEED="push") as server:
        token = make_token(new_user(), role="publisher")
        url = server.url(token=token).replace("/ws/quotes", "/ws/prices")
        offers: Any = [f"quotestream.v1.{name}" for name in offered.split(", ")]
        with connect(url, subprotocols=offers, open_timeout=TIMEOUT) as connection:
            expected = f"quotestream.v1.{chosen}" if chosen else None
            assert connection.subprotocol == expected
            connection.send('{"symbol":"AAPL","price":175.92}')
            assert '"accepted":1' in str(connection.recv(TIMEOUT))
