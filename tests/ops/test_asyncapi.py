"""The streaming port's description is good AsyncAPI, and says what real connections send."""

import json
import signal
from typing import Any

import msgspec
import pytest
from jsonschema_rs import Draft7Validator, Draft202012Validator
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.gateway.wire import RawClient, head, new_user
from tests.npm import packed_file
from tests.processes import TIMEOUT, ServerProcess, make_token

PACKAGE = "@asyncapi/specs@6.11.1"

SCHEMA = "package/schemas/3.0.0-without-$id.json"

FORMS = ("json", "compact", "msgpack")

ARRAYS = {"s": "full_quotes", "u": "quote_changes", "d": "quotes_removed"}
"""The messages that are arrays, by their first element."""

MOST_MESSAGES = 1000

COMMANDS: list[tuple[str, dict[str, Any]]] = [
    ("ping", {"action": "ping", "id": "a"}),
    ("subscribe", {"action": "subscribe", "symbols": ["MSFT", "NOSUCH"], "id": 1}),
    ("resync", {"action": "resync", "symbols": ["AAPL"]}),
    ("throttle", {"action": "throttle", "interval": "100ms"}),
    ("auth", {"action": "auth", "token": "wrong"}),
    ("subscribe_bars", {"action": "subscribe", "bars": ["AAPL"], "timeframe": "1m"}),
    ("unsubscribe_bars", {"action": "unsubscribe", "bars": ["AAPL"], "timeframe": "1m"}),
    ("unsubscribe", {"action": "unsubscribe", "symbols": ["MSFT"]}),
]
"""One of each command, with its name in the description."""


class Description:
    """The document of a server."""

    def __init__(self, server: ServerProcess) -> None:
        status, text = server.get("/asyncapi.json")
        assert status == 200
        self.document = json.loads(text)

    def problems(self, name: str, value: Any) -> list[str]:
        """Return what is wrong with a message, by its name in the description."""
        message = self.document["components"]["messages"][name]
        schema = message["payload"] | {"components": self.document["components"]}
        return [str(each) for each in Draft202012Validator(schema).iter_errors(value)]

    def named(self, channel: str, action: str) -> set[str]:
        """Return the names of a channel's messages."""
        operation = self.document["operations"][f"{action}_{channel}"]
        return {each["$ref"].rpartition("/")[2] for each in operation["messages"]}


@pytest.fixture(scope="module")
def specification(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return AsyncAPI's own JSON schema, from npm."""
    return json.loads(packed_file(PACKAGE, SCHEMA, tmp_path_factory.mktemp("npm")))


def test_document_is_good_asyncapi(server, specification):
    """The specification's JSON schema accepts it."""
    document = Description(server).document
    assert document["asyncapi"] == "3.0.0"
    assert [str(each) for each in Draft7Validator(specification).iter_errors(document)] == []


def references(part: Any) -> list[str]:
    """Return all references below a part of a document."""
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [each for value in part.values() for each in references(value)]
    return [each for value in part for each in references(value)] if isinstance(part, list) else []


def test_references_and_texts_are_there(server):
    """Each reference leads to something, and each message says what it is for."""
    document = Description(server).document
    for reference in references(document):
        found = document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    for message in document["components"]["messages"].values():
        assert message["summary"].endswith(".")
    port = document["servers"]["streaming"]["variables"]["port"]["default"]
    assert port == str(server.address[1])


def name_of(message: Any) -> str:
    """Return a message's name in the description."""
    if isinstance(message, list):
        return "quotes_renamed" if len(message) == 3 and message[0] == "d" else ARRAYS[message[0]]
    return str(message["type"])


@pytest.mark.parametrize("fields", ["", "&fields=current_price,last_updated,change"])
@pytest.mark.parametrize("form", FORMS)
def test_each_message_of_a_connection_is_described(tmp_path, form, fields):
    """A client sends one of each command, and the server stops. Everything fits its schema."""
    with ServerProcess(tmp_path, PRICE_UPDATE_INTERVAL="50ms") as server:
        described = Description(server)
        ending = "_msgpack" if form == "msgpack" else ""
        url = server.url(f"AAPL,TSLA&format={form}{fields}", make_token(new_user()))
        codec: Any = msgspec.msgpack if form == "msgpack" else msgspec.json
        seen: set[str] = set()

        def receive(client):
            message = codec.decode(client.recv(timeout=TIMEOUT))
            name = name_of(message)
            assert name + ending in described.named("quotes", "send")
            assert described.problems(name + ending, message) == []
            seen.add(name)

        def receive_until(client, *names):
            # Prices come twenty times a second, so this is some seconds at most.
            for _ in range(MOST_MESSAGES):
                if seen.issuperset(names):
                    return
                receive(client)
            raise AssertionError(f"{names} did not all come, but {seen}")

        with connect(url, open_timeout=TIMEOUT) as client:
            for name, command in COMMANDS:
                assert name + ending in described.named("quotes", "receive")
                assert described.problems(name + ending, command) == []
                payload = codec.encode(command)
                client.send(payload if form == "msgpack" else payload.decode())
                if name == "subscribe_bars":
                    receive_until(client, "bar")
            client.send(b"\xc1" if form == "msgpack" else "{")
            changed = (
                ["quotes_patch"] if form == "json" else ["schema", "full_quotes", "quotes_removed"]
            )
            receive_until(client, "ack", "error", "pong", *changed)
            server.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                receive_until(client, "never")
        assert closed.value.rcvd is not None
        close = {"code": closed.value.rcvd.code, "reason": closed.value.rcvd.reason}
        assert close in described.document["channels"]["quotes"]["x-close-codes"]
    assert "reconnect" in seen


def test_every_close_code_is_described(server):
    """Also the one of a client's own close, which the server sends back."""
    for channel in Description(server).document["channels"].values():
        codes = {each["code"] for each in channel["x-close-codes"]}
        assert codes == {1000, 1001, 1002, 1003, 1007, 1008, 1009, 4401, 4408, 4429}
        refusals = {each["close"] for each in channel["x-refusals"] if "close" in each}
        assert refusals == {4400, 4401, 4403, 4409, 4429, 4503}


def test_wrong_messages_do_not_fit(server):
    """The schemas would notice another type, a missing field, and an unknown code."""
    described = Description(server)
    for name, wrong in (
        ("ack", {"type": "error", "action": "ping", "symbols": []}),
        ("pong", {"type": "pong", "ts": "now"}),
        ("error", {"type": "error", "code": "nonsense", "message": ""}),
        ("full_quotes", ["u", "1", 2, []]),
        ("subscribe", {"action": "subscribe", "symbols": []}),
        ("quotes_patch", {"type": "quotes_patch", "ts": 1, "versions": {}, "operations": [{}]}),
    ):
        assert described.problems(name, wrong)


def test_publisher_s_messages_are_described(tmp_path):
    """A publisher sends an object and a list, and gets an acknowledgement."""
    with ServerProcess(tmp_path, FEED="push") as server:
        described = Description(server)
        token = make_token("press", role="publisher")
        url = server.url(None, token).replace("/ws/quotes", "/ws/prices")
        one = {"symbol": "AAPL", "price": 175.92, "size": 100, "seq": 12, "id": "t-991"}
        with connect(url, open_timeout=TIMEOUT) as client:
            for batch in (one, [one, {"kind": "status", "symbol": "AAPL", "status": "halted"}, {}]):
                if batch is one:
                    assert described.problems("prices", batch) == []
                client.send(json.dumps(batch))
                answer = json.loads(client.recv(timeout=TIMEOUT))
                assert described.problems("prices_ack", answer) == []
        assert described.named("prices", "send") >= {"prices_ack", "error", "reconnect"}


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("symbols=AAPL&token=x", "unauthorized"),
        ("symbols=NOSUCH", "no_valid_symbols"),
        ("format=xml", "bad_request"),
        ("fields=nonsense", "bad_request"),
        ("interval=soon", "bad_request"),
        ("resume=nonsense", "bad_request"),
    ],
)
def test_refusals_and_parameters_are_described(server, query, code):
    """Each parameter that the server checks is described, and so is the refusal of a bad value."""
    channel = Description(server).document["channels"]["quotes"]
    parameters = channel["bindings"]["ws"]["query"]["properties"]
    assert {part.partition("=")[0] for part in query.split("&")} <= set(parameters)
    token = "" if "token" in query else f"&token={make_token(new_user())}"
    with RawClient(server, head(f"/ws/quotes?{query}{token}")) as client:
        status, found = client.answer().verdict
    assert found == code
    refusals = {(each["status"], each["code"]) for each in channel["x-refusals"]}
    assert (status, code) in refusals
    assert {f"quotestream.v1.{form}" for form in FORMS} == set(channel["x-subprotocols"])
