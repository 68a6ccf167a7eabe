"""Checks the service's components at an interval, and reports their health.

Each component has one named check, a function that grades the component's own counts. A check never
waits. If a component needs I/O (a store, a bus), it does the I/O itself, and the check reads the
result. So health costs nothing and cannot hang.
"""

from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from functools import partial
from time import time, time_ns
from typing import NamedTuple

import structlog
import trio

from server.cluster.member import Member
from server.config.redaction import redact
from server.fanout.freshness import FEED_QUIET
from server.fanout.hub import Hub
from server.fanout.stats import FanoutStats
from server.feeds.live.venue import VenueFeed
from server.gateway.gateway import Gateway
from server.gateway.pool import Pool
from server.intake.intake import Intake
from server.intake.sources import Source
from server.ops.lag import LoopLag
from server.quotes.quote import from_microseconds
from server.sessions.calendar import ALWAYS, Calendar
from server.store.component import Component
from server.store.store import Store

HISTORY = 100
"""Number of past checks that `/health` shows."""

DEGRADED_USE, UNHEALTHY_USE = 0.80, 0.95
"""Shares of the pool's places taken."""

DEGRADED_ERRORS, UNHEALTHY_ERRORS, CRITICAL_ERRORS = 0.05, 0.20, 0.50
"""Shares of the attempts since the last check that the server failed."""

MIN_ATTEMPTS = 20
"""The fewest attempts that make a share: one failure of two is not a trend."""

DEGRADED_LAG, UNHEALTHY_LAG = 0.1, 1.0
"""Longest delay of the event loop since the last check, in seconds."""

OUR_REFUSALS = ("at_capacity",)
"""Reasons of refusals that depend on the server. All others depend on the client's request."""

CLIENTS_FAILURES = ("handshake_timeout", "handshake_aborted", "tls_on_plain_port", "not_http")
"""Reasons for which a client did not finish its handshake."""

TOLD_SOURCES = 10
"""Sources that `/health` describes, those with the highest priority first."""

log = structlog.get_logger()


class Health(IntEnum):
    """The grades, from good to bad. The service has the health of its worst component."""

    HEALTHY = 0
    DEGRADED = 1
    UNHEALTHY = 2
    CRITICAL = 3


class Finding(NamedTuple):
    """The health of one component, and its reason in words with numbers."""

    health: Health
    detail: str


Check = Callable[[], Finding]


class HealthMonitor:
    """Runs the checks, given by the component's name, and keeps their history.

    `intake` is that of the prices from outside, None if there are none. `session`: the market's hours.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        interval: float,
        intake: Intake | None = None,
        session: Calendar = ALWAYS,
    ) -> None:
        self._checks = checks
        self._session = session
        self._interval = interval
        self._intake = intake
        self._findings: dict[str, Finding] = {}
        self._history: deque[dict[str, object]] = deque(maxlen=HISTORY)
        self.health = Health.HEALTHY
        self._since = _now()

    async def run(self) -> None:
        """Check every interval until cancelled. A check that fails does not end the server."""
        while True:
            try:
                self.check()
            except Exception as error:
                log.error("health was not checked", exc_info=error)
            await trio.sleep(self._interval)

    def check(self) -> None:
        """Check every component once, and log a change of the service's health."""
        findings = {name: check() for name, check in self._checks.items()}
        # A driver's message may contain its URL with a password.
        self._findings = {
            name: Finding(each.health, redact(each.detail)) for name, each in findings.items()
        }
        health = max((finding.health for finding in self._findings.values()), default=self.health)
        reasons = [
            f"{name}: {finding.detail}"
            for name, finding in self._findings.items()
            if finding.health is not Health.HEALTHY
        ]
        if health is not self.health:
            log.warning(
                "health changed", health=_name(health), was=_name(self.health), reasons=reasons
            )
            self._since = _now()
        self.health = health
        self._history.append({"at": _now(), "status": _name(health), "reasons": reasons})

    def report(self, *, details: bool = True) -> dict[str, object]:
        """Return the answer of `/health`. The newest check is the last.

        `details` adds the reasons. They name addresses, roles and databases, so only operators get
        them.
        """
        report: dict[str, object] = {
            "status": _name(self.health),
            "since": self._since,
            "session": session_state(self._session, time_ns() // 1000),
            "components": {
                name: _component(finding, details=details)
                for name, finding in self._findings.items()
            },
            "checks": [
                check if details else {"at": check["at"], "status": check["status"]}
                for check in self._history
            ],
        }
        return report | ({"publishing": publishing_numbers(self._intake)} if self._intake else {})


def _component(finding: Finding, *, details: bool) -> dict[str, str]:
    status = {"status": _name(finding.health)}
    return status | {"detail": finding.detail} if details else status


def service_checks(hub: Hub, gateway: Gateway, lag: LoopLag) -> dict[str, Check]:
    """Return the checks of components that every server has."""
    return {
        "pool": lambda: check_pool(gateway.pool),
        "refusals": _Share(lambda: _refusals(gateway.pool), "connections refused for want of room"),
        "errors": _Share(lambda: _errors(gateway), "connections failed by an internal error"),
        "clients": lambda: check_clients(gateway.pool),
        "event_loop": lambda: check_lag(lag.take_worst("health")),
        "feed": lambda: check_feed(hub),
        "overload": lambda: check_overload(hub),
    }


def store_checks(store: Store) -> dict[str, Check]:
    """Return the checks of the catalogue and the cache. Streaming continues without either."""
    return {component.role: partial(check_component, component) for component in store.components}


def cluster_checks(member: Member | None) -> dict[str, Check]:
    """Return the check of the bus, if there is one."""
    return {"bus": partial(check_bus, member)} if member else {}


def check_bus(member: Member) -> Finding:
    """Check whether published batches arrive. The feed's check tells whether prices are stale."""
    if member.bus.tried.is_set() and not member.bus.connection:
        return Finding(Health.DEGRADED, f"the bus is lost: {member.bus.problem}")
    if member.bus.refusal:
        return Finding(Health.DEGRADED, f"the bus does not do as asked: {member.bus.refusal}")
    return Finding(
        Health.HEALTHY, f"{'leading' if member.leading else 'following'} {member.epoch or 0}"
    )


def check_component(component: Component) -> Finding:
    """Check whether a part of the store answers."""
    if component.state == "ok":
        return Finding(Health.HEALTHY, f"{component.name} answers")
    return Finding(Health.DEGRADED, f"{component.name} is {component.state}: {component.reason}")


def check_pool(pool: Pool) -> Finding:
    """Check how many of the pool's places are taken."""
    health = _grade(pool.use, DEGRADED_USE, UNHEALTHY_USE)
    return Finding(health, f"{pool.use:.0%} of the connections are taken")


def check_clients(pool: Pool) -> Finding:
    """Count the failures of clients. They are never the server's error."""
    unfinished = sum(pool.rejected[reason] for reason in CLIENTS_FAILURES)
    detail = f"{unfinished} never finished a handshake, {pool.lost} were silent or too slow"
    return Finding(Health.HEALTHY, f"since the start, {detail}")


def check_lag(worst: float) -> Finding:
    """Check how late timers were."""
    return Finding(
        _grade(worst, DEGRADED_LAG, UNHEALTHY_LAG), f"timers were late by {worst * 1000:.0f} ms"
    )


def check_feed(hub: Hub) -> Finding:
    """Check whether prices flow: a quiet feed may be a resting market, any other stop is critical."""
    status = hub.status.message
    if status.status == "stale":
        health = Health.DEGRADED if status.reason == FEED_QUIET else Health.CRITICAL
        return Finding(health, f"prices do not flow: {status.reason}")
    return Finding(Health.HEALTHY, _feed_age(hub.stats))


def check_publishing(intake: Intake) -> Finding:
    """Check whether the first sources speak, and say how many trades are held back."""
    now, sources = time_ns() // 1000, intake.sources
    held = f"{intake.held.count} trades held, {intake.held.dropped} dropped"
    told = sorted(sources.all.values(), key=lambda source: (source.rank, -source.heard_at))
    lines = [_source(source, now) for source in told[:TOLD_SOURCES]]
    since = now - sources.silent_after_us
    silent = [source.rank for source in told if source.heard_at < since]
    speaking = [source.rank for source in told if source.heard_at >= since]
    failed_over = bool(silent and speaking) and min(silent) < min(speaking)
    health = Health.DEGRADED if failed_over else Health.HEALTHY
    return Finding(health, "; ".join([held, *lines]))


def session_state(session: Calendar, now: int) -> dict[str, object]:
    """Return whether the market is open, and the next opening, if there is one."""
    state: dict[str, object] = {"status": "open" if session.is_open(now) else "closed"}
    next_open = session.next_opening(now)
    if next_open is None:
        return state
    return state | {"next_open": f"{from_microseconds(next_open):%Y-%m-%dT%H:%M:%SZ}"}


def publishing_numbers(intake: Intake) -> dict[str, object]:
    """Return the trades held and dropped, and how each source does, as of now."""
    now = time_ns() // 1000
    sources = {source.name: _numbers(source, now) for source in intake.sources.all.values()}
    return {"held": intake.held.count, "dropped": intake.held.dropped, "sources": sources}


def _numbers(source: Source, now: int) -> dict[str, float]:
    silence, lag = (now - source.heard_at) / 1e6, source.lag_us / 1e6
    return {"lag": lag, "rate": round(source.rate(now), 3), "silence": silence}


def _source(source: Source, now: int) -> str:
    numbers = "{rate:.1f}/s, lag {lag:.3f} s, silent for {silence:.1f} s"
    return f"{source.name}: {numbers.format(**_numbers(source, now))}"


def check_venue(feed: VenueFeed) -> Finding:
    """Check whether a live venue is connected."""
    told = f"{feed.connections} connections, {feed.missed} trades missed"
    if feed.connected:
        return Finding(Health.HEALTHY, told)
    return Finding(Health.DEGRADED, f"not connected; {told}")


def check_overload(hub: Hub) -> Finding:
    """Check whether an overload conflates all updates."""
    if hub.conflation:
        return Finding(Health.DEGRADED, f"one update of a symbol every {hub.conflation:g} s")
    return Finding(Health.HEALTHY, "every update is published")


class _Share:
    """A check of the share of failures since the last check.

    `count` returns the number of failures and of attempts since the start.
    """

    def __init__(self, count: Callable[[], tuple[int, int]], what: str) -> None:
        self._count = count
        self._what = what
        self._before = (0, 0)

    def __call__(self) -> Finding:
        failures, attempts = self._count()
        old_failures, old_attempts = self._before
        self._before = (failures, attempts)
        failed, total = failures - old_failures, attempts - old_attempts
        share = failed / total if total >= MIN_ATTEMPTS else 0.0
        health = _grade(share, DEGRADED_ERRORS, UNHEALTHY_ERRORS, CRITICAL_ERRORS)
        return Finding(health, f"{failed} of {total} {self._what}")


def _refusals(pool: Pool) -> tuple[int, int]:
    refused = sum(pool.rejected[reason] for reason in OUR_REFUSALS)
    return refused, pool.opened_total + refused


def _errors(gateway: Gateway) -> tuple[int, int]:
    return gateway.failures, max(gateway.failures, gateway.pool.closed.total())


def _feed_age(stats: FanoutStats) -> str:
    age = time() - stats.last_intake_us / 1e6
    return f"the last trade came {age:.1f} s ago" if stats.feed_updates else "no trade yet"


def _grade(value: float, *limits: float) -> Health:
    return Health(sum(value > limit for limit in limits))


def _name(health: Health) -> str:
    return health.name.lower()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
