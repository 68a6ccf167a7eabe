"""Instances of one cluster, and clients that check the protocol's promises with each message."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.cluster.checked import CheckedQuotes, Seen
from tests.gateway.wire import is_overload, new_user
from tests.patient import PatientConnection
from tests.processes import LONGEST_PAUSE, ServerProcess, make_token
from tests.stopwatch import Stopwatch

LEASE = 3.0
"""Seconds of a leader's lease by default."""

FREEZE = 10.0
"""Seconds of a pause, longer than leases and timeouts."""

CONVERGENCE_TIMEOUT = 15.0
"""Seconds in which all is as before the fault, once the fault is over."""

FAST = {"PRICE_UPDATE_INTERVAL": "100ms", "LOG_LEVEL": "info"}
"""Every symbol moves several times a second."""


class Watcher(CheckedQuotes):
    """A client that reads all the time and checks each message.

    `statuses` are the flow's states, each with its moment. `problem` is the first fault, `closed`
    the code of a close.
    """

    def __init__(self, server: ServerProcess, symbols: str, seen: Seen) -> None:
        super().__init__(seen)
        self.server = server
        self.statuses: list[tuple[float, str, str]] = []
        self.arrivals: list[float] = []
        self.problem: Exception | None = None
        self.closed: int | None = None
        self.over = False
        url = server.url(symbols, make_token(new_user()))
        self._connecting = connect(
            url, max_queue=None, ping_interval=None, create_connection=PatientConnection
        )
        self._connection = self._connecting.__enter__()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self._connecting.__exit__(None, None, None)
        self._thread.join()

    @property
    def status(self) -> tuple[str, str]:
        """The last status and its reason."""
        return self.statuses[-1][1:] if self.statuses else ("live", "")

    def check(self) -> None:
        """Raise the first problem, if there is one."""
        if self.problem:
            raise self.problem
        assert self.closed is None, f"closed with {self.closed}"

    def wait_for(
        self,
        check: Callable[[Self], bool],
        timeout: float = CONVERGENCE_TIMEOUT,
        pause: float = 0.005,
    ) -> float:
        """Wait until `check` is true of this client. Return the seconds that it took.

        Arguments:
            pause: seconds between two checks.
        """
        watch = Stopwatch(self.server.process.pid)
        while not check(self):
            self.check()
            assert watch.seconds < timeout, (self.held, self.statuses)
            time.sleep(pause)
        self.check()
        return watch.seconds

    def _read(self) -> None:
        try:
            for text in self._connection:
                self._on_message(json.loads(text))
        except ConnectionClosed:
            pass
        except Exception as error:
            self.problem = error
        if not self.over:
            received = self._connection.protocol.close_rcvd
            self.closed = received.code if received else 1006

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["type"] == "status" and "symbols" not in message and not is_overload(message):
            self.statuses.append((time.monotonic(), message["status"], message["reason"]))
        if message["type"] != "quotes_patch":
            return
        self.arrivals.append(time.monotonic())
        self.apply(message)


class Cluster:
    """Instances with one Redis, and their clients. `seen` holds every quote of any client."""

    kind = ServerProcess

    def __init__(self, folder: Path, redis_url: str, **variables: str) -> None:
        self.seen: Seen = {}
        self.servers: list[ServerProcess] = []
        self.watchers: list[Watcher] = []
        self._folder = folder
        self._variables = FAST | {"REDIS_URL": redis_url} | variables

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for watcher in self.watchers:
            watcher.__exit__()
        for server in self.servers:
            server.__exit__(None, None, None)

    @property
    def running(self) -> list[ServerProcess]:
        """The instances that run."""
        return [server for server in self.servers if server.process.poll() is None]

    def start(self, **variables: str) -> ServerProcess:
        """Start one more instance, with a state folder of its own."""
        folder = self._folder / f"instance{len(self.servers)}"
        folder.mkdir()
        server = self.kind(folder, **(self._variables | variables))
        server.__enter__()
        self.servers.append(server)
        return server

    def watch(self, server: ServerProcess, symbols: str = "AAPL,MSFT,TSLA") -> Watcher:
        """Connect a client to `server`, and return it once it has all of its quotes."""
        watcher = Watcher(server, symbols, self.seen)
        self.watchers.append(watcher)
        watcher.wait_for(lambda it: len(it.held) == len(symbols.split(",")))
        return watcher

    def leads(self, server: ServerProcess) -> bool:
        """Return whether the server's metrics say that it leads."""
        return server.metric("market_data_leader") == 1

    def still_leads(self, server: ServerProcess, watch: Stopwatch) -> bool:
        """Return whether the server leads. On a machine that is so busy that its lease may have ended
        while it waited for a processor, another instance may lead.
        """
        return self.leads(server) or watch.waited > LEASE / 2

    def wait_for_leader(
        self, servers: Sequence[ServerProcess], timeout: float = CONVERGENCE_TIMEOUT
    ) -> ServerProcess:
        """Wait until exactly one of `servers` leads, and return it."""
        watch = Stopwatch(*(each.process.pid for each in servers))
        while len(leaders := [each for each in servers if self.leads(each)]) != 1:
            assert watch.seconds < timeout, f"{len(leaders)} leaders"
            time.sleep(LONGEST_PAUSE)
        return leaders[0]

    def converge(self, leader: ServerProcess, watchers: Sequence[Watcher]) -> float:
        """Wait until every client has the leader's present quotes or newer ones. Return the seconds
        that it took.

        If `leader` finds meanwhile that another instance leads, the clients must have the other's
        quotes. Each message is checked for equal quotes of equal versions.
        """
        start = time.monotonic()
        while not self._reach(leader, watchers):
            leader = self.wait_for_leader(self.running)
        return time.monotonic() - start

    def _reach(self, leader: ServerProcess, watchers: Sequence[Watcher]) -> bool:
        """Return whether all clients have reached the state that `leader` had at first.

        Return False once it leads no more.
        """
        symbols = sorted({symbol for watcher in watchers for symbol in watcher.held})
        status, quotes = leader.ask(f"/quotes?symbols={','.join(symbols)}")
        assert status == 200
        versions = {quote["quote"]["symbol"]: quote["version"] for quote in quotes}
        epoch = leader.metric("market_data_bus_epoch")

        def reached(watcher: Watcher) -> bool:
            return watcher.status[0] == "live" and all(
                held[0] == f"{epoch:.0f}" and held[1] >= versions.get(symbol, 0)
                for symbol, held in watcher.held.items()
            )

        for watcher in watchers:
            watcher.wait_for(
                lambda it: reached(it) or not self._leads_in(leader, epoch), pause=LONGEST_PAUSE
            )
        return self._leads_in(leader, epoch)

    def _leads_in(self, server: ServerProcess, epoch: float) -> bool:
        return self.leads(server) and server.metric("market_data_bus_epoch") == epoch

    def moves_on(self, watchers: Sequence[Watcher]) -> None:
        """Wait until each client has received five more updates."""
        for watcher in watchers:
            count = len(watcher.arrivals)
            watcher.wait_for(lambda it: len(it.arrivals) >= count + 5)  # noqa: B023 (called here)


@contextmanager
def two_instances(
    folder: Path, redis_url: str, **variables: str
) -> Iterator[tuple[Cluster, ServerProcess, ServerProcess, Watcher, Watcher]]:
    """Start a leader, a follower, and a client of each.

    At the end no client may have seen a fault, and no log may hold an error.
    """
    with Cluster(folder, redis_url, **variables) as cluster:
        leader = cluster.start()
        cluster.wait_for_leader([leader])
        follower = cluster.start()
        watchers = cluster.watch(leader), cluster.watch(follower)
        cluster.moves_on(watchers)
        yield cluster, leader, follower, *watchers
        for server in cluster.servers:
            if server.process.poll() is None:
                assert not [line for line in server.log_lines() if line["level"] == "error"]


def report(what: str, seconds: float) -> None:
    """Print how long a recovery took (`pytest -s` shows it)."""
    print(f"\n{what}: {seconds:.2f} s")
