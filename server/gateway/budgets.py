"""How much of the server one user, and one address, may take: over all connections and both ports.

A budget is a token bucket for each key. It is kept as one number, the moment at which it is full
again: a budget that is full is one that need not be remembered, and a new key has a full one.

The memory is bounded by `size`. Where that is reached, full budgets are dropped; if there are too
few of these, those that are nearest to full. So whoever invents keys evicts the keys invented just
before, never a budget that is spent: for that, three quarters of the table must have spent more than
it. That takes `size` times a burst of requests, for one burst of one key. *Rejected:* to drop the
least recently used, as 16,384 requests would then forgive any debt; to refuse new keys when the table
is full, as this would shut out honest users.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

import trio

KEPT = 16_384
"""Budgets of one kind that are remembered, 3 MB. A budget is full again seconds after its last use, so
as many users, or addresses, have to be at work within the same seconds to reach this.
"""

LONGEST_KEY = 64
"""Characters of a key that is kept as it is; a longer one, up to a whole token, is hashed."""

ROUNDING = 1e-6
"""Seconds: sums of moments are not exact."""

COMMAND = 1.0
"""What all other work is measured in: a frame or message read and answered, some 40 µs."""

HTTP_REQUEST = 5.0
"""Commands that a request to the second port counts for: less than it takes, as services that ask
for all their users have one token.
"""

HANDSHAKE = 10.0
"""Commands that an opening handshake counts for: 0.4 ms."""

COLD_A_COMMAND = 12
"""A command counts once more for so many symbols it names that are not in memory: to resolve these,
look them up and tell that they do not exist takes 3 µs each, though the user's lookups are spent.
"""

SEARCH = 20.0
"""Lookups that a search counts for: it reads the names of all instruments."""

BURST_SECONDS = 5.0
"""Seconds' worth of a rate that may come at once: a user's connections all come back after a deploy,
and then subscribe.
"""


class Budget:
    """One bucket a key, filled at `rate` a second up to what `burst` seconds give.

    `clock` gives seconds. `refused` counts what there was nothing left for.
    """

    def __init__(
        self,
        rate: float,
        burst: float = BURST_SECONDS,
        *,
        size: int = KEPT,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        self.rate = rate
        self.refused = 0
        self._burst = max(burst, 1 / rate)
        self._size = size
        self._clock = clock
        self._full_at: dict[str, float] = {}

    def __len__(self) -> int:
        """Return how many budgets are remembered."""
        return len(self._full_at)

    def take(self, key: str, cost: float = 1.0) -> float:
        """Charge `cost`, at most a burst; 0 if it was there, else nothing is charged: come back after
        so many seconds.
        """
        wait = self.wait(key, cost)
        if wait:
            self.refused += 1
        else:
            self.add_debt(key, cost)
        return wait

    def add_debt(self, key: str, cost: float) -> None:
        """Charge `cost`, also if it is not there: it is made up for before the next `take`."""
        key, now = _compact(key), self._clock()
        full_at = max(self._full_at.get(key, now), now)
        if len(self._full_at) >= self._size and key not in self._full_at:
            self._make_room(now)
        self._full_at[key] = full_at + min(cost / self.rate, self._burst)

    def charge(self, key: str, cost: float = 1.0) -> None:
        """Charge `cost` as far as it is there: what cannot be refused any more makes no debts."""
        if not self.wait(key, cost):
            self.add_debt(key, cost)

    def wait(self, key: str, cost: float = 1.0) -> float:
        """Return the seconds until `cost`, at most a burst, is there; 0 if it is."""
        now = self._clock()
        full_at = max(self._full_at.get(_compact(key), now), now)
        missing = full_at - now + min(cost / self.rate, self._burst) - self._burst
        return missing if missing > ROUNDING else 0.0

    def _make_room(self, now: float) -> None:
        """Drop the budgets that are full, and as many of the fullest as make a quarter of the room."""
        in_use = [(full_at, key) for key, full_at in self._full_at.items() if full_at > now]
        in_use.sort(reverse=True)
        del in_use[self._size - max(1, self._size // 4) :]
        self._full_at = {key: full_at for full_at, key in in_use}


def _compact(key: str) -> str:
    if len(key) <= LONGEST_KEY:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


USER_COMMANDS = 4000
"""Commands a second of a user: 800 HTTP requests or 400 handshakes, a sixth of a core as commands."""

USER_LOOKUPS = 5000
"""Symbols a second that a user may have looked up in the store."""

LOOKUP_BURST_SECONDS = 4.0
"""Seconds' worth of lookups at once: two and a half of the longest request, 8,000 names."""

ADDRESS_FAILURES = 100
"""Handshakes and requests a second that come to no user, of an address."""

ADDRESS_REQUESTS = 100
"""HTTP requests a second for which no token is asked, of an address."""

ADDRESS_BURST_SECONDS = 10.0
"""Seconds' worth of these at once: many people may share an address."""


USER_SPENT = "too many commands, connections and requests of yours, slow down"
ADDRESS_SPENT = "too many requests without a good token from your address, try again later"


@dataclass(kw_only=True)
class Budgets:
    """The budgets there are: of users by name, `commands` and `lookups`; of addresses by
    `addresses.budget_key`, `failures` and `requests`.
    """

    commands: Budget = field(default_factory=lambda: Budget(USER_COMMANDS))
    lookups: Budget = field(default_factory=lambda: Budget(USER_LOOKUPS, LOOKUP_BURST_SECONDS))
    failures: Budget = field(
        default_factory=lambda: Budget(ADDRESS_FAILURES, ADDRESS_BURST_SECONDS)
    )
    requests: Budget = field(
        default_factory=lambda: Budget(ADDRESS_REQUESTS, ADDRESS_BURST_SECONDS)
    )

    def payer(self, user: str) -> "Payer":
        """Return the user as the store's loader knows one."""
        return Payer(user, self.lookups)

    def charge_cold(self, user: str, symbols: int) -> "Payer":
        """Charge what it takes to name `symbols` that are not in memory; who then pays for lookups."""
        self.commands.add_debt(user, symbols // COLD_A_COMMAND)
        return self.payer(user)


@dataclass(slots=True, frozen=True)
class Payer:
    """A user for whom symbols are looked up."""

    name: str
    budget: Budget

    def pay(self, symbols: float) -> float:
        """Charge a lookup of so many symbols; 0 if that is paid, else the seconds until it can be."""
        return self.budget.take(self.name, symbols)
