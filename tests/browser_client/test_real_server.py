"""`quotes.js` with a real server that is killed, frozen, drained and gapped under it. Afterwards it is
equal to the server, and it knew that it was behind.
"""

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.services import free_port
from tests.browser_client.follower import Follower
from tests.browser_client.lossy import LossyProxy
from tests.processes import START_TIMEOUT, ServerProcess, eventually, make_token
from tests.wall_clock import ShiftedServer, WallClock

SYMBOLS = ["AAPL", "MSFT", "TSLA"]

each_form = pytest.mark.parametrize("form", ["json", "compact", "msgpack"])


def lively_server(folder: Path, **variables: str) -> ServerProcess:
    return ServerProcess(folder, PRICE_UPDATE_INTERVAL="200ms", **variables)


@pytest.fixture(scope="module")
def lively(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """Run a server for tests that leave it as it was."""
    with lively_server(tmp_path_factory.mktemp("lively")) as server:
        yield server


@each_form
def test_server_is_killed_and_restarted(tmp_path, form):
    """The client waits, comes back to the next server, and has the quotes of its epoch."""
    port = str(free_port())
    with lively_server(tmp_path, WS_PORT=port) as server:
        client = Follower(server.quotes_url, SYMBOLS, format=form)
        with client:
            client.wait_until_equal(server)
            assert client.look()["format"] == form
            epoch = client.look()["epoch"]
            server.process.kill()
            known = client.wait_for_state("waiting", "connection_lost")
            with lively_server(tmp_path, WS_PORT=port) as successor:
                client.wait_for_state("live", since=known)
                client.wait_until_equal(successor)
                seen = client.look()
    assert seen["epoch"] != epoch
    assert seen["stats"]["connects"] == 2
    assert seen["stats"]["resyncs"] == 0


@each_form
def test_server_is_frozen(tmp_path, form):
    """The client tells that no answer comes, gives up, and resumes when the server runs again."""
    with (
        lively_server(tmp_path) as server,
        Follower(server.quotes_url, SYMBOLS, format=form) as client,
    ):
        client.wait_until_equal(server)
        server.process.send_signal(signal.SIGSTOP)
        try:
            known = client.wait_for_state("stale", "no_answer")
            known = client.wait_for_state("waiting", "no_answer", known)
        finally:
            server.process.send_signal(signal.SIGCONT)
        client.wait_for_state("live", since=known)
        client.wait_until_equal(server)
        stats = client.look()["stats"]
    assert stats["resumed"] >= 1
    assert stats["resyncs"] == 0


def test_server_is_drained(tmp_path):
    """The client is told that the server goes, and comes back to the next one."""
    port = str(free_port())
    with lively_server(tmp_path, WS_PORT=port) as server:
        client = Follower(server.quotes_url, SYMBOLS)
        with client:
            client.wait_until_equal(server)
            server.stop()
            known = client.wait_for_state("waiting", "going_away")
            with lively_server(tmp_path, WS_PORT=port) as successor:
                client.wait_for_state("live", since=known)
                client.wait_until_equal(successor)


@each_form
def test_messages_are_lost(lively, form):
    """The client counts what is missing, and asks for the quotes."""
    with LossyProxy(lively.address) as proxy, Follower(proxy.url, SYMBOLS, format=form) as client:
        client.wait_until_equal(lively)
        proxy.losing = True
        client.wait_for(lambda seen: seen["stats"]["resyncs"] >= 5)
        proxy.losing = False
        client.wait_until_equal(lively)
        missed = [each["missed"] for each in client.events if each["event"] == "missed"]
    assert max(missed) > 0
    assert missed[-1] == 0


@each_form
def test_commands_are_answered(lively, form):
    """Each command has its answer, in each form."""
    with Follower(lively.quotes_url, SYMBOLS, format=form) as client:
        assert client.call("subscribe", ["amzn"])["symbols"] == ["AMZN"]
        assert client.call("subscribe", ["NOPE"])["refused"]["code"] == "unknown_symbol"
        refused = client.call("subscribe", ["NFLX", "NOPE", "NEITHER"])["refused"]
        assert (refused["code"], refused["symbols"]) == ("unknown_symbol", ["NOPE", "NEITHER"])
        assert client.call("unsubscribe", ["NFLX"])["symbols"] == ["NFLX"]
        assert client.call("throttle", 300)["interval"] == 0.5
        assert client.call("throttle", 0)["interval"] == 0
        assert client.call("bars", ["AAPL"])["symbols"] == ["AAPL"]
        eventually(lambda: bool(client.details("bar")), START_TIMEOUT)
        assert client.call("unbars", ["AAPL"])["symbols"] == ["AAPL"]
        assert client.call("unsubscribe", ["AMZN"])["symbols"] == ["AMZN"]
        client.wait_for(lambda seen: set(seen["quotes"]) == set(SYMBOLS))
        removed = [{"symbol": symbol, "renamedTo": None} for symbol in ("NFLX", "AMZN")]
        assert client.details("removed") == removed
        client.wait_for(lambda seen: seen["lag"] is not None)


@each_form
def test_chosen_fields_are_kept_complete(lively, form):
    """With `fields`, the quotes have these fields only, and nothing is missed."""
    fields = ["current_price", "volume"]
    with Follower(lively.quotes_url, SYMBOLS, format=form, fields=fields) as client:
        client.wait_until_equal(lively)
        client.wait_for(lambda seen: seen["versions"]["AAPL"] > 3)
        client.wait_until_equal(lively)
        seen = client.look()
    assert set(seen["quotes"]["AAPL"]) == set(fields)
    assert seen["stats"]["resyncs"] == 0


def test_refusals_are_read(lively):
    """The page can tell why the server refuses it."""
    with Follower(lively.quotes_url, SYMBOLS, tokens=["a.b.c"]) as client:
        client.wait_for_state("closed", "unauthorized")
    with Follower(lively.quotes_url, ["NOPE"]) as client:
        client.wait_for_state("closed", "no_valid_symbols")
    with Follower(lively.quotes_url, SYMBOLS, fields=["nope"]) as client:
        client.wait_for_state("closed", "bad_request")
        assert client.look()["reason"]["message"].startswith("fields: the fields are current_price")


def test_expired_token_is_renewed(tmp_path):
    """When the token expires, the client asks for the next one, and resumes."""
    clock = WallClock(tmp_path, time.time())
    with ShiftedServer(tmp_path, PRICE_UPDATE_INTERVAL="200ms", **clock.variables) as server:
        tokens = [make_token(lifetime=1800), make_token(lifetime=7200)]
        with Follower(server.quotes_url, SYMBOLS, tokens=tokens) as client:
            known = client.wait_for_state("live")
            clock.go_on(time.time() + 3600)
            known = client.wait_for_state("waiting", "unauthorized", since=known)
            client.wait_for_state("live", since=known)
            clock.go_on(time.time())
            client.wait_until_equal(server)
            assert client.look()["stats"]["resumed"] == 1
        log = server.log.read_text()
    assert not any(token in log for token in tokens)
