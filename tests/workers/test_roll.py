"""SIGHUP: every worker is replaced, one by one, while clients connect, stay and send requests."""

import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, RemoteDisconnected

from tests.cluster.checked import Seen
from tests.cluster.followers import SERVED_TIMEOUT, converge, faults, followers, report, still_read
from tests.gateway.wire import RawClient, head, target
from tests.processes import TIMEOUT, eventually
from tests.workers.host import Host, end_of, is_alive

CROWD = 150
"""Clients, half of them at each worker, with three symbols each."""

QUICK = {"PRICE_UPDATE_INTERVAL": "400ms"}
"""A thousand messages a second for all clients, which one thread reads on a busy machine, too."""


class Knocking(threading.Thread):
    """Handshakes and HTTP requests one after another; what went wrong with them. One HTTP connection is
    kept: `goodbyes` are the answers that said they were the last on theirs.
    """

    def __init__(self, host: Host) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.goodbyes = 0
        self._host = host
        self._over = threading.Event()
        self._kept = HTTPConnection(*host.http_address, timeout=TIMEOUT)

    def run(self) -> None:
        """Run until told to stop."""
        while not self._over.is_set():
            for name, knock in (
                ("WebSocket", self._shake_hands),
                ("HTTP", self._ask),
                ("kept", self._ask_again),
            ):
                try:
                    knock()
                except (OSError, AssertionError, HTTPException) as error:
                    self.wrong.append(f"{name}: {error!r}")
        self._kept.close()

    def stop(self) -> None:
        """Stop the requests."""
        self._over.set()

    def _shake_hands(self) -> None:
        with RawClient(self._host):
            pass

    def _ask(self) -> None:
        with urllib.request.urlopen(f"{self._host.http_url}/readyz", timeout=TIMEOUT) as response:
            response.read()

    def _ask_again(self) -> None:
        used = self._kept.sock is not None
        try:
            self._kept.request("GET", "/readyz")
            response = self._kept.getresponse()
        except (RemoteDisconnected, ConnectionError):
            self._kept.close()
            if not used:
                raise
            # Closed while it was idle, as any server may do (RFC 9112 §9.3.1).
            return
        with response:
            response.read()
            assert response.status == 200
            self.goodbyes += response.headers["Connection"] == "close"


@contextmanager
def knocking(host: Host) -> Iterator[list[Knocking]]:
    """Run several at once."""
    crowd = [Knocking(host) for _ in range(6)]
    for each in crowd:
        each.start()
    try:
        yield crowd
    finally:
        for each in crowd:
            each.stop()
        for each in crowd:
            each.join()


def test_roll_under_load_refuses_nobody(tmp_path, redis):
    """Each client is sent away by `reconnect` and 1001, is let in at once when it comes back, and goes
    on from where it was, though the leader is replaced, too. So is everybody else let in; and there
    are as many workers as before, all of them new.
    """
    seen: Seen = {}
    with (
        Host(tmp_path, redis, 2, **QUICK) as host,
        followers(host, CROWD, "AAPL,MSFT,TSLA", seen) as crowd,
        knocking(host) as visitors,
    ):
        old = host.pids
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolled")
        assert not any(is_alive(pid) for pid in old)
        assert len([pid for pid in host.pids if is_alive(pid)]) == 2
        eventually(lambda: all(follower.visits > 1 for follower in crowd), SERVED_TIMEOUT)
        still_read(crowd)
        converge(redis, crowd, seen)
        report("rolled", crowd)
        assert not faults(crowd)
        assert [visitor.wrong for visitor in visitors] == [[]] * len(visitors)
        assert any(visitor.goodbyes for visitor in visitors)
        assert not [line for line in host.log_lines() if line["level"] == "error"]


def test_roll_waits_for_room_and_rates(tmp_path, redis):
    """Clients are sent away as others have places for them, and not faster than configured."""
    variables = {"WS_MAX_CONNECTIONS": "12", "WORKER_DRAIN_RATE": "4"}
    with Host(tmp_path, redis, 1, **variables) as host, followers(host, 12) as crowd:
        start = time.monotonic()
        host.process.send_signal(signal.SIGHUP)
        host.await_event("worker retires")
        host.await_event("rolled")
        assert time.monotonic() - start > 12 / 4
        eventually(lambda: all(follower.visits == 2 for follower in crowd))
        assert not faults(crowd)


def test_roll_that_fails_leaves_all_as_it_was(tmp_path, redis):
    """A new worker that cannot start, as of a setting that was changed, is given up with its line; once
    that is mended, a roll makes the change take effect.
    """
    with Host(tmp_path, redis, 2) as host, followers(host, 4) as crowd:
        old = host.pids
        (tmp_path / ".env").write_text("WS_MAX_SYMBOLS=many\n")
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolling ended: a new worker does not serve")
        assert host.events("worker ended before it served")[0]["code"] == 2
        assert "quotestream: WS_MAX_SYMBOLS='many' is not allowed" in host.log.read_text()
        assert all(is_alive(pid) for pid in old)
        assert [follower.visits for follower in crowd] == [1] * 4
        (tmp_path / ".env").write_text("WS_MAX_SYMBOLS=1\n")
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolled")
        assert not any(is_alive(pid) for pid in old)
        with RawClient(host, head(target("AAPL,MSFT"))) as client:
            assert client.answer().verdict == (400, "too_many_symbols")


def test_stop_during_a_roll(tmp_path, redis):
    """A worker that retires slowly is stopped like the others."""
    with Host(tmp_path, redis, 1, WORKER_DRAIN_RATE="1") as host, followers(host, 20):
        host.process.send_signal(signal.SIGHUP)
        host.await_event("worker retires")
        assert host.stop() == 0
        assert host.stop_seconds < 5
        end_of(host.pids, 1)
