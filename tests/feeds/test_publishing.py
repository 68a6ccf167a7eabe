"""Publishing prices to a whole server: `FEED=push`, over HTTP and over WebSocket."""

import gzip
import json
import random
import threading
import time
from collections.abc import Iterator
from itertools import count
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.gateway.wire import Client
from tests.processes import TIMEOUT, ServerProcess, eventually, make_token
from tests.publisher import post, publisher_token, publishing, receive

NUMBERS = count(1)

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Start a server for publishers. Each test has a symbol of its own."""
    with ServerProcess(
        tmp_path_factory.mktemp("push"),
        FEED="push",
        PUSH_LISTS_SYMBOLS="1",
        PRICE_BAND="10%",
        SOURCE_PRIORITY="sip,iex",
        SOURCE_SILENT_AFTER="500ms",
        WS_HEALTH_CHECK_INTERVAL="100ms",
    ) as process:
        yield process


@pytest.fixture
def symbol() -> str:
    """Return a symbol that no other test uses."""
    return f"PUB{next(NUMBERS)}"


def quote(server: ServerProcess, symbol: str) -> tuple[int, dict[str, Any]]:
    """Return version and quote of a symbol."""
    _, (found,) = server.ask(f"/quotes?symbols={symbol}")
    return found["version"], found["quote"]


def test_answer_comes_when_the_price_is_out(server: ServerProcess, symbol: str) -> None:
    """A quote that is asked for right behind the answer has the price, also of a watched symbol."""
    post(server, {"symbol": symbol, "price": 100, "size": 1})
    with Client(server, symbol):
        for number in range(1, 21):
            answer = post(server, {"symbol": symbol, "price": 100 + number / 100, "size": 5})
            assert (answer.status, answer.body["state"]) == (200, "applied")
            version, found = quote(server, symbol)
            assert found["current_price"] == round(100 + number / 100, 2)
            assert found["volume"] == 1 + 5 * number
            assert version == 2 + number


def test_first_trade_of_a_symbol_is_exact(server: ServerProcess, symbol: str) -> None:
    """Its price keeps its decimals, and the objects behind it in the batch count, too."""
    batch: list[dict[str, Any]] = [
        {"symbol": symbol, "price": 0.00001234, "size": 1, "id": symbol},
        {"symbol": symbol, "kind": "quote", "bid": 0.00001233},
        {"symbol": symbol, "kind": "status", "status": "halted"},
        {"symbol": symbol, "kind": "correct", "id": symbol, "size": 3},
    ]
    assert post(server, batch).counts == (4, 0, 0, 0, [])
    found = quote(server, symbol)[1]
    assert (found["current_price"], found["volume"], found["bid"]) == (1.234e-5, 3, 1.233e-5)


def test_lines_and_arrays_count_alike(server: ServerProcess, symbol: str) -> None:
    """Good lines count though others fail, and each bad one is named by its line."""
    lines = [
        json.dumps({"symbol": symbol, "price": 10, "size": 1, "seq": 1}),
        "nonsense",
        json.dumps({"symbol": symbol, "price": -5}),
        "",
        json.dumps({"symbol": symbol, "price": 10.5, "size": 2, "seq": 2}),
    ]
    answer = post(server, "\n".join(lines).encode())
    assert answer.counts == (2, 0, 0, 0, ["bad_json", "bad_price"])
    assert [each["line"] for each in answer.body["rejected"]] == [2, 3]
    again = post(server, [json.loads(lines[0]), json.loads(lines[4]), 5])  # type: ignore[list-item]  # 5 is wrong
    assert again.counts == (0, 2, 0, 0, ["bad_json"])
    assert quote(server, symbol)[1]["volume"] == 3
    server.await_event("published objects rejected")


def test_same_object_counts_once_whichever_way_it_comes(server: ServerProcess, symbol: str) -> None:
    """A sequence number of a source and epoch, and an id, are known on both ports."""
    trade = {"symbol": symbol, "price": 10, "size": 1, "seq": 1, "id": "t-1"}
    assert post(server, trade, Source="a", Source_Epoch="7").counts[:2] == (1, 0)
    with publishing(server, source="a", source_epoch="7") as publisher:
        publisher.send(json.dumps({**trade, "id": "t-2"}))
        assert receive(publisher)["duplicate"] == 1
        publisher.send(json.dumps([{**trade, "seq": 2}, {**trade, "seq": 3, "id": "t-3"}]))
        answer = receive(publisher)
        assert (answer["accepted"], answer["duplicate"]) == (1, 2)
    assert post(server, {**trade, "id": "t-4"}, Source="a", Source_Epoch="8").counts[0] == 1


def test_two_publishers_of_one_source_give_what_one_pass_gives(
    server: ServerProcess, symbol: str
) -> None:
    """Both send everything, in any order and twice, each its own way; a client misses no version."""
    chance = random.Random(symbol)
    start = time.time_ns() // 1000 - 10**6
    objects: list[dict[str, Any]] = [
        {
            "symbol": symbol,
            "price": round(100 + chance.random(), 2),
            "size": chance.randrange(1, 100),
            "ts": start + number // 2,
            "seq": number,
            "id": f"t{number}",
        }
        for number in range(300)
    ]
    post(server, objects[0], Source="both")

    def shuffled() -> list[list[dict[str, Any]]]:
        mixed = [*objects, *objects]
        chance.shuffle(mixed)
        return [mixed[at : at + 20] for at in range(0, len(mixed), 20)]

    def send_over_http() -> None:
        for batch in shuffled():
            assert post(server, batch, Source="both").status == 200

    with Client(server, symbol) as client, publishing(server, source="both") as publisher:
        other = threading.Thread(target=send_over_http)
        other.start()
        batches = shuffled()
        for batch in batches:
            publisher.send(json.dumps(batch))
        while receive(publisher)["frames"] < len(batches):
            pass
        other.join()
        while client.versions.get(symbol) != 1 + len(objects):
            client.receive()
        version, found = quote(server, symbol)
        assert client.quotes[symbol] == found
    prices = [each["price"] for each in objects]
    assert version == 1 + len(objects)
    assert found["volume"] == sum(each["size"] for each in objects)
    assert (found["open"], found["current_price"]) == (prices[0], prices[-1])
    assert (found["high"], found["low"]) == (max(prices), min(prices))


def test_repeated_key_gets_the_first_answer(server: ServerProcess, symbol: str) -> None:
    """The batch counts once, whatever it holds. Keys are each user's own."""
    trade = {"symbol": symbol, "price": 10, "size": 1}
    first = post(server, [trade, {}], Idempotency_Key="k1")
    assert post(server, trade, Idempotency_Key="k1").body == first.body
    other = make_token("other", role="publisher")
    assert post(server, trade, other, Idempotency_Key="k1").counts[0] == 1
    assert quote(server, symbol)[1]["volume"] == 2


def test_outlier_is_held_and_confirmed(server: ServerProcess, symbol: str) -> None:
    """It is counted in metrics and health, and moves the price once three more agree."""
    post(server, {"symbol": symbol, "price": 100, "size": 1})
    far = {"symbol": symbol, "price": 150, "size": 1}
    assert post(server, [far] * 3).counts == (0, 0, 0, 3, [])
    assert quote(server, symbol)[1]["current_price"] == 100
    assert server.metric("market_data_held_trades") == 3
    eventually(lambda: "3 trades held" in publishing_health(server))
    assert post(server, far).counts == (1, 0, 0, 0, [])
    assert quote(server, symbol)[1]["volume"] == 5


def publishing_health(server: ServerProcess) -> str:
    """Return what `/health` says of publishing."""
    _, report = server.ask("/health", role="admin")
    return str(report["components"].get("publishing", {}).get("detail", ""))


def test_next_source_has_the_price_while_the_first_is_silent(
    server: ServerProcess, symbol: str
) -> None:
    """The first one has it again when it is back."""
    post(server, {"symbol": symbol, "price": 100}, Source="sip")
    assert post(server, {"symbol": symbol, "price": 101}, Source="iex").body["outranked"] == 1
    assert quote(server, symbol)[1]["current_price"] == 100
    eventually(
        lambda: "outranked" not in post(server, {"symbol": symbol, "price": 102}, Source="iex").body
    )
    assert quote(server, symbol)[1]["current_price"] == 102
    post(server, {"symbol": symbol, "price": 103}, Source="sip")
    assert quote(server, symbol)[1]["current_price"] == 103
    assert server.metric('market_data_published_total{result="accepted",source="sip"}') >= 2
    assert server.metric('market_data_source_silence_seconds{source="sip"}') > 0


def test_revised_trade_is_a_new_version(server: ServerProcess, symbol: str) -> None:
    """Subscribers get price, volume, high and low as they would have been."""
    post(server, {"symbol": symbol, "price": 100, "size": 1})
    with Client(server, symbol) as client:
        client.receive()
        post(server, {"symbol": symbol, "price": 105, "size": 2, "id": "x"})
        client.move()
        post(server, {"kind": "cancel", "symbol": symbol, "id": "x"})
        client.move()
        found = client.quotes[symbol]
        assert (found["current_price"], found["volume"], found["high"]) == (100, 1, 100)
    assert post(server, {"kind": "cancel", "symbol": symbol, "id": "y"}).counts[4] == [
        "unknown_trade"
    ]


def test_status_reaches_present_and_later_subscribers(server: ServerProcess, symbol: str) -> None:
    """It comes behind the prices before it, and ends when the market opens."""
    post(server, {"symbol": symbol, "price": 100})
    halt = {"kind": "status", "symbol": symbol, "status": "halted", "reason": "LUDP"}
    halted = {"type": "status", "status": "halted", "reason": "LUDP", "symbols": [symbol]}
    with Client(server, symbol) as client, Client(server, "*") as everything:
        client.receive()
        post(server, [{"symbol": symbol, "price": 101}, halt, halt])
        client.move()
        assert client.receive() == halted
        while everything.receive() != halted:
            pass
        with Client(server, symbol) as late:
            assert late.receive()["type"] == "quotes_patch"
            assert late.receive() == halted
        post(server, {**halt, "status": "open", "reason": ""})
        assert client.receive()["status"] == "open"
        with Client(server, symbol) as later:
            later.receive()
            assert later.is_answered()


def test_roles_are_checked(server: ServerProcess, symbol: str) -> None:
    """Without a token 401, with another role 403, also in a handshake; a claim limits the symbols."""
    assert (post(server, b"[]", "").status, post(server, b"[]", "x").status) == (401, 401)
    for role in ("user", "admin"):
        refused = post(server, b"[]", make_token(role=role))
        assert (refused.status, refused.code) == (403, "forbidden")
        with pytest.raises(InvalidStatus) as error, publishing(server, make_token(role=role)):
            pass
        assert error.value.response.status_code == 403
    limited = publisher_token(symbols=["PUB*", "aapl"])
    assert post(server, {"symbol": symbol, "price": 1}, limited).counts[0] == 1
    assert post(server, {"symbol": "AAPL", "price": 139.52}, limited).counts[0] == 1
    assert post(server, {"symbol": "MSFT", "price": 1}, limited).counts[4] == ["not_allowed"]
    assert post(server, b"[]", publisher_token(symbols="AAPL")).status == 401


def test_bodies_are_bounded(server: ServerProcess, symbol: str) -> None:
    """A body of one MiB is read, a larger one is not, and compression hides neither."""
    line = json.dumps({"symbol": symbol, "price": 5, "size": 1}).encode() + b"\n"
    full = line * (MIB // len(line))
    gzipped = {"Content_Encoding": "gzip"}
    assert post(server, full).counts[0] == MIB // len(line)
    assert post(server, gzip.compress(full), **gzipped).counts[0] == MIB // len(line)
    assert post(server, b" " * (MIB + 1)).code == "too_large"
    assert post(server, gzip.compress(b" " * (MIB + 1)), **gzipped).code == "too_large"
    assert post(server, gzip.compress(bytes(100 * MIB)), **gzipped).code == "too_large"
    assert post(server, gzip.compress(line) * 2, **gzipped).counts[0] == 2
    assert post(server, gzip.compress(full)[:-9], **gzipped).code == "bad_request"
    assert post(server, b"junk", **gzipped).code == "bad_request"
    assert post(server, gzip.compress(b"") * 1000, **gzipped).code == "bad_request"
    assert post(server, line, Content_Encoding="br").status == 415
    assert quote(server, symbol)[1]["volume"] == 2 * (MIB // len(line)) + 2


def test_acknowledgements_are_cumulative(server: ServerProcess, symbol: str) -> None:
    """The last one counts all frames of a connection, and each rejection comes once, by frame."""
    with publishing(server) as publisher:
        for number in range(200):
            bad = number % 50 == 0
            publisher.send(json.dumps({"symbol": symbol, "price": -1 if bad else 5, "size": 1}))
        rejected: list[dict[str, Any]] = []
        answer: dict[str, Any] = {"frames": 0}
        while answer["frames"] < 200:
            answer = receive(publisher)
            rejected += answer["rejected"]
    assert (answer["type"], answer["accepted"]) == ("ack", 196)
    assert [each["frame"] for each in rejected] == [1, 51, 101, 151]
    assert quote(server, symbol)[1]["volume"] == 196


def test_frames_that_are_no_text_or_too_large_end_the_connection(server: ServerProcess) -> None:
    """With the codes of the streaming port."""
    for content, code in ((b"binary", 1003), ("x" * (MIB + 1), 1009)):
        with publishing(server) as publisher:
            publisher.send(content)
            with pytest.raises(ConnectionClosed):
                publisher.recv(TIMEOUT)
            assert publisher.protocol.close_rcvd is not None
            assert publisher.protocol.close_rcvd.code == code


def test_server_without_publishers_has_no_way_in(tmp_path) -> None:
    """With another feed, both paths are not found. The path of prices is not found over HTTP either."""
    with ServerProcess(tmp_path) as server:
        answer = post(server, b"[]")
        assert answer.status == 404
        assert "FEED=push" in answer.body["error"]["message"]
        with pytest.raises(InvalidStatus) as error, publishing(server):
            pass
        assert error.value.response.status_code == 404
        assert b"FEED=push" in error.value.response.body


def test_old_trade_does_not_move_a_saved_price_back(tmp_path) -> None:
    """After a restart a trade older than the saved price counts for the volume only."""
    now = time.time_ns() // 1000
    trade = {"symbol": "AAPL", "price": 170, "size": 1, "ts": now, "seq": 2}
    with ServerProcess(tmp_path, FEED="push") as server:
        assert post(server, trade).counts[0] == 1
        server.stop()
    old = {**trade, "price": 100, "ts": now - 1, "seq": 1}
    with ServerProcess(tmp_path, FEED="push") as server:
        assert post(server, old).counts == (0, 0, 1, 0, [])
        found = quote(server, "AAPL")[1]
        assert (found["current_price"], found["volume"], found["low"]) == (170, 2, 100)


def test_simulated_symbols_move_beside_published_ones(tmp_path) -> None:
    """Only the named symbols are simulated, and a symbol without any source is called quiet."""
    variables = {"FEED": "push+simulator:TEST1,MSFT", "PRICE_UPDATE_INTERVAL": "50ms"}
    with (
        ServerProcess(tmp_path, QUOTE_QUIET_AFTER="1s", **variables) as server,
        Client(server, "TEST1,MSFT,AAPL,AMZN") as client,
    ):
        client.receive()
        moved, quiet = set[str](), set[str]()
        while not (moved >= {"TEST1", "MSFT"} and quiet >= {"AAPL", "AMZN"}):
            message = client.receive()
            moved |= set(message.get("versions", ()))
            quiet |= set(message["symbols"]) if message["type"] == "status" else set()
        assert moved == {"TEST1", "MSFT"}
        assert quiet == {"AAPL", "AMZN"}
        post(server, {"symbol": "AAPL", "price": 175.92})
        while "AAPL" not in moved:
            moved |= set(client.receive().get("versions", ()))
        assert client.quotes["AAPL"]["current_price"] == 175.92
