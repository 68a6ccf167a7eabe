"""Each command: its effect and its answer."""

import json
from copy import deepcopy
from typing import Any

import pytest

from tests.gateway.wire import TEXT, Client, RawClient, frame, paths
from tests.processes import eventually

LIMIT = 20
"""Symbols of one connection to the shared server."""

SYMBOLS = ["AAPL", "MSFT", "BRK.B"]

MANY = "AAPL,MSFT,BRK.B,SPY,QQQ,VTI,IWM,EFA,GLD,TLT,VNQ,XLF,XLK,IBM,BAC,MMM,ABT,ABBV,AIG,GE"
"""The most symbols that one connection may have."""


def test_subscribing_is_acknowledged_then_brings_the_quotes_at_once(server):
    """All new symbols come in one message, in the order of the command, in any spelling."""
    with Client(server) as client:
        answer = client.ask("subscribe", symbols=["aapl", " Msft", "brk.b", "AAPL"], id=1)
        assert answer == {"type": "ack", "action": "subscribe", "symbols": SYMBOLS, "id": 1}
        message = client.receive()
        assert paths(message, "add") == [f"/quotes/{symbol}" for symbol in SYMBOLS]
        assert set(message["versions"]) == set(SYMBOLS)
        assert [operation["value"]["symbol"] for operation in message["operations"]] == SYMBOLS
        assert set(client.move()["versions"]) < set(SYMBOLS)


def test_subscribing_twice_is_harmless(server):
    """A second `subscribe` is acknowledged and brings no quotes. A symbol counts once."""
    with Client(server, "AAPL") as client:
        client.receive()
        assert client.ask("subscribe", symbols=["AAPL"], id=1)["symbols"] == ["AAPL"]
        assert client.ask("subscribe", symbols=["AAPL", "MSFT"], id=2)["symbols"] == [
            "AAPL",
            "MSFT",
        ]
        assert paths(client.answer(), "add") == ["/quotes/MSFT"]
        assert client.is_answered()
        seen = [next(iter(client.move()["versions"])) for _ in range(10)]
        assert set(seen) <= {"AAPL", "MSFT"}


def test_unknown_symbols_are_refused_by_name(server):
    """A command with unknown symbols only is refused, and nothing else comes."""
    with Client(server) as client:
        answer = client.ask("subscribe", symbols=["nope", "é"], id="x")
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "unknown_symbol", "x")
        assert answer["symbols"] == ["NOPE", "É"]
        assert client.is_answered()


@pytest.mark.parametrize("symbol", ["", " "])
def test_a_symbol_without_a_name_is_refused_as_such(server, symbol):
    """An empty name is a symbol that does not exist, alone and beside others."""
    with Client(server) as client:
        answer = client.ask("subscribe", symbols=[symbol])
        assert (answer["code"], answer["symbols"]) == ("unknown_symbol", [""])
        assert client.ask("subscribe", symbols=["AAPL", symbol])["type"] == "ack"
        client.answer()
        assert client.answer()["symbols"] == [""]


@pytest.mark.parametrize(
    ("action", "code"),
    [
        ("subscribe", "unknown_symbol"),
        ("resync", "not_subscribed"),
        ("unsubscribe", "not_subscribed"),
    ],
)
def test_unknown_symbols_beside_everything_are_refused_by_name(server, action, code):
    """`*` is carried out, and the names that do not exist are refused."""
    with Client(server, "AAPL") as client:
        client.receive()
        answer = client.ask(action, symbols=["nope", "*", "AAPL"], id=1)
        assert (answer["type"], answer["symbols"]) == ("ack", ["*"])
        client.answer()
        answer = client.answer()
        assert (answer["type"], answer["code"], answer["id"]) == ("error", code, 1)
        assert answer["symbols"] == ["NOPE"]


def test_some_unknown_symbols_do_not_hinder_the_others(server):
    """The known part of a command is carried out and the unknown part refused, both with its id."""
    with Client(server) as client:
        answer = client.ask("subscribe", symbols=["NOPE", "AAPL"], id=7)
        assert answer == {"type": "ack", "action": "subscribe", "symbols": ["AAPL"], "id": 7}
        assert paths(client.answer(), "add") == ["/quotes/AAPL"]
        answer = client.answer()
        assert (answer["code"], answer["symbols"], answer["id"]) == ("unknown_symbol", ["NOPE"], 7)


def test_more_symbols_than_the_limit_are_refused_as_a_whole(server):
    """A command that would exceed the limit changes nothing. One that fits is carried out."""
    with Client(server, "*") as everything:
        everything.receive()
        symbols = list(everything.quotes)
    with Client(server, "AAPL") as client:
        client.receive()
        others = [symbol for symbol in symbols if symbol != "AAPL"]
        answer = client.ask("subscribe", symbols=others[:LIMIT], id=1)
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "too_many_symbols", 1)
        assert client.ask("subscribe", symbols=["AAPL", *others[: LIMIT - 1]])["type"] == "ack"
        assert len(paths(client.answer(), "add")) == LIMIT - 1
        assert client.ask("subscribe", symbols=[others[LIMIT]])["code"] == "too_many_symbols"
        assert client.ask("unsubscribe", symbols=["AAPL"])["type"] == "ack"
        client.answer()
        assert client.ask("subscribe", symbols=[others[LIMIT]])["type"] == "ack"


def test_unsubscribing_removes_the_quotes(server):
    """After the acknowledgement the quotes are removed, and no more updates come."""
    with Client(server, ",".join(SYMBOLS)) as client:
        client.receive()
        answer = client.ask("unsubscribe", symbols=["msft", "AAPL"], id=2)
        assert answer["type"] == "ack"
        assert (answer["symbols"], answer["id"]) == (["MSFT", "AAPL"], 2)
        message = client.answer()
        assert paths(message, "remove") == ["/quotes/MSFT", "/quotes/AAPL"]
        assert message["versions"].keys() == {"MSFT", "AAPL"}
        assert {symbol for _ in range(5) for symbol in client.move()["versions"]} == {"BRK.B"}
        assert set(client.quotes) == {"BRK.B"}


@pytest.mark.parametrize("action", ["unsubscribe", "resync"])
def test_only_subscribed_symbols_can_be_given_up_or_resent(server, action):
    """Symbols that are not subscribed are named in `not_subscribed`. The others are carried out."""
    with Client(server, "AAPL") as client:
        client.receive()
        answer = client.ask(action, symbols=["MSFT", "NOPE"], id=1)
        assert (answer["type"], answer["code"], answer["id"]) == ("error", "not_subscribed", 1)
        assert set(answer["symbols"]) == {"MSFT", "NOPE"}
        answer = client.ask(action, symbols=["MSFT", "AAPL"], id=2)
        assert (answer["type"], answer["symbols"], answer["id"]) == ("ack", ["AAPL"], 2)
        assert client.answer()["type"] == "quotes_patch"
        answer = client.answer()
        assert (answer["code"], answer["symbols"], answer["id"]) == ("not_subscribed", ["MSFT"], 2)


def test_resync_sends_full_quotes_again(server):
    """A client that lost its document gets whole quotes, then goes on from their versions."""
    with Client(server, ",".join(SYMBOLS)) as client:
        client.receive()
        client.document = {"quotes": {}}
        client.connection.send('{"action":"resync","symbols":["BRK.B","AAPL","MSFT"],"id":3}')
        while json.loads(client.connection.recv())["type"] != "ack":
            pass
        assert paths(client.receive(), "add") == ["/quotes/BRK.B", "/quotes/AAPL", "/quotes/MSFT"]
        assert client.move()["type"] == "quotes_patch"


def test_everything_starts_and_ends_as_a_whole(server):
    """`*` takes the place of single subscriptions, and none of them can be ended alone."""
    # The last test's clients may still be counted.
    eventually(lambda: server.metric("market_data_subscriptions") == 0)
    with Client(server, "AAPL") as client:
        client.receive()
        answer = client.ask("subscribe", symbols=["MSFT", "*"], id=1)
        assert (answer["type"], answer["symbols"], answer["id"]) == ("ack", ["*"], 1)
        assert len(paths(client.answer(), "add")) > 500
        assert client.ask("subscribe", symbols=["MSFT"])["type"] == "ack"
        answer = client.ask("unsubscribe", symbols=["MSFT", "NOPE"])
        assert (answer["code"], answer["symbols"]) == ("not_subscribed", ["MSFT", "NOPE"])
        answer = client.ask("unsubscribe", symbols=["*"], id=2)
        assert (answer["type"], answer["symbols"], answer["id"]) == ("ack", ["*"], 2)
        assert client.answer()["type"] == "quotes_patch"
        assert client.quotes == {}
        assert client.is_answered()
        assert server.metric("market_data_subscriptions") == 0
        assert client.ask("subscribe", symbols=["MSFT"])["type"] == "ack"
        assert paths(client.receive(), "add") == ["/quotes/MSFT"]


def test_everything_can_end_single_subscriptions(server):
    """In `unsubscribe` and `resync`, `*` stands for all that is subscribed."""
    with Client(server, "AAPL,MSFT") as client:
        client.receive()
        assert client.ask("resync", symbols=["*"])["type"] == "ack"
        assert set(paths(client.receive(), "add")) == {"/quotes/AAPL", "/quotes/MSFT"}
        assert client.ask("unsubscribe", symbols=["*"])["type"] == "ack"
        assert set(paths(client.receive(), "remove")) == {"/quotes/AAPL", "/quotes/MSFT"}
        assert client.quotes == {}
        answer = client.ask("unsubscribe", symbols=["*"])
        assert (answer["code"], answer["symbols"]) == ("not_subscribed", ["*"])


def test_commands_sent_at_once_are_answered_in_order(server):
    """Thirty commands in one write get their answers one after the other."""
    commands = [
        {"action": ("subscribe", "unsubscribe", "ping")[number % 3], "symbols": ["AAPL"]}
        for number in range(30)
    ]
    with RawClient(server) as client:
        texts = [json.dumps({**command, "id": number}) for number, command in enumerate(commands)]
        client.send(*(frame(TEXT, text.encode()) for text in texts))
        answers: list[tuple[int, str]] = []
        while len(answers) < 30:
            message = client.read_message()
            if "id" in message:
                answers.append((message["id"], message["type"]))
    kinds = ("ack", "ack", "pong")
    assert answers == [(number, kinds[number % 3]) for number in range(30)]


def test_too_many_commands_are_refused_each(throttled):
    """Beyond the burst every command is refused with its id, and none is carried out."""
    with Client(throttled) as client:
        for number in range(8):
            client.send("subscribe", symbols=["AAPL"], id=number)
        refused: list[dict[str, Any]] = []
        while not refused or refused[-1]["id"] < 7:
            if (answer := client.answer())["type"] == "error":
                refused.append(answer)
    assert {answer["code"] for answer in refused} == {"rate_limited"}
    assert len(refused) >= 5
    assert [answer["id"] for answer in refused] == list(range(8 - len(refused), 8))


def test_commands_are_counted_by_result(server):
    """The metrics count commands by name and result."""
    samples = [
        'market_data_commands_total{action="ping",result="ok"}',
        'market_data_commands_total{action="subscribe",result="unknown_symbol"}',
    ]
    before = [server.metric(sample) for sample in samples]
    with Client(server) as client:
        client.ask("ping")
        client.ask("subscribe", symbols=["NOPE"])
    eventually(
        lambda: [server.metric(sample) for sample in samples] == [count + 1 for count in before]
    )


def test_documents_stay_right(server):
    """After many moves, subscriptions and their ends, the client's quotes are the server's."""
    with Client(server, MANY) as client:
        client.receive()
        for _ in range(3):
            for _ in range(50):
                client.receive()
            client.send("unsubscribe", symbols=SYMBOLS)
            client.send("subscribe", symbols=SYMBOLS)
        client.send("resync", symbols=["*"], id="end")
        while client.receive().get("id") != "end":
            pass
        kept = deepcopy(client.quotes)
        assert len(paths(client.receive(), "add")) == len(kept) == LIMIT
        assert kept == client.quotes
        assert any(quote["volume"] > 0 for quote in kept.values())


def test_prices_are_whole_cents(server):
    """No price has more digits than its instrument's tick, and the change is their difference."""
    with Client(server, MANY) as client:
        client.receive()
        for _ in range(50):
            for operation in client.move()["operations"]:
                if operation["path"].endswith(("/current_price", "/change")):
                    assert operation["value"] == round(operation["value"], 2)
            for quote in client.quotes.values():
                assert quote["change"] == round(quote["current_price"] - quote["base_price"], 2)
