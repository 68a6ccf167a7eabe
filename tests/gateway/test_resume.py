"""A client that comes back over a real socket is told what it gets, and gets what it missed."""

import json
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket_url
from websockets.sync.client import connect

from server.fanout.history import HISTORY_UPDATES
from tests.gateway.wire import Client, is_move, new_user, refusal
from tests.processes import TIMEOUT, ServerProcess, make_token


def resuming(position: str, symbols: str = "AAPL,MSFT") -> str:
    """Return the query behind `symbols` of a client that comes back."""
    return f"{symbols}&resume={position}"


def moves_of(client: Client, symbol: str, count: int) -> list[dict[str, Any]]:
    """Return the next messages about `symbol`."""
    found: list[dict[str, Any]] = []
    while len(found) < count:
        message = client.receive()
        if symbol in message.get("versions", {}):
            found.append(message)
    return found


@pytest.fixture(scope="module")
def quiet(tmp_path_factory):
    """A server whose prices do not move during the tests."""
    with ServerProcess(tmp_path_factory.mktemp("quiet"), PRICE_UPDATE_INTERVAL="1h") as process:
        yield process


def test_current_client_gets_nothing_but_the_answer(quiet):
    """A client with current quotes is told so, gets none, and the connection goes on."""
    with Client(quiet, "AAPL,MSFT") as client:
        epoch = client.receive()["epoch"]
        held = client.versions
    position = f"{epoch}:AAPL={held['AAPL']},MSFT={held['MSFT']}"
    with Client(quiet, resuming(position)) as client:
        answer = client.receive()
        assert answer == {
            "type": "ack",
            "action": "resume",
            "symbols": ["AAPL", "MSFT"],
            "recovered": {"AAPL": "current", "MSFT": "current"},
        }
        client.send("ping")
        assert client.receive()["type"] == "pong"


def test_what_is_not_known_comes_in_full(quiet):
    """New symbols, and versions of the future, come in one message after the answer."""
    with Client(quiet, "AAPL") as client:
        epoch = client.receive()["epoch"]
        version = client.versions["AAPL"]
    position = f"{epoch}:aapl={version},MSFT=99,GONE=1"
    with Client(quiet, resuming(position, "AAPL,MSFT,TSLA,GONE")) as client:
        recovered = client.receive()["recovered"]
        assert recovered == {"AAPL": "current", "MSFT": "quote", "TSLA": "quote"}
        message = client.receive()
        assert set(message["versions"]) == {"MSFT", "TSLA"}
        assert message["epoch"] == epoch
        assert client.receive()["symbols"] == ["GONE"]


def test_missed_patches_are_sent_again(server):
    """The client gets the texts that others got, in order, and then those that all get."""
    there = connect(server.url("AAPL", make_token(new_user())), max_queue=None, ping_interval=None)
    with Client(server, "AAPL") as away:
        epoch = away.receive()["epoch"]
        held = away.versions["AAPL"]
    texts: dict[int, str | bytes] = {}
    with there:
        while max(texts, default=0) < held + 5:
            text = there.recv(TIMEOUT)
            message = json.loads(text)
            if is_move(message):
                texts[message["versions"]["AAPL"]] = text
        url = server.url(resuming(f"{epoch}:AAPL={held}", "AAPL"), make_token(new_user()))
        with connect(url) as back:
            answer = json.loads(back.recv(TIMEOUT))
            assert answer["recovered"] == {"AAPL": "patches"}
            for version in range(held + 1, held + 6):
                assert back.recv(TIMEOUT) == texts[version]


def test_everything_is_resumed_as_well(quiet):
    """Each symbol of `*` has its result, and only quotes that the client lacks are sent."""
    with Client(quiet, "AAPL,MSFT") as client:
        epoch = client.receive()["epoch"]
        position = f"{epoch}:" + ",".join(f"{s}={v}" for s, v in client.versions.items())
    with Client(quiet, resuming(position, "*")) as client:
        answer = client.receive()
        assert answer["symbols"] == ["*"]
        kinds = answer["recovered"]
        assert {symbol for symbol, kind in kinds.items() if kind == "current"} == {"AAPL", "MSFT"}
        while len(client.quotes) < len(kinds) - 2:
            client.receive()
        assert set(client.quotes) == {symbol for symbol, kind in kinds.items() if kind == "quote"}
        assert len(kinds) > 500


def test_resumed_client_may_be_throttled(server):
    """The answers come first, then quotes, conflated as asked for."""
    with Client(server, "AAPL") as client:
        position = f"{client.receive()['epoch']}:AAPL={client.versions['AAPL']}"
    with Client(server, resuming(position, "AAPL") + "&interval=250ms") as client:
        assert client.receive()["action"] == "resume"
        assert client.receive()["interval"] == 0.25
        assert not is_move(client.receive())


def test_long_absence_is_one_full_quote(server):
    """Without the updates that the ring dropped, the client gets the full quote."""
    with Client(server, "AAPL") as client:
        position = f"{client.receive()['epoch']}:AAPL={client.versions['AAPL']}"
        moves_of(client, "AAPL", HISTORY_UPDATES + 1)
    with Client(server, resuming(position, "AAPL")) as client:
        assert client.receive()["recovered"] == {"AAPL": "quote"}
        assert "epoch" in client.receive()


@pytest.mark.parametrize("position", ["", "AAPL=1", ":AAPL=1", "7:AAPL", "7:AAPL=x", "7:AAPL=-1"])
def test_malformed_position_is_refused(server, position):
    """A position that cannot be read is a bad request, as any other parameter."""
    answer = refusal(server.url(resuming(position), make_token(new_user())))
    assert answer.verdict == (400, "bad_request")
    assert answer.error["message"].startswith("resume: ")


def test_restarted_server_is_another_epoch(tmp_path):
    """A position of the server before a restart brings all quotes."""
    with ServerProcess(tmp_path) as first, Client(first, "AAPL") as client:
        position = f"{client.receive()['epoch']}:AAPL={client.versions['AAPL']}"
    with ServerProcess(tmp_path) as second, Client(second, resuming(position, "AAPL")) as client:
        assert client.receive()["recovered"] == {"AAPL": "quote"}
        assert not position.startswith(client.receive()["epoch"])


async def test_trio_client_resumes(quiet):
    """websockets' client resumes as well."""
    with trio.fail_after(TIMEOUT):
        async with open_websocket_url(quiet.url("AAPL", make_token(new_user()))) as socket:
            message = json.loads(await socket.get_message())
        position = f"{message['epoch']}:AAPL={message['versions']['AAPL']}"
        url = quiet.url(resuming(position, "AAPL"), make_token(new_user()))
        async with open_websocket_url(url) as socket:
            answer = json.loads(await socket.get_message())
    assert answer["recovered"] == {"AAPL": "current"}


def test_resumed_symbols_are_counted(quiet):
    """The metrics tell an operator how clients are recovered."""
    before = quiet.metric('market_data_recovered_total{result="quote"}')
    with Client(quiet, resuming("other:AAPL=1")) as client:
        client.receive()
        assert quiet.metric('market_data_recovered_total{result="quote"}') == before + 2
