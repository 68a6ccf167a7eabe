"""SIGHUP: every worker is replaced, one by one, while clients come, stay and ask."""

import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.followers import faults, followers
from tests.cluster.host import Host, end_of, is_alive
from tests.gateway.wire import RawClient, eventually, head, target

CROWD = 40


@contextmanager
def knocking(host: Host) -> Iterator[list[str]]:
    """Handshakes and HTTP requests one after another; what went wrong with them."""
    wrong: list[str] = []
    over = threading.Event()

    def knock() -> None:
        while not over.is_set():
            try:
                with RawClient(host):
                    pass
            except (OSError, AssertionError) as error:
                wrong.append(f"WebSocket: {error!r}")
            try:
                with urllib.request.urlopen(f"{host.http_url}/readyz", timeout=5) as response:
                    response.read()
            except OSError as error:
                wrong.append(f"HTTP: {error!r}")

    threads = [threading.Thread(target=knock) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        yield wrong
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_roll_under_load_refuses_nobody(tmp_path, redis):
    """Each client is sent away by `reconnect` and 1001, is let in at once when it comes back, and so
    is everybody else; then there are as many workers as before, all of them new.
    """
    with (
        Host(tmp_path, redis, 2, PRICE_UPDATE_INTERVAL="100ms") as host,
        followers(host, CROWD) as crowd,
        knocking(host) as wrong,
    ):
        old = host.pids
        host.process.send_signal(signal.SIGHUP)
        host.await_event("rolled")
        assert not any(is_alive(pid) for pid in old)
        assert len([pid for pid in host.pids if is_alive(pid)]) == 2
        eventually(lambda: all(follower.visits > 1 for follower in crowd))
        before = [follower.messages for follower in crowd]
        eventually(lambda: all(f.messages > n + 3 for f, n in zip(crowd, before, strict=True)))
        assert not faults(crowd)
        assert not wrong
        assert not [line for line in host.log_lines() if line["level"] == "error"]


def test_roll_waits_for_room_and_rates(tmp_path, redis):
    """Not more clients are sent away than others have places for, nor faster than set."""
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
    """A worker that retires slowly is stopped as the others are."""
    with Host(tmp_path, redis, 1, WORKER_DRAIN_RATE="1") as host, followers(host, 20):
        host.process.send_signal(signal.SIGHUP)
        host.await_event("worker retires")
        start = time.monotonic()
        assert host.stop() == 0
        assert time.monotonic() - start < 5
        end_of(host.pids, 1)
