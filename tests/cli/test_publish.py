"""`quotestream publish`: a file, a pipe, mistakes in it, and a server that goes away meanwhile."""

import json
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.server import ServerConnection, serve

from bench.services import free_port
from server.reconnecting import LONGEST_DELAY
from tests.cli.command import COMMAND, environment, run
from tests.processes import TIMEOUT, ServerProcess, eventually, make_token
from tests.publisher import publisher_token

SERVER = {"FEED": "push", "WS_PORT": "0"}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ServerProcess(tmp_path_factory.mktemp("server"), **SERVER) as process:
        yield process


def prices_url(server: ServerProcess) -> str:
    return server.quotes_url.replace("/ws/quotes", "/ws/prices")


def publish(folder: Path, server: ServerProcess, text: str, *arguments: str) -> Any:
    (folder / "prices").write_text(text)
    return run(
        folder,
        "publish",
        "prices",
        "--url",
        prices_url(server),
        *arguments,
        QUOTESTREAM_TOKEN=publisher_token(),
    )


def quote(server: ServerProcess, symbol: str) -> dict[str, Any]:
    status, found = server.ask(f"/quotes?symbols={symbol}")
    assert status == 200
    quote: dict[str, Any] = found[0]["quote"]
    return quote


def is_at(server: ServerProcess, symbol: str, price: float) -> bool:
    return bool(quote(server, symbol)["current_price"] == price)


@pytest.mark.parametrize("end", ["", "/", "/ws/prices/"])
def test_address_may_leave_the_path_out(tmp_path, server, end):
    """The command knows the path of the prices."""
    (tmp_path / "prices").write_text('{"symbol":"IBM","price":1}')
    url = server.quotes_url.removesuffix("/ws/quotes") + end
    done = run(tmp_path, "publish", "prices", "--url", url, QUOTESTREAM_TOKEN=publisher_token())
    assert (done.returncode, done.stderr) == (0, "")


def test_a_files_prices_are_published(tmp_path, server):
    done = publish(tmp_path, server, "symbol,price,size\nAAPL,200.5,7\nAAPL,201.25,3\n")
    assert done.stdout == "2 accepted, 0 duplicate, 0 late, 0 held, 0 rejected\n"
    assert (done.returncode, done.stderr) == (0, "")
    assert (quote(server, "AAPL")["current_price"], quote(server, "AAPL")["volume"]) == (201.25, 10)


def test_a_mistake_is_named_by_its_line(tmp_path, server):
    lines = ['{"symbol":"MSFT","price":50}'] * 1200
    lines[2], lines[700], lines[1100] = (
        "{",
        '{"symbol":"MSFT","price":-1}',
        '{"symbol":"NONE!","price":1}',
    )
    done = publish(tmp_path, server, "\n".join(lines))
    assert done.returncode == 1
    assert done.stdout == "1,197 accepted, 0 duplicate, 0 late, 0 held, 3 rejected\n"
    told = [line.split(": ")[:2] for line in done.stderr.splitlines()]
    assert told == [
        ["line 3", "bad_json"],
        ["line 701", "bad_price"],
        ["line 1101", "unknown_symbol"],
    ]


def test_same_numbers_count_once(tmp_path, server):
    lines = "".join(f'{{"symbol":"GOOGL","price":{70 + n},"size":1,"seq":{n}}}\n' for n in range(5))
    first, second = (publish(tmp_path, server, lines, "--source", "sip") for _ in range(2))
    assert first.stdout.startswith("5 accepted, 0 duplicate")
    assert second.stdout.startswith("0 accepted, 5 duplicate")
    assert quote(server, "GOOGL")["volume"] == 5


def test_the_address_that_the_server_prints_will_do(tmp_path, server):
    """It is that of the quotes, on the same port. A publisher there would wait for ever."""
    (tmp_path / "prices").write_text('{"symbol":"IBM","price":201.5}')
    done = run(
        tmp_path,
        "publish",
        "prices",
        "--url",
        server.quotes_url,
        QUOTESTREAM_TOKEN=publisher_token(),
    )
    assert done.stdout == "1 accepted, 0 duplicate, 0 late, 0 held, 0 rejected\n", done.stderr
    assert is_at(server, "IBM", 201.5)


def pipe(folder: Path, server: ServerProcess) -> "subprocess.Popen[str]":
    """Start the command. It publishes the lines that a test writes."""
    return subprocess.Popen(
        [*COMMAND, "publish", "--url", prices_url(server)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=folder,
        env=environment(QUOTESTREAM_TOKEN=publisher_token()),
        text=True,
    )


def test_a_pipe_is_published_line_by_line(tmp_path, server):
    """The price is on the stream before the program that prints prices ends."""
    with pipe(tmp_path, server) as command:
        assert command.stdin
        for price in (31, 32):
            command.stdin.write(f'{{"symbol":"INTC","price":{price}}}\n')
            command.stdin.flush()
            eventually(partial(is_at, server, "INTC", price))
        command.send_signal(signal.SIGINT)
        assert command.communicate(timeout=TIMEOUT)[0] == (
            "2 accepted, 0 duplicate, 0 late, 0 held, 0 rejected\n"
        )
        assert command.returncode == 128 + signal.SIGINT


def test_own_numbers_may_begin_behind_objects_without(tmp_path, server):
    """The number of the second trade is not one that the command gave to the first."""
    with pipe(tmp_path, server) as command:
        assert command.stdin
        for price, number in ((31, {}), (32, {"seq": 1}), (33, {"seq": 2}), (34, {})):
            trade = {"symbol": "AMD", "price": price, "size": 5, **number}
            command.stdin.write(f"{json.dumps(trade)}\n")
            command.stdin.flush()
            eventually(partial(is_at, server, "AMD", price))
        said = command.communicate(timeout=TIMEOUT)[0]
    assert said == "4 accepted, 0 duplicate, 0 late, 0 held, 0 rejected\n"
    assert quote(server, "AMD")["volume"] == 20


def test_server_that_is_killed_gets_every_price_once(tmp_path):
    """The command sends again what has no answer; the volume tells that each price counts once."""
    port = str(free_port())
    trades = "".join(f'{{"symbol":"IBM","price":90,"size":1,"id":"t{n}"}}\n' for n in range(3000))
    with ServerProcess(tmp_path, **SERVER | {"WS_PORT": port}) as first:
        url = prices_url(first)
        command = subprocess.Popen(
            [*COMMAND, "publish", "--url", url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=tmp_path,
            env=environment(QUOTESTREAM_TOKEN=publisher_token()),
            text=True,
        )
        assert command.stdin
        command.stdin.write(trades)
        command.stdin.flush()
        eventually(lambda: quote(first, "IBM")["volume"] == 3000)
    with ServerProcess(tmp_path, **SERVER | {"WS_PORT": port}) as second:
        command.stdin.write(json.dumps({"symbol": "IBM", "price": 91, "size": 1}))
        output, errors = command.communicate(timeout=TIMEOUT + 2 * LONGEST_DELAY)
        assert output == "3,001 accepted, 0 duplicate, 0 late, 0 held, 0 rejected\n"
        assert "trying again in" in errors
        assert quote(second, "IBM")["current_price"] == 91


@pytest.mark.parametrize(
    ("arguments", "variables", "code", "words"),
    [
        (["missing"], {}, 2, "cannot read missing: No such file or directory"),
        (["-", "--token-file", "-"], {}, 2, "standard input cannot be both"),
        (["-", "--url", "http://x"], {}, 2, "--url"),
    ],
)
def test_bad_argument_is_told_in_one_line(tmp_path, arguments, variables, code, words):
    done = run(tmp_path, "publish", *arguments, **variables)
    assert done.returncode == code
    assert words in done.stderr.splitlines()[-1]


def test_reader_of_quotes_may_not_publish(tmp_path, server):
    (tmp_path / "prices").write_text('{"symbol":"AAPL","price":1}')
    token = make_token(role="reader")
    done = run(tmp_path, "publish", "prices", "--url", prices_url(server), QUOTESTREAM_TOKEN=token)
    assert done.returncode == 1
    assert "role publisher" in done.stderr


def test_server_that_cannot_take_a_frame_is_not_asked_again(tmp_path):
    """A foreign server may take less than ours: the same frame would be refused for ever."""

    def refuse(connection: ServerConnection) -> None:
        connection.recv()
        connection.close(1009, "too big")

    (tmp_path / "prices").write_text('{"symbol":"AAPL","price":1}')
    with serve(refuse, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        done = run(tmp_path, "publish", "prices", "--url", url, QUOTESTREAM_TOKEN="t")
        server.shutdown()
        thread.join()
    assert done.returncode == 1
    assert done.stderr == f"quotestream: {url}: the server closed the connection: 1009 too big\n"
