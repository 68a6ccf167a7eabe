"""Snapshots over HTTP through Redis and Postgres: hits, misses, and what the cache saves the database.

Starts a Postgres, a Redis and the server. Latency is what a client sees on one kept-alive connection;
"inside" is from the server's own histograms. The load is Zipf's: few symbols are asked for often.
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
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from random import Random
from statistics import quantiles
from threading import Thread
from typing import NamedTuple
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from rich.progress import Progress

from bench.services import MissingService, Postgres, Redis
from bench.target import OwnServer, TargetError

REQUEST_SYMBOLS = 10
"""Symbols of one request of the load: a page of a watchlist."""

CLIENTS = 4
"""Connections of the load."""

ZIPF_EXPONENT = 1.0
"""Of the popularity of symbols: the n-th is asked for 1/n as often as the first."""

HIT_TARGET, MISS_TARGET = 0.010, 0.050
"""Seconds at the 99th percentile: what the service this one replaces claims."""

HIT_RATE_TARGET = 0.95
SAVED_TARGET = 0.95
REDIS_TARGET = 11e6
"""Bytes for 10,000 symbols, likewise claimed."""


class Load(NamedTuple):
    """What a Zipf load amounted to. `queries` and `rows` are Postgres's own count."""

    seconds: float
    requests: int
    hit_rate: float
    queries: int
    rows: int


def run_cache(options: argparse.Namespace) -> bool:
    """Measure and print; False if a target was missed."""
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
        misses = [client.ask([symbol]) for symbol in _tracked(sample, "misses")]
        hits = [client.ask([symbol]) for symbol in _tracked(sample, "hits")]
        inside = {
            "hit, inside: the MGET": client.quantile("cache_operation", "get", 0.99),
            "miss, inside: the query": client.quantile("db_query", "find", 0.99),
        }
        redis.command("FLUSHALL")
        loads = [_load(server, client, postgres, symbols, options.duration) for _ in range(2)]
        for start in range(0, len(symbols), 500):
            client.ask(symbols[start : start + 500])
        time.sleep(1)  # writes to the cache wait for nobody
        used = _redis_bytes(redis) - empty
    redis.command("FLUSHALL")
    with OwnServer(DATABASE_URL=url, REDIS_URL=cache, CACHE_TTL="1ms") as server:
        loads.append(_load(server, Client(server), postgres, symbols, options.duration))
    return _report(options.symbols, hits, misses, inside, loads, used)


def _report(
    symbols: int, hits: list[float], misses: list[float], inside: dict[str, float],
    loads: list[Load], used: int,
) -> bool:  # fmt: skip
    good = [
        _latency("hit", hits, HIT_TARGET),
        _latency("miss", misses, MISS_TARGET),
    ]
    for name, value in inside.items():
        print(f"{name:<26} p99 at most {value * 1e3:g} ms")
    names = ("load, cache empty at first", "load, cache filled", "load, without a cache")
    for name, load in zip(names, loads, strict=True):
        print(f"{name:<26} {load.requests / load.seconds:,.0f} requests/s of {REQUEST_SYMBOLS}, "
              f"hit rate {load.hit_rate:.2%}, {load.queries / load.seconds:,.1f} queries/s, "
              f"{load.rows / load.seconds:,.0f} rows/s")  # fmt: skip
    _, cached, uncached = loads
    saved = 1 - cached.queries / cached.requests * uncached.requests / uncached.queries
    print(f"{'queries saved':<26} {saved:.2%} of each request's")
    print(
        f"{'Redis':<26} {used / 1e6:.1f} MB for {symbols:,} symbols, {used / symbols:.0f} bytes each"
    )
    good += [
        cached.hit_rate > HIT_RATE_TARGET, saved > SAVED_TARGET,
        used <= REDIS_TARGET * symbols / 10_000,
    ]  # fmt: skip
    return all(good)


def _latency(name: str, seconds: list[float], target: float) -> bool:
    cuts = quantiles(seconds, n=100)
    print(f"{name + ', over HTTP':<26} p50 {cuts[49] * 1e3:.2f} ms, p95 {cuts[94] * 1e3:.2f} ms, "
          f"p99 {cuts[98] * 1e3:.2f} ms; the target is {target * 1e3:g} ms")  # fmt: skip
    return cuts[98] < target


class Client:
    """One kept-alive connection."""

    def __init__(self, server: OwnServer) -> None:
        self._server = server
        self._headers = {"Authorization": f"Bearer {server.query('bench', '').split('token=')[1]}"}
        self._connection = http.client.HTTPConnection(urlsplit(server.http).netloc, timeout=30)

    def ask(self, symbols: Sequence[str]) -> float:
        """Seconds from the request to its answer, which must have every symbol."""
        start = time.perf_counter()
        self._connection.request(
            "GET", f"/market-data?symbols={','.join(symbols)}", headers=self._headers
        )
        response = self._connection.getresponse()
        body = response.read()
        seconds = time.perf_counter() - start
        if response.status != 200 or len(json.loads(body)) != len(set(symbols)):
            raise TargetError(f"{response.status} {body[:200]!r}")
        return seconds

    def samples(self, metric: str) -> list[tuple[Mapping[str, str], float]]:
        """Labels and value of all samples of one of the server's metrics."""
        with urllib.request.urlopen(f"{self._server.http}/metrics") as response:
            text = response.read().decode()
        return [
            (sample.labels, sample.value)
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == metric
        ]

    def lookups(self, result: str) -> float:
        """How many symbols the cache was asked for with this result."""
        samples = self.samples("market_data_cache_requests_total")
        return next(value for labels, value in samples if labels["result"] == result)

    def quantile(self, metric: str, name: str, part: float) -> float:
        """The upper bound of the bucket that a histogram's quantile is in."""
        samples = self.samples(f"market_data_{metric}_seconds_bucket")
        found = [(float(s["le"]), count) for s, count in samples if name in s.values()]
        return next(bound for bound, count in found if count >= part * found[-1][1])


def _load(
    server: OwnServer, client: Client, postgres: Postgres, symbols: list[str], duration: float
) -> Load:
    before = {name: client.lookups(name) for name in ("hit", "miss")}
    postgres.sql("SELECT pg_stat_statements_reset()")
    end = time.monotonic() + duration
    counts = [0] * CLIENTS
    weights = list(accumulate(1 / (n + 1) ** ZIPF_EXPONENT for n in range(len(symbols))))

    def ask(number: int) -> None:
        mine, random = Client(server), Random(number)
        while time.monotonic() < end:
            mine.ask(random.choices(symbols, cum_weights=weights, k=REQUEST_SYMBOLS))
            counts[number] += 1

    threads = [Thread(target=ask, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    with Progress(transient=True) as progress:
        task = progress.add_task("Zipf load", total=duration)
        while (left := end - time.monotonic()) > 0:
            progress.update(task, completed=duration - left)
            time.sleep(min(left, 0.5))
    for thread in threads:
        thread.join()
    query = "SELECT coalesce(sum(calls), 0), coalesce(sum(rows), 0) FROM pg_stat_statements "
    counted = postgres.sql(query + "WHERE query LIKE '%symbol = ANY($%'").split("|")
    hits, misses = (client.lookups(name) - before[name] for name in ("hit", "miss"))
    rate = hits / (hits + misses) if hits + misses else 0.0
    return Load(duration, sum(counts), rate, int(counted[0]), int(counted[1]))


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
            capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise TargetError(done.stderr.strip())


def _tracked(symbols: list[str], description: str) -> Iterator[str]:
    with Progress(transient=True) as progress:
        yield from progress.track(symbols, description=description)


def _redis_bytes(redis: Redis) -> int:
    lines = redis.command("INFO", "memory").splitlines()
    return next(int(line.split(":")[1]) for line in lines if line.startswith("used_memory:"))
