"""Snapshots over HTTP through Redis and Postgres: hits, misses, and the queries that the cache saves.

It starts a Postgres, a Redis and the server. Requests come at a steady rate below saturation. A latency
counts from when the request was due, so that a stall shows in all requests that it delays. "Inside"
latencies come from the server's own histograms.

The saving is measured at one rate, with and without the cache. Requests follow Zipf's law: few symbols
are requested often. Entries expire meanwhile, as in service. TTL and number of symbols are scaled down
by the same factor, as a run would otherwise last many times five minutes.
"""

import argparse
import csv
import http.client
import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from itertools import accumulate
from pathlib import Path
from random import Random
from statistics import quantiles
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress

from bench.figures import ratio
from bench.services import MissingService, Postgres, Redis
from bench.target import OwnServer, TargetError

RATES = {1: 300, 10: 100}
"""Requests a second, by symbols in each request: one symbol, and a page of a watchlist."""

SHIPPED_SYMBOLS = 500
"""The second number of symbols to measure: about the size of the shipped catalogue."""

TTL = 300.0
"""Seconds for which the server caches by default."""

CLIENTS = 4
"""Connections of the load."""

MAX_LAG = 1.0
"""Seconds that a request may be late. If it is later, the rate was not steady."""

ZIPF_EXPONENT = 1.0
"""Exponent of the symbols' popularity: the n-th is requested 1/n as often as the first."""

HIT_TARGET, MISS_TARGET = 0.010, 0.050
"""Seconds at the 99th percentile, as claimed for the service that this server replaces."""

HIT_RATE_TARGET = 0.95
SAVED_TARGET = 0.95
REDIS_TARGET = 11e6
"""Bytes for 10,000 symbols, as claimed for that service."""


class Load(NamedTuple):
    """The result of a steady load. Postgres counts `queries` and `rows`."""

    latencies: list[float]
    hit_rate: float
    queries: int
    rows: int


Kind = tuple[int, int]
"""A kind of load: the number of symbols, before scaling, and of symbols in each request."""


def run_cache(options: argparse.Namespace) -> bool:
    """Measure and print; False if a target was missed."""
    if min(options.symbols, options.requests, *_load_sizes(options.duration)) < 2:
        raise TargetError("too short to say: use more symbols, requests or a longer duration")
    try:
        with Postgres() as postgres, Redis() as redis:
            return _measure(options, postgres, redis)
    except MissingService as error:
        raise TargetError(str(error)) from None


def _measure(options: argparse.Namespace, postgres: Postgres, redis: Redis) -> bool:
    symbols = [f"S{number:05}" for number in range(options.symbols)]
    postgres.sql("CREATE EXTENSION pg_stat_statements")
    _import(symbols, postgres.url())
    url, cache = postgres.url(), redis.url
    with OwnServer(DATABASE_URL=url, REDIS_URL=cache) as server:
        client = Client(server)
        empty = _redis_bytes(redis)
        sample = symbols[: options.requests]
        for start in range(0, len(symbols), 500):
            client.ask(symbols[start : start + 500])
        # The server answers before it has written to the cache.
        time.sleep(1)
        used = _redis_bytes(redis) - empty
        hits = _paced(server, [[symbol] for symbol in sample], RATES[1], "hits")
        redis.command("FLUSHALL")
        misses = _paced(server, [[symbol] for symbol in sample], RATES[1], "misses")
        inside = {
            "hit, inside: the MGET": client.quantile("cache_operation", "get", 0.99),
            "miss, inside: the query": client.quantile("db_query", "find", 0.99),
        }
    good = [_latency("hit", hits, HIT_TARGET), _latency("miss", misses, MISS_TARGET)]
    for name, value in inside.items():
        print(f"{name:<26} p99 at most {value * 1e3:g} ms")
    print(
        f"{'Redis':<26} {used / 1e6:.1f} MB for {len(symbols):,} symbols, "
        f"{used / len(symbols):.0f} bytes each"
    )
    good.append(used <= REDIS_TARGET * len(symbols) / 10_000)
    cached, uncached = (
        _loads(options, postgres, redis, ttl) for ttl in (f"{options.duration}s", "1ms")
    )
    return _report(options.duration, cached, uncached) and all(good)


def _loads(
    options: argparse.Namespace, postgres: Postgres, redis: Redis, ttl: str
) -> dict[Kind, Load]:
    """Measure each kind of load on a server whose cache is in its steady state."""
    loads: dict[Kind, Load] = {}
    redis.command("FLUSHALL")
    with OwnServer(DATABASE_URL=postgres.url(), REDIS_URL=redis.url, CACHE_TTL=ttl) as server:
        for number in (options.symbols, SHIPPED_SYMBOLS):
            symbols = [f"S{n:05}" for n in range(max(1, round(number * options.duration / TTL)))]
            # A load of one TTL brings the cache into its steady state.
            _load(server, postgres, symbols, 1, options.duration)
            for size in RATES:
                loads[number, size] = _load(server, postgres, symbols, size, options.duration)
    return loads


def _report(duration: float, cached: dict[Kind, Load], uncached: dict[Kind, Load]) -> bool:
    good = []
    print(
        f"steady loads with and without a cache, symbols and TTL scaled down by {TTL / duration:g}:"
    )
    for (number, size), load in cached.items():
        without = uncached[number, size]
        saved = _saved(load.queries, without.queries)
        print(
            f"{number:,} symbols, {RATES[size]} requests/s of {size}: hit rate {load.hit_rate:.2%}"
        )
        for what, value, other in (
            ("queries/s", load.queries / duration, without.queries / duration),
            ("rows/s", load.rows / duration, without.rows / duration),
        ):
            share = _saved(value, other)
            text = "too short to say" if share is None else f"{share:.2%} saved"
            print(f"{what:>26} {value:,.1f} and {other:,.1f}, {text}")
        print(f"{'p99':>26} {_p99(load):.2f} and {_p99(without):.2f} ms")
        good += [load.hit_rate > HIT_RATE_TARGET, saved is not None and saved > SAVED_TARGET]
    return all(good)


def _saved(value: float, without: float) -> float | None:
    share = ratio(value, without)
    return None if share is None else 1 - share


def _load_sizes(duration: float) -> list[int]:
    """Return the number of requests of each kind of load."""
    return [round(rate * duration) for rate in RATES.values()]


def _p99(load: Load) -> float:
    return quantiles(load.latencies, n=100)[98] * 1e3


def _latency(name: str, seconds: list[float], target: float) -> bool:
    cuts = quantiles(seconds, n=100)
    print(
        f"{name + ', over HTTP':<26} p50 {cuts[49] * 1e3:.2f} ms, p95 {cuts[94] * 1e3:.2f} ms, "
        f"p99 {cuts[98] * 1e3:.2f} ms; the target is {target * 1e3:g} ms"
    )
    return cuts[98] < target


class Client:
    """One kept-alive HTTP connection."""

    def __init__(self, server: OwnServer) -> None:
        self._server = server
        self._headers = {"Authorization": f"Bearer {server.query('bench', '').split('token=')[1]}"}
        self._connection = http.client.HTTPConnection(urlsplit(server.http).netloc, timeout=30)

    def ask(self, symbols: Sequence[str]) -> None:
        """Request symbols, and check that the answer has all of them."""
        self._connection.request(
            "GET", f"/market-data?symbols={','.join(symbols)}", headers=self._headers
        )
        response = self._connection.getresponse()
        body = response.read()
        if response.status != 200 or len(json.loads(body)) != len(set(symbols)):
            raise TargetError(f"{response.status} {body[:200]!r}")

    def samples(self, metric: str) -> list[tuple[Mapping[str, str], float]]:
        """Return labels and value of all samples of one of the server's metrics."""
        with urllib.request.urlopen(f"{self._server.http}/metrics") as response:
            text = response.read().decode()
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric
        ]

    def lookups(self, result: str) -> float:
        """Return the number of symbols whose cache lookup had this result."""
        samples = self.samples("market_data_cache_requests_total")
        return next(value for labels, value in samples if labels["result"] == result)

    def quantile(self, metric: str, name: str, part: float) -> float:
        """Return the upper bound of the bucket with a histogram's quantile."""
        samples = self.samples(f"market_data_{metric}_seconds_bucket")
        found = [(float(s["le"]), count) for s, count in samples if name in s.values()]
        return next(bound for bound, count in found if count >= part * found[-1][1])


def _load(
    server: OwnServer, postgres: Postgres, symbols: list[str], size: int, duration: float
) -> Load:
    client, random = Client(server), Random(size)
    weights = list(accumulate(1 / (n + 1) ** ZIPF_EXPONENT for n in range(len(symbols))))
    requests = [
        random.choices(symbols, cum_weights=weights, k=size)
        for _ in range(round(RATES[size] * duration))
    ]
    before = {name: client.lookups(name) for name in ("hit", "miss")}
    postgres.sql("SELECT pg_stat_statements_reset()")
    latencies = _paced(server, requests, RATES[size], "Zipf load")
    query = "SELECT coalesce(sum(calls), 0), coalesce(sum(rows), 0) FROM pg_stat_statements "
    counted = postgres.sql(query + "WHERE query LIKE '%symbol = ANY($%'").split("|")
    hits, misses = (client.lookups(name) - before[name] for name in ("hit", "miss"))
    rate = hits / (hits + misses) if hits + misses else 0.0
    return Load(latencies, rate, int(counted[0]), int(counted[1]))


def _paced(
    server: OwnServer, requests: Sequence[Sequence[str]], rate: float, description: str
) -> list[float]:
    """Send `rate` requests a second over CLIENTS connections in turn.

    Return the seconds of each request from when it was due to its answer.
    """
    seconds, late = [0.0] * len(requests), [0.0] * len(requests)
    begin = time.perf_counter() + 0.1

    def send(first: int) -> None:
        client = Client(server)
        for number in range(first, len(requests), CLIENTS):
            due = begin + number / rate
            time.sleep(max(0.0, due - time.perf_counter()))
            late[number] = time.perf_counter() - due
            client.ask(requests[number])
            seconds[number] = time.perf_counter() - due

    with ThreadPoolExecutor(CLIENTS) as pool, Progress(transient=True) as progress:
        senders = [pool.submit(send, first) for first in range(CLIENTS)]
        task = progress.add_task(description, total=len(requests))
        while wait(senders, 0.5).not_done:
            progress.update(task, completed=(time.perf_counter() - begin) * rate)
        for sender in senders:
            sender.result()
    if max(late) > MAX_LAG:
        raise TargetError(f"INVALID: the load did not keep up {rate:g} requests a second")
    return seconds


def _import(symbols: list[str], url: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "instruments.csv"
        with file.open("w", newline="") as lines:
            rows = csv.writer(lines)
            rows.writerow(["symbol", "name", "price"])
            rows.writerows([each, f"Company number {each[1:]} Inc.", "175.5"] for each in symbols)
        done = subprocess.run(
            [sys.executable, "-m", "server", "import", str(file)],
            env={"DATABASE_URL": url, "XDG_STATE_HOME": folder},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise TargetError(done.stderr.strip())


def _redis_bytes(redis: Redis) -> int:
    lines = redis.command("INFO", "memory").splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("used_memory:"))
