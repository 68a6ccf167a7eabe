"""One price to many real connections: does each get every update, and what does it cost?"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import quantiles
from time import time

from rich.progress import Progress

from bench.listeners import Listeners
from bench.target import Target, TargetError

SYMBOL = "AAPL"

USERS_CONNECTIONS = 100
"""Connections each user opens: what WS_MAX_CONNECTIONS_PER_USER allows by default."""

BUSY = 0.9
"""Share of a core above which the generator, not the server, is what was measured."""

SETTLE = 1.0
"""Seconds to read what came while connecting, when nobody read."""

STEP = 0.5
"""Seconds between two moves of the progress bar."""


def run_fanout(options: argparse.Namespace) -> bool:
    """Measure and print; False if an update was missed or the generator was too busy."""
    if options.url:
        if not options.token:
            raise TargetError("--url needs --token")
        return _measure(options, None)
    connections = str(options.connections)
    variables = {"PRICE_UPDATE_INTERVAL": options.interval, "WS_MAX_CONNECTIONS": connections}
    with Target(**variables) as target:
        return _measure(options, target)


def _measure(options: argparse.Namespace, target: Target | None) -> bool:
    with _listeners() as listeners:
        empty = target.resident_bytes() if target else 0
        _connect(listeners, options, target)
        listeners.read_until(time() + SETTLE)
        listeners.latencies.clear()
        listeners.bytes = 0
        used, server_used = _own_cpu(), target.cpu_seconds() if target else 0.0
        start = time()
        with Progress(transient=True) as progress:
            task = progress.add_task("listening", total=options.duration)
            while (done := time() - start) < options.duration:
                listeners.read_until(min(time() + STEP, start + options.duration))
                progress.update(task, completed=done)
        seconds = time() - start
        busy = (_own_cpu() - used) / seconds
        if target:
            core = (target.cpu_seconds() - server_used) / seconds
            megabytes = target.resident_bytes() / 1e6
            print(f"server     {core:.1%} of a core, {megabytes:.1f} MB resident, "
                  f"{empty / 1e6:.1f} MB without connections")  # fmt: skip
        return _report(listeners, seconds, busy)


def _connect(listeners: Listeners, options: argparse.Namespace, target: Target | None) -> None:
    base = target.url if target else options.url
    start = time()
    with Progress(transient=True) as progress:
        for number in progress.track(range(options.connections), description="connecting"):
            user = f"bench{number // USERS_CONNECTIONS}"
            token = target.token(user) if target else options.token
            listeners.add(f"{base}?symbols={SYMBOL}&token={token}")
    seconds = time() - start
    print(f"connected  {options.connections} in {seconds:.1f} s, one after the other")


def _report(listeners: Listeners, seconds: float, busy: float) -> bool:
    frames = len(listeners.latencies)
    missed = sum(listener.missed for listener in listeners.all)
    newest = max(listener.version for listener in listeners.all)
    behind = sum(newest - listener.version for listener in listeners.all)
    print(f"delivered  {frames} updates in {seconds:.1f} s: {frames / seconds:,.0f} a second, "
          f"{listeners.bytes / seconds / 1e6:.1f} MB/s")  # fmt: skip
    print(f"missed     {missed} on the way, {behind} on their way at the end")
    if frames > 1:
        cuts = quantiles(listeners.latencies, n=1000)
        worst = max(listeners.latencies)
        print(f"latency    p50 {cuts[499] * 1e3:.1f} ms, p95 {cuts[949] * 1e3:.1f} ms, "
              f"p99 {cuts[989] * 1e3:.1f} ms, max {worst * 1e3:.1f} ms")  # fmt: skip
    print(f"generator  {busy:.1%} of a core{' INVALID: too busy to measure' * (busy > BUSY)}")
    return frames > 0 and missed == 0 and busy <= BUSY


def _own_cpu() -> float:
    times = os.times()
    return times.user + times.system


@contextmanager
def _listeners() -> Iterator[Listeners]:
    listeners = Listeners()
    try:
        yield listeners
    finally:
        listeners.close()
