"""HAProxy and nginx in front of instances: no client is refused, whatever happens to one instance.

Both are configured as `docs/haproxy.cfg` and `docs/nginx.conf` say, and stand side by side in front of
the same instances, each with clients of its own.
"""

import json
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from bench.services import Redis, free_port
from tests.cluster.balancers import Balancer, HAProxy, Nginx
from tests.cluster.checked import Seen
from tests.cluster.followers import Follower, converge, faults, followers, still_read
from tests.gateway.wire import new_user, refusal
from tests.processes import (
    START_TIMEOUT,
    STOP_TIMEOUT,
    TIMEOUT,
    ServerProcess,
    eventually,
    make_token,
)
from tests.workers.host import Host

CROWD = 16
"""Clients of each balancer."""

RETURN_TIMEOUT = 20.0
"""Seconds until all clients are back that were sent away: they wait for up to five."""

SYMBOLS = "AAPL,MSFT,TSLA"


class Instance(ServerProcess):
    """An instance that comes back on the same ports."""

    def __init__(self, folder: Path, redis: Redis, **variables: str) -> None:
        folder.mkdir()
        self.ports = free_port(), free_port()
        ports = {"WS_PORT": str(self.ports[0]), "HTTP_PORT": str(self.ports[1])}
        defaults = {"PRICE_UPDATE_INTERVAL": "200ms", "DRAIN_DELAY": "2s", "REDIS_URL": redis.url}
        super().__init__(folder, **(defaults | ports | variables))


@contextmanager
def balanced(*instances: tuple[int, int]) -> Iterator[list[Balancer]]:
    """Both balancers, with instances that are ready."""
    with HAProxy(instances) as haproxy, Nginx(instances) as nginx:
        yield [haproxy, nginx]


@contextmanager
def crowds(balancers: list[Balancer], seen: Seen) -> Iterator[list[Follower]]:
    """Clients of each balancer that check each message."""
    with ExitStack() as stack:
        yield [
            follower
            for balancer in balancers
            for follower in stack.enter_context(followers(balancer, CROWD, SYMBOLS, seen))
        ]


class Visitor(threading.Thread):
    """Makes one handshake after another and notes their faults."""

    def __init__(self, balancer: Balancer) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.visits = 0
        self._balancer = balancer
        self._over = threading.Event()

    def run(self) -> None:
        """Run until told to stop."""
        while not self._over.wait(0.01):
            try:
                url = self._balancer.url("AAPL", make_token(new_user()))
                with connect(url, open_timeout=TIMEOUT, close_timeout=1):
                    self.visits += 1
            except (OSError, WebSocketException) as error:
                self.wrong.append(f"{self._balancer.package}: {error!r}")

    def stop(self) -> None:
        """Stop the handshakes."""
        self._over.set()


@contextmanager
def visitors(balancers: list[Balancer]) -> Iterator[list[Visitor]]:
    """Run one visitor for each balancer; none may be refused."""
    all_of_them = [Visitor(balancer) for balancer in balancers]
    for each in all_of_them:
        each.start()
    try:
        yield all_of_them
    finally:
        for each in all_of_them:
            each.stop()
        for each in all_of_them:
            each.join()
    assert [each.wrong for each in all_of_them] == [[]] * len(all_of_them)
    assert all(each.visits for each in all_of_them)


def served(instance: ServerProcess) -> float:
    """Return the number of its open connections."""
    return instance.metric('market_data_connections{state="active"}')


def test_rolling_restart_refuses_nobody(tmp_path, redis):
    """One instance after the other drains, ends and comes back. Clients are sent away by `reconnect`
    and 1001, and go on elsewhere from where they were. All others are let in.
    """
    seen: Seen = {}
    a, b = (Instance(tmp_path / name, redis) for name in "ab")
    with a, b, balanced(a.ports, b.ports) as balancers, crowds(balancers, seen) as crowd:
        assert min(served(a), served(b)) >= CROWD / 2
        haproxy = balancers[0]
        assert isinstance(haproxy, HAProxy)
        with visitors(balancers) as both:
            for instance in (a, b):
                assert instance.stop() == 0
                instance.__exit__(None, None, None)
                instance.__enter__()
                # Until both balancers have found that it is back: it gets new clients.
                eventually(lambda: served(instance) >= 1, START_TIMEOUT)  # noqa: B023 (called here)
                eventually(lambda: haproxy.green == 2, START_TIMEOUT)
                before = [visitor.visits for visitor in both]
                eventually(lambda: both[0].visits > before[0] + 20, START_TIMEOUT)  # noqa: B023 (called here)
        eventually(lambda: all(each.visits > 1 for each in crowd), RETURN_TIMEOUT)
        eventually(lambda: all(each.served for each in crowd), RETURN_TIMEOUT)
        still_read(crowd)
        converge(redis, crowd, seen)
        assert not faults(crowd)


def test_killed_instance_costs_its_clients_a_reconnection(tmp_path, redis):
    """Its clients come back to the other instance at once, and none is refused."""
    seen: Seen = {}
    a, b = (Instance(tmp_path / name, redis) for name in "ab")
    with a, b, balanced(a.ports, b.ports) as balancers, crowds(balancers, seen) as crowd:
        theirs = served(a)
        with visitors(balancers):
            before = sum(each.visits for each in crowd)
            a.process.kill()
            eventually(
                lambda: sum(each.visits for each in crowd) >= before + CROWD / 2, RETURN_TIMEOUT
            )
            eventually(lambda: served(b) >= len(crowd), RETURN_TIMEOUT)
        assert theirs >= CROWD / 2
        still_read(crowd)
        converge(redis, crowd, seen)
        said = faults(crowd)
        assert said
        assert not [fault for fault in said if not fault.startswith("closed with")]


def test_roll_of_workers_refuses_nobody(tmp_path, redis):
    """All workers of a machine are replaced, and the balancers do not notice."""
    seen: Seen = {}
    variables = {"PRICE_UPDATE_INTERVAL": "200ms"}
    with Host(tmp_path, redis, 2, **variables) as host:
        ports = host.address[1], host.http_address[1]
        with balanced(ports, ports) as balancers, crowds(balancers, seen) as crowd:
            with visitors(balancers):
                host.process.send_signal(signal.SIGHUP)
                host.await_event("rolled")
                eventually(lambda: all(each.visits > 1 for each in crowd), RETURN_TIMEOUT)
            eventually(lambda: all(each.served for each in crowd), RETURN_TIMEOUT)
            still_read(crowd)
            converge(redis, crowd, seen)
            assert not faults(crowd)


@pytest.mark.parametrize("balancer", [HAProxy, Nginx])
def test_refusal_is_passed_on(tmp_path, redis, balancer):
    """Full instances tell a client when to come back, and why."""
    a, b = (Instance(tmp_path / name, redis, WS_MAX_CONNECTIONS="1") for name in "ab")
    with a, b, balancer([a.ports, b.ports]) as front, ExitStack() as taken:
        for instance in (a, b):
            taken.enter_context(connect(instance.url("AAPL"), open_timeout=TIMEOUT))
        answer = refusal(front.url("AAPL"))
        assert answer.verdict == (503, "at_capacity")
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert [each.get("/readyz")[0] for each in (a, b)] == [200, 200]
        a.process.send_signal(signal.SIGTERM)
        assert a.process.wait(STOP_TIMEOUT) == 0


def test_one_address_for_quotes_and_pages(tmp_path, redis):
    """Behind a balancer, a browser gets the page, its files and the quotes from one address."""
    a, b = (Instance(tmp_path / name, redis) for name in "ab")
    with a, b, balanced(a.ports, b.ports) as balancers:
        for balancer in balancers:
            address = f"http://127.0.0.1:{balancer.port}"
            with urlopen(Request(f"{address}/", headers={"Accept": "text/html"})) as page:
                assert "connect-src 'self';" in page.headers["content-security-policy"]
            with urlopen(f"{address}/web/quotes.js") as module:
                assert b"export function connect" in module.read()
            with urlopen(f"{address}/web/config.json") as config:
                assert json.load(config)["stream"] == "/ws/quotes"
            with connect(balancer.url("AAPL"), open_timeout=TIMEOUT) as client:
                assert '"AAPL"' in client.recv(TIMEOUT)
