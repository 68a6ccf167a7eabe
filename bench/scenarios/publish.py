"""Prices from outside: through `POST /prices`, 500 a request, and `/ws/prices`, one a frame.

Every client watches five of fifty symbols. Each way is measured twice: as fast as the server answers,
then at `--rate` prices a second, through `/ws/prices` at a third of that. The latency is of the second.
"""

from collections.abc import Callable
from time import time_ns

from bench import load
from bench.figures import Figure, Result, Unit, ratio
from bench.generator import Generator
from bench.latency import Latencies
from bench.publishers import HttpPublisher, Prices, Publisher, SocketPublisher, publish, settle
from bench.schedule import largest_instruments
from bench.target import OwnServer, TargetError

CONNECTIONS, DURATION, RATE = 100, 10, 6000.0
SYMBOLS, EACH = 50, 5

SAMPLE = 5
"""One client in SAMPLE parses its messages, the others count frames."""

PUBLISHERS = 4
"""Connections of publishers, each with symbols of its own: one sends while others wait."""

WAYS = {"POST": (12_000, 20_000, 1.0), "WebSocket": (4000, 5000, 1 / 3)}
"""Prices a second that each way must reach, those to aim at, and its share of `--rate`."""

LONGEST = 0.025
"""Seconds within which 99 % of the prices must reach a client after the server took them."""


def run(options: load.Options) -> Result:
    """Measure both ways. A price that a client misses makes the result a failure."""
    if options.url:
        raise TargetError("publish measures a server of its own: leave --url out")
    result = Result(
        "publish",
        f"{SYMBOLS} symbols to {options.connections} clients with {EACH} each, "
        f"{options.duration:g} s as fast as possible and {options.duration:g} s at a fixed rate",
    )
    instruments = largest_instruments(SYMBOLS)
    opened: dict[str, Callable[[Generator, OwnServer], list[Publisher]]] = {
        "POST": lambda generator, server: [
            HttpPublisher(generator, server, Prices(instruments[place::PUBLISHERS]))
            for place in range(PUBLISHERS)
        ],
        "WebSocket": lambda generator, server: [
            SocketPublisher(generator, server, Prices(instruments[place::PUBLISHERS]))
            for place in range(PUBLISHERS)
        ],
    }
    for way, open_publishers in opened.items():
        with (
            OwnServer(FEED="push") as server,
            load.open_generator(server, options.form) as generator,
        ):
            symbols = [symbol for symbol, _ in instruments]
            choose = load.choose_some(symbols, EACH)
            load.connect(generator, server, options.connections, choose, sample=SAMPLE)
            _measure(way, options, server, generator, open_publishers(generator, server), result)
    return result


class _Travel:
    """The time of each price from its publisher to a client of the sample."""

    def __init__(self, generator: Generator, publishers: list[Publisher]) -> None:
        self.latencies = Latencies()
        self._sent = {
            symbol: sent for each in publishers for symbol, sent in each.prices.sent.items()
        }
        # Each price is one version.
        self._first = {
            symbol: version + 1 - len(self._sent[symbol])
            for client in generator.clients
            for symbol, version in client.versions.items()
        }
        generator.on_update = self._on_update

    def _on_update(self, symbol: bytes, version: int) -> None:
        sent = self._sent[symbol][version - self._first[symbol]]
        self.latencies.add(time_ns() // 1000 - sent)


def _measure(
    way: str,
    options: load.Options,
    server: OwnServer,
    generator: Generator,
    publishers: list[Publisher],
    result: Result,
) -> None:
    must, aim, share = WAYS[way]
    before = sum(each.answered for each in publishers)
    meter = load.Meter(server, generator)
    active = server.active_seconds()
    most = publish(generator, publishers, options.duration)
    idle = max(0.0, 1 - (server.active_seconds() - active) / options.duration)
    settle(generator, publishers)
    window = meter.read()
    result.busy = max(result.busy, window.busy)
    prices = sum(each.answered for each in publishers) - before
    cost = None if window.cpu_seconds is None else window.cpu_seconds * 1e6 / prices
    result.add(
        Figure(f"{way}, prices", most, Unit.PER_SECOND, must, aim, at_least=True),
        Figure(f"{way}, server CPU a price", cost, Unit.MICROSECONDS),
        Figure(f"{way}, prices a second of CPU", ratio(1e6, cost), Unit.PER_SECOND),
        Figure(f"{way}, frames delivered", window.frames / window.seconds, Unit.PER_SECOND),
        Figure(f"{way}, server", window.core, Unit.CORE),
        # If it is idle, the publishers are the bottleneck.
        Figure(f"{way}, server idle", idle, Unit.CORE),
        Figure(f"{way}, generator", window.busy, Unit.CORE),
    )
    travel = _Travel(generator, publishers)
    generator.reset()
    rate = publish(generator, publishers, options.duration, options.rate * share)
    settle(generator, publishers)
    behind = load.behind(generator)
    found, sent = generator.latencies.percentiles(), travel.latencies.percentiles()
    result.add(
        Figure(f"{way} at a fixed rate, prices", rate, Unit.PER_SECOND),
        Figure(f"{way}, intake to client p50", found and found.p50, Unit.SECONDS),
        Figure(f"{way}, intake to client p99", found and found.p99, Unit.SECONDS, must=LONGEST),
        Figure(f"{way}, publisher to client p50", sent and sent.p50, Unit.SECONDS),
        Figure(f"{way}, publisher to client p99", sent and sent.p99, Unit.SECONDS),
    )
    missed = generator.missed + behind
    if missed:
        result.wrong.append(f"{way}: {missed} versions missed")
    load.check_failures(generator, result, f"{way}: ")
