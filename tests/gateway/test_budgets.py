"""Budgets by themselves, on a clock of their own: what they allow, and what they cost in memory."""

import sys

import pytest

from server.gateway.budgets import Budget, RequestPayer

RATE, BURST = 10.0, 2.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def spend(budget: Budget, key: str) -> int:
    """Return how often `cost` could be taken at once."""
    taken = 0
    while not budget.take(key):
        taken += 1
    return taken


def test_a_burst_at_once_and_then_the_rate(clock):
    """A new key has a whole burst, later as much as was refilled, and never more than a burst."""
    budget = Budget(RATE, BURST, clock=clock)
    assert spend(budget, "ann") == 20
    assert spend(budget, "bob") == 20
    clock.now += 0.5
    assert spend(budget, "ann") == 5
    clock.now += 3600
    assert spend(budget, "ann") == 20
    assert budget.refused == 4


def test_refusal_tells_when_to_come_back(clock):
    """After the seconds that `take` returned there is enough, not before; the refusal cost nothing."""
    budget = Budget(RATE, BURST, clock=clock)
    spend(budget, "ann")
    wait = budget.take("ann", 5)
    assert wait == pytest.approx(0.5)
    assert budget.take("ann", 5) == pytest.approx(0.5)
    clock.now += wait - 0.01
    assert budget.take("ann", 5)
    clock.now += 0.02
    assert not budget.take("ann", 5)


def test_what_costs_more_than_a_burst_can_be_had(clock):
    """A cost above a burst is charged as a burst."""
    budget = Budget(RATE, BURST, clock=clock)
    assert not budget.take("ann", 1000)
    assert budget.take("ann")
    clock.now += BURST + 0.01
    assert not budget.take("ann", 1000)


@pytest.mark.parametrize(("first", "second"), [(1, 1000), (15, 5), (15, 15), (0, 8), (20, 1)])
def test_request_passes_after_the_wait_that_it_was_told(clock, first, second):
    """It pays for its parts again at the next try, and in all no more than a burst."""
    budget = Budget(RATE, BURST, clock=clock)
    assert not RequestPayer("ann", budget).pay(1000)
    waits: list[float] = []
    # One wait for each part.
    while len(waits) <= 2 and (wait := _ask(budget, first, second)):
        waits.append(wait)
        clock.now += wait
    assert 1 <= len(waits) <= 2


def _ask(budget: Budget, *costs: float) -> float:
    payer = RequestPayer("ann", budget)
    return next((wait for cost in costs if (wait := payer.pay(cost))), 0.0)


def test_debts_are_made_up_for_and_charges_make_none(clock):
    """`add_debt` delays what follows; `charge` takes only what is left, however often."""
    budget = Budget(RATE, BURST, clock=clock)
    budget.add_debt("ann", 20)
    budget.add_debt("ann", 10)
    assert budget.take("ann") == pytest.approx(1.1)
    for _ in range(1000):
        budget.charge("bob")
    assert budget.take("bob") == pytest.approx(0.1)


def test_work_that_is_done_is_charged_whole_or_not_at_all(clock):
    """It makes no debts, even if a part of it could be paid."""
    budget = Budget(RATE, BURST, clock=clock)
    budget.add_debt("ann", 15)
    budget.charge("ann", 6)
    assert budget.wait("ann", 5) == 0
    budget.charge("ann", 5)
    assert budget.wait("ann", 5) > 0


def test_a_rate_of_less_than_one_a_burst_allows_one(clock):
    """With any settings, a single command is allowed sooner or later."""
    assert not Budget(0.1, BURST, clock=clock).take("ann")


def test_memory_is_bounded_whatever_keys_are_invented(clock):
    """A million users, some with names as long as a token, leave a bounded table of bounded keys."""
    budget = Budget(RATE, BURST, size=1000, clock=clock)
    for number in range(1_000_000):
        budget.take(str(number) if number % 100 else f"{number:02000}")
    assert len(budget) <= 1000
    kept = budget._full_at
    assert sys.getsizeof(kept) + sum(map(sys.getsizeof, kept)) < 200_000


def test_invented_keys_do_not_forgive_a_spent_budget(clock):
    """The key that spent the most is dropped last: after a million others it has the same debt."""
    budget = Budget(RATE, BURST, size=100, clock=clock)
    spend(budget, "ann")
    spend(budget, "a user with a long name " * 10)
    for number in range(100_000):
        budget.take(str(number))
    assert budget.take("ann")
    assert budget.take("a user with a long name " * 10)
    clock.now += 0.1
    assert spend(budget, "ann") == 1


@pytest.mark.parametrize(("size", "kept"), [(1, 0), (3, 2), (8, 6), (20, 15)])
def test_full_table_drops_a_quarter(clock, size, kept):
    """At least one bucket, and never the most spent ones. Buckets that are full by now go first."""
    for seconds in (0.0, 1.0):
        budget = Budget(RATE, BURST, size=size, clock=clock)
        for number in range(size):
            budget.add_debt(f"user{number}", 10)
        clock.now += seconds
        budget.add_debt("another", 10)
        assert len(budget) == (kept if seconds == 0 else 0) + 1


def test_full_budgets_are_dropped_first(clock):
    """Budgets that are full make room, so that those in use are kept."""
    budget = Budget(RATE, BURST, size=100, clock=clock)
    for number in range(60):
        budget.take(f"at rest {number}")
    clock.now += BURST
    for number in range(60):
        for _ in range(10):
            budget.take(f"at work {number}")
    assert all(spend(budget, f"at work {number}") == 10 for number in range(60))
