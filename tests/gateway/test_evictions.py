"""A new connection of a user ends a dead one of the same user, on a clock that jumps."""

from types import SimpleNamespace
from typing import Any, cast

import trio

from server.gateway.budgets import COLD_A_COMMAND, USER_LOOKUPS, Budgets
from server.gateway.closing import Close
from server.gateway.dead_connections import PROBE_TIMEOUT, DeadConnections


class Connection:
    """Answers a ping after `answers` seconds, None for never; `silent` for so long already."""

    def __init__(self, user: str, answers: float | None, silent: float = 0.0) -> None:
        self.identity = SimpleNamespace(user=user)
        self.over = False
        self.pings = 0
        self.dropped: list[Close] = []
        self._answers = answers
        self._silent = silent
        self._pinged_at = 0.0

    def ping(self) -> None:
        self.pings += 1
        self._pinged_at = trio.current_time()

    @property
    def unanswered(self) -> float:
        waited = trio.current_time() - self._pinged_at
        if self._answers is not None and waited >= self._answers:
            return 0.0
        return self._silent + waited

    def drop(self, close: Close) -> None:
        self.dropped.append(close)


def search(*connections):
    return DeadConnections(cast("Any", SimpleNamespace(sessions=list(connections))))


async def test_longest_silent_connection_is_ended(autojump_clock):
    """The others, and those of other users, stay."""
    dead, longer = Connection("ann", None, 5.0), Connection("ann", None, 9.0)
    alive, other = Connection("ann", 0.3), Connection("bob", None, 99.0)
    begun = trio.current_time()
    await search(dead, longer, alive, other).evict("ann")
    assert longer.dropped == [Close.NO_ANSWER]
    assert dead.dropped == alive.dropped == other.dropped == []
    assert [each.pings for each in (dead, longer, alive, other)] == [1, 1, 1, 0]
    assert abs(trio.current_time() - begun - PROBE_TIMEOUT) < 0.01


async def test_search_ends_when_all_have_answered(autojump_clock):
    """A new connection waits for it."""
    alive = [Connection("ann", 0.2), Connection("ann", 0.4)]
    begun = trio.current_time()
    await search(*alive).evict("ann")
    assert 0.35 < trio.current_time() - begun < 0.5
    assert all(each.dropped == [] for each in alive)


async def test_connection_that_ends_meanwhile_is_left_alone(autojump_clock):
    """It gives its place back by itself."""
    ending, dead = Connection("ann", None, 9.0), Connection("ann", None, 1.0)
    ending.over = True
    await search(ending, dead).evict("ann")
    assert ending.dropped == []
    assert dead.dropped == [Close.NO_ANSWER]
    ending.dropped.clear()
    await search(ending).evict("ann")
    assert ending.dropped == []


async def test_one_search_at_a_time_for_each_user(autojump_clock):
    """Others need not wait; later there may be another."""
    ann, bob = Connection("ann", None), Connection("bob", None)
    connections = search(ann, bob)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(connections.evict, "ann")
        await trio.sleep(0.1)
        begun = trio.current_time()
        await connections.evict("ann")
        assert trio.current_time() == begun
        nursery.start_soon(connections.evict, "bob")
    assert (ann.pings, bob.pings) == (1, 1)
    await connections.evict("ann")
    assert ann.pings == 2


async def test_lookups_are_charged_to_their_user(autojump_clock):
    """Each pays from its own budget."""
    budgets = Budgets()
    ann, bob = budgets.payer("ann"), budgets.payer("bob")
    assert (ann.name, bob.name) == ("ann", "bob")
    assert ann.pay(USER_LOOKUPS * 4) == 0
    assert 0.9 < ann.pay(USER_LOOKUPS) <= 1.0
    assert bob.pay(USER_LOOKUPS) == 0


async def test_symbols_that_are_not_in_memory_cost_commands(autojump_clock):
    """By the dozen; fewer are free."""
    budgets = Budgets()
    assert budgets.charge_cold("ann", COLD_A_COMMAND - 1).name == "ann"
    assert budgets.commands.wait("ann", 1e9) == 0
    budgets.charge_cold("ann", COLD_A_COMMAND)
    assert 0 < budgets.commands.wait("ann", 1e9) < 0.001
