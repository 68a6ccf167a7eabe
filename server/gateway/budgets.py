"""Bounds the work of one user or address, over all connections and both ports.

A budget has a token bucket for each key, a user or an address. A bucket is one number, the moment at
which it is full again. Full buckets need no memory, and a new key has a full one.

`size` bounds the number of buckets. When it is reached, full buckets are dropped, and then those
nearest to full. So if an attacker invents keys, they replace other invented keys, not a spent bucket.
To drop a spent bucket, three quarters of the table must have spent more. That takes about `size` bursts
of requests, and gains one burst for one key.

*Rejected:* to drop the least recently used, as 16,384 requests would then forgive any debt. To refuse
new keys when the table is full, as this would shut out honest users.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b

import trio

KEPT = 16_384
"""Buckets that one budget remembers, 3 MB. A bucket is full again seconds after its last use. So the
limit matters only if this many users or addresses are active within the same seconds.
"""

LONGEST_KEY = 64
"""Characters of a key that is kept as it is. A longer one, which may be a whole token, is hashed."""

ROUNDING = 1e-6
"""Seconds by which sums of moments may be wrong."""

COMMAND = 1.0
"""The unit of all work: to read and answer a frame or message, some 40 µs."""

HTTP_REQUEST = 5.0
"""Commands that a request to the HTTP port counts for. A request costs more, but a service that asks
for many users has only one token.
"""

HANDSHAKE = 10.0
"""Commands that an opening handshake counts for: 0.4 ms."""

COLD_A_COMMAND = 12
"""The number of symbols not in memory for which a command counts once more. To resolve one, look it up
and answer that it does not exist takes 3 µs, even if the user's lookups are spent.
"""

SEARCH = 20.0
"""Lookups that a search counts for, as it reads the names of all instruments."""

BARS_A_LOOKUP = 20.0
"""Bars of history that one lookup counts for. A page of 10,000 bars takes some 60 ms."""

BURST_SECONDS = 5.0
"""Seconds' worth of a rate that may come at once. After a deploy all connections of a user come back
and subscribe.
"""


class Budget:
    """Has a bucket for each key, filled at `rate` a second up to `burst` seconds' worth.

    `clock` gives seconds. `refused` counts the charges that were refused.
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
        """Return the number of budgets that are remembered."""
        return len(self._full_at)

    @property
    def most(self) -> float:
        """Return the cost of a whole burst."""
        return self._burst * self.rate

    def take(self, key: str, cost: float = 1.0) -> float:
        """Charge `cost`, at most a burst, and return 0. If too little is left, charge nothing, and
        return the seconds until there is enough.
        """
        wait = self.wait(key, cost)
        if wait:
            self.refused += 1
        else:
            self.add_debt(key, cost)
        return wait

    def add_debt(self, key: str, cost: float) -> None:
        """Charge `cost`, even if too little is left: the next `take` then waits for longer."""
        key, now = _compact(key), self._clock()
        full_at = max(self._full_at.get(key, now), now)
        if len(self._full_at) >= self._size and key not in self._full_at:
            self._make_room(now)
        self._full_at[key] = full_at + min(cost / self.rate, self._burst)

    def charge(self, key: str, cost: float = 1.0) -> None:
        """Charge `cost` if enough is left. This is for work that is already done: it makes no debts."""
        if not self.wait(key, cost):
            self.add_debt(key, cost)

    def wait(self, key: str, cost: float = 1.0) -> float:
        """Return the seconds until there is enough for `cost`, at most a burst; 0 if there is."""
        now = self._clock()
        full_at = max(self._full_at.get(_compact(key), now), now)
        missing = full_at - now + min(cost / self.rate, self._burst) - self._burst
        return missing if missing > ROUNDING else 0.0

    def _make_room(self, now: float) -> None:
        """Drop the full budgets, and the fullest of the others until a quarter of the table is free."""
        in_use = [(full_at, key) for key, full_at in self._full_at.items() if full_at > now]
        in_use.sort(reverse=True)
        del in_use[self._size - max(1, self._size // 4) :]
        self._full_at = {key: full_at for full_at, key in in_use}


def _compact(key: str) -> str:
    if len(key) <= LONGEST_KEY:
        return key
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=24).hexdigest()


USER_COMMANDS = 4000
"""Commands a second of a user, a sixth of a core; or 800 HTTP requests, or 400 handshakes."""

USER_LOOKUPS = 5000
"""Symbols a second that the store looks up for a user."""

LOOKUP_BURST_SECONDS = 4.0
"""Seconds' worth of lookups at once: two and a half of the longest requests, which have 8,000 names."""

ADDRESS_FAILURES = 100
"""Handshakes and requests a second from an address without a known user."""

ADDRESS_REQUESTS = 100
"""HTTP requests a second from an address that need no token."""

ADDRESS_BURST_SECONDS = 10.0
"""Seconds' worth of these at once, as many people may share an address."""


USER_SPENT = "too many commands, connections and requests of yours, slow down"
ADDRESS_SPENT = "too many requests without a good token from your address, try again later"


@dataclass(kw_only=True)
class Budgets:
    """All budgets. The keys of `commands` and `lookups` are users' names; those of `failures` and
    `requests` come from `addresses.budget_key`.
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
        """Return the user in the form that the store's loader needs."""
        return Payer(user, self.lookups)

    def request_payer(self, user: str) -> "RequestPayer":
        """Return the user as the payer of one request."""
        return RequestPayer(user, self.lookups)

    def charge_cold(self, user: str, symbols: int) -> "Payer":
        """Charge for naming `symbols` that are not in memory, and return the payer of their lookups."""
        self.commands.add_debt(user, symbols // COLD_A_COMMAND)
        return self.payer(user)


@dataclass(slots=True, frozen=True)
class Payer:
    """Pays for the lookups of a user."""

    name: str
    budget: Budget

    def pay(self, symbols: float) -> float:
        """Charge a lookup of `symbols` and return 0, or the seconds until there is enough for it."""
        return self.budget.take(self.name, symbols)


@dataclass(slots=True)
class RequestPayer:
    """Pays for one request, which may cost several times: its symbols, then its bars.

    All of it costs at most a burst. Otherwise a request could never pass if its second part alone costs
    a burst, as its first part is charged again at each try.
    """

    name: str
    budget: Budget
    paid: float = 0.0

    def pay(self, symbols: float) -> float:
        """Charge a lookup of `symbols` and return 0, or the seconds until the same request has enough
        for all that it has asked for.
        """
        cost = min(symbols, self.budget.most - self.paid)
        if wait := self.budget.take(self.name, cost):
            return wait + self.paid / self.budget.rate
        self.paid += cost
        return 0.0
