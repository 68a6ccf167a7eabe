"""Any actions of clients in any order: a running gateway against a model that fits on a page.

Sockets, sessions and topics are real, in one trio loop. The rules of the state machine act on it.
At every quiet point each client's document is the model's, and every count is right.
"""

import gc
import queue
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import trio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from server.fanout.breaker import BreakerPolicy
from server.fanout.hub import Hub
from server.gateway.auth import Authenticator
from server.gateway.budgets import Budget, Budgets
from server.gateway.gateway import Gateway
from server.gateway.lifecycle import State
from server.gateway.pool import Pool
from server.process.binding import bind
from tests.fanout.peer import instruments, publish
from tests.faults.model_client import ModelClient
from tests.forms import FORMS
from tests.gateway.harness import COMPLETE

SYMBOLS = ["AAPL", "BRK.B", "MSFT"]
SECRET = "a secret of the tests, 32 bytes or longer"
MAX_CONNECTIONS = 6
SETTLE = 5.0
"""Seconds in which all comes to rest."""


class World:
    """The server in a thread with a trio loop; `do` runs a function in that loop."""

    def __init__(self) -> None:
        started: queue.Queue[Any] = queue.Queue()
        self._thread = threading.Thread(target=trio.run, args=(self._run, started))
        self._thread.start()
        self._token = started.get(timeout=SETTLE)

    def do(self, function: Any, *arguments: Any) -> Any:
        return trio.from_thread.run_sync(function, *arguments, trio_token=self._token)

    def end(self) -> None:
        self.do(self._cancel.cancel)
        self._thread.join(SETTLE)
        assert not self._thread.is_alive()

    async def _run(self, started: "queue.Queue[Any]") -> None:
        self.hub = Hub(instruments(*SYMBOLS), breaker=BreakerPolicy(2, 0.5, 0.1))
        self.pool = Pool(MAX_CONNECTIONS, MAX_CONNECTIONS)
        self.authenticator = Authenticator(secret=SECRET)
        self.gateway = Gateway(
            hub=self.hub, pool=self.pool, authenticator=self.authenticator,
            directory=COMPLETE, max_symbols=10,
            command_rate=10_000, compression=True, budgets=Budgets(commands=Budget(1e9)),
        )  # a table # fmt: skip
        listeners = bind("127.0.0.1", 0, setting="")
        self.address = listeners[0].getsockname()[:2]
        with trio.CancelScope() as self._cancel:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.hub.run)
                await nursery.start(self.gateway.serve, listeners)
                started.put(trio.lowlevel.current_trio_token())
                await trio.sleep_forever()


class LongLives(RuleBasedStateMachine):
    """The rules. `model` holds the latest price of each symbol, and each client its subscriptions."""

    clients: Bundle[ModelClient] = Bundle("clients")

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        self.descriptors = sum(1 for _ in Path("/proc/self/fd").iterdir())
        self.world = World()
        self.open: list[ModelClient] = []
        self.given_up = 0
        self.model = dict.fromkeys(SYMBOLS, 100.0)

    @rule(
        target=clients,
        user=st.sampled_from(["ann", "bob", "cat"]),
        symbols=st.one_of(st.just(["*"]), st.lists(st.sampled_from(SYMBOLS), unique=True)),
        deflate=st.booleans(),
        form=st.sampled_from(FORMS),
        fields=st.sampled_from(["", "current_price", "current_price,bid"]),
    )
    def connect(
        self, user: str, symbols: list[str], deflate: bool, form: str, fields: str
    ) -> ModelClient:
        self.settle()
        token = self.world.authenticator.sign(user, 600)
        client = ModelClient(
            self.world.address, user, token, symbols, deflate=deflate, form=form, fields=fields
        )
        if len(self.open) >= MAX_CONNECTIONS:
            assert client.status == 503
        else:
            assert client.status == 101
            self.open.append(client)
        return client

    @rule(
        target=clients,
        client=consumes(clients),
        symbols=st.one_of(st.just(["*"]), st.lists(st.sampled_from(SYMBOLS), unique=True)),
        moves=st.integers(0, 40),
    )
    def come_back(self, client: ModelClient, symbols: list[str], moves: int) -> ModelClient:
        """Cut the connection at any point, move prices, and resume with what the client has read."""
        if client not in self.open:
            return client
        self.open.remove(client)
        client.reset()
        self.settle()
        self.trade(SYMBOLS[0], 777, moves)
        token = self.world.authenticator.sign(client.user, 600)
        address = self.world.address
        back = ModelClient(address, client.user, token, symbols, deflate=False, before=client)
        assert back.status == 101
        self.open.append(back)
        return back

    @rule(client=clients, symbol=st.sampled_from([*SYMBOLS, "*", "NOPE"]))
    def subscribe(self, client: ModelClient, symbol: str) -> None:
        if client in self.open:
            client.send("subscribe", symbols=[symbol])

    @rule(client=clients, symbol=st.sampled_from([*SYMBOLS, "*"]))
    def unsubscribe(self, client: ModelClient, symbol: str) -> None:
        if client in self.open:
            client.send("unsubscribe", symbols=[symbol])

    @rule(client=clients, action=st.sampled_from(["resync", "ping"]))
    def ask(self, client: ModelClient, action: str) -> None:
        if client in self.open:
            client.send(action, **({"symbols": ["*"]} if action == "resync" else {}))

    @rule(client=clients, interval=st.sampled_from([0, 0.25]))
    def throttle(self, client: ModelClient, interval: float) -> None:
        if client in self.open:
            client.send("throttle", interval=interval)

    @rule(symbol=st.sampled_from(SYMBOLS), cents=st.integers(1, 10**6), count=st.integers(1, 200))
    def trade(self, symbol: str, cents: int, count: int) -> None:
        for number in range(count):
            self.model[symbol] = (cents + number) / 100
            self.world.do(publish, self.world.hub, symbol, self.model[symbol])

    @rule(client=clients)
    def stall(self, client: ModelClient) -> None:
        client.stalled = True

    @rule(client=clients)
    def read_on(self, client: ModelClient) -> None:
        client.stalled = False

    @rule(client=consumes(clients), how=st.sampled_from(["close", "vanish", "reset"]))
    def leave(self, client: ModelClient, how: str) -> None:
        if client in self.open:
            self.open.remove(client)
        getattr(client, how)()

    @invariant()
    def readers_read(self) -> None:
        for client in self.open:
            if not client.stalled:
                client.read()

    def settle(self) -> None:
        """Let all clients read until each document is the model's and every count is exact."""
        deadline = time.monotonic() + SETTLE
        for client in self.open:
            client.stalled = False
        while problem := self.problem():
            assert time.monotonic() < deadline, problem
            time.sleep(0.002)

    def problem(self) -> str | None:
        for client in [*self.open]:
            client.read()
            if client.gone:
                self.open.remove(client)
                self.given_up += 1
                client.vanish()
                continue
            quotes = client.state.quotes
            if client.unanswered:
                return f"{client} waits for answers"
            if set(quotes) != set(client.symbols(SYMBOLS)):
                return f"{client} has {sorted(quotes)}, not {client.symbols(SYMBOLS)}"
            for symbol in quotes:
                if quotes[symbol]["current_price"] != self.model[symbol]:
                    return f"{client} is not at the price of {symbol}"
                missing = self.world.hub.topics[symbol].version - client.state.versions[symbol]
                # A selection's version stays while only other fields change.
                if missing < 0 or (missing and not client.fields):
                    return f"{client} is not at the version of {symbol}"
        return self.world.do(self.miscount)  # type: ignore[no-any-return]  # untyped

    def miscount(self) -> str | None:
        """Compare the server's counts with the open clients, in the server's loop."""
        pool, hub = self.world.pool, self.world.hub
        users = {client.user for client in self.open}
        wanted = {user: sum(c.user == user for c in self.open) for user in users}
        subscriptions = sum(len(client.symbols(SYMBOLS)) for client in self.open)
        if len(pool.sessions) != len(self.open) or pool._users != wanted:
            return f"{len(pool.sessions)} sessions, {dict(pool._users)}"
        if {s: n for s, n in pool.states.items() if n} != (
            {State.ACTIVE: len(self.open)} if self.open else {}
        ):
            return f"states {pool.states}"
        forms = Counter(client.form for client in self.open)
        if (pool.places, +pool.views.by_form) != (len(self.open), forms):
            return f"{pool.places} places, {pool.views.by_form}"
        if (hub.subscriptions, pool.closed[4429]) != (subscriptions, self.given_up):
            return f"{hub.subscriptions} subscriptions, {pool.closed[4429]} were given up"
        if any(hub.breakers.values()) or len(hub._outboxes) != len(self.open):
            return f"breakers {hub.breakers}, {len(hub._outboxes)} outboxes"
        return None

    def teardown(self) -> None:
        try:
            self.settle()
            for client in self.open:
                client.vanish()
            self.open.clear()
            self.settle()
        finally:
            for client in self.open:
                client.vanish()
            self.world.end()
        gc.collect()
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) <= self.descriptors


TestLongLives = LongLives.TestCase
TestLongLives.settings = settings(
    max_examples=60,
    stateful_step_count=30,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
