"""Many processes: the gain of a second worker, the bus's limit, and the recovery from a dead leader.

The load runs on the same cores as the servers. Each part starts a Redis of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from statistics import median
from time import monotonic

from bench import load
from bench.figures import Figure, Result, Unit, ratio
from bench.fleet import measure_fleet
from bench.generator import Generator
from bench.instances import Instance, Traffic, kill, open_redis
from bench.schedule import Schedule, symbol_names
from bench.screen import show
from bench.services import Redis
from bench.steps import search_all
from bench.target import Target, TargetError

CONNECTIONS, DURATION, KILLS = 1000, 5.0, 20

OTHERS_TARGET = 0.1
"""Seconds at the 99th percentile for the clients of other workers, while a killed one's come back."""

BUS_SYMBOLS = 100
"""Symbols whose moves the bus carries, one after the other."""

BUS_RATE = 20.0
"""Moves a second of each symbol, 2,000 in all, to measure a move's cost for Redis."""

STORM_RATE = 1.0
"""Moves a second of each symbol while a worker dies."""

AFTERWARDS = 4.0
"""Seconds to read on after a storm. If the worker led, prices are back by then."""

BURST_RATE = 4.0
"""Moves a second of the one symbol that all connections watch."""

TURNS = 2
"""Number of times that one worker and two workers are measured."""

EACH = 5
"""Symbols of one connection in the parts `takeover` and `storm`."""

SAMPLE = 10
"""One connection in SAMPLE records when it got each update."""

INSTANCES = 3
"""Instances of the part `takeover`, which kills the leader again and again."""

WATCHERS = 10
"""Connections to each of these instances."""

OFTEN = "20ms"
"""Their feed's interval: short, as it adds to the time without prices."""

TAKEOVER_MUST = 6.0
"""Seconds: two leases of the default length."""

UNDER_WAY = 0.1
"""Seconds in which the last updates of a dead leader arrive."""

WAIT_TIMEOUT = 30.0
"""Seconds to wait for prices or for a leader."""

POLL = 0.002
"""Seconds for which each instance's clients read in turn."""


def run_cluster(options: load.Options, parts: Sequence[str], kills: int) -> Result:
    """Measure the named ones of PARTS."""
    result = Result(
        "cluster",
        f"{options.connections:,} connections, {options.duration:g} s a step, {kills} kills",
    )
    for part in parts:
        PARTS[part](options, kills, result)
    return result


def _measure_workers(options: load.Options, _: int, result: Result) -> None:
    """Measure one price to all connections and their handshakes, with one worker and with two.

    It does not measure the highest rate: a server that is behind joins updates, and the load would fill
    its own core first.
    """
    lasts: dict[int, list[float | None]] = {1: [], 2: []}
    handshakes: dict[int, list[float]] = {1: [], 2: []}
    schedule = options.schedule(1, BURST_RATE, together=True)
    watch_one: load.Choice = lambda _: schedule.symbols[0]  # noqa: E731 (a name for the type's sake)
    for turn in range(2 * TURNS):
        count = turn % 2 + 1
        with (
            open_redis() as redis,
            Instance(redis, schedule, workers=count) as target,
            load.open_generator(target) as generator,
        ):
            seconds = load.connect(generator, target, options.connections, watch_one, sample=SAMPLE)
            generator.run_until(monotonic() + load.SETTLE)
            window = load.measure(target, generator, options.duration, Result("", ""))
            result.busy = max(result.busy, window.busy)
            found_last = generator.last.values()
            lasts[count].append(median(found_last) / 1e6 if found_last else None)
            handshakes[count].append(options.connections / seconds)
            found = generator.latencies.percentiles()
            label = f"{count} worker{'s' * (count > 1)}, turn {turn // 2 + 1}"
            result.add(
                Figure(f"{label}, handshakes", handshakes[count][-1], Unit.PER_SECOND),
                Figure(f"{label}, delivered", window.frames / window.seconds, Unit.PER_SECOND),
                Figure(f"{label}, p50", found and found.p50, Unit.SECONDS),
                Figure(f"{label}, p99", found and found.p99, Unit.SECONDS),
                Figure(f"{label}, last client", lasts[count][-1], Unit.SECONDS),
                Figure(f"{label}, servers", window.core, Unit.CORE),
                Figure(f"{label}, generator", window.busy, Unit.CORE),
            )
            load.check_failures(generator, result, f"{label}: ")
    known = {count: [last for last in found if last is not None] for count, found in lasts.items()}
    complete = all(len(found) == TURNS for found in known.values())
    last_ratio = ratio(sum(known[2]), sum(known[1])) if complete else None
    result.add(
        Figure("2 workers to 1, last client", last_ratio, Unit.RATIO),
        Figure("2 workers to 1, handshakes", sum(handshakes[2]) / sum(handshakes[1]), Unit.RATIO),
    )


def _measure_bus(options: load.Options, _: int, result: Result) -> None:
    """Find the highest rate of moves to one client of a follower, then the cost of a move for Redis."""
    symbols = ",".join(symbol_names(BUS_SYMBOLS))

    @contextmanager
    def start(rate: float) -> Iterator[Target]:
        with open_redis() as redis, _pair(redis, options.schedule(BUS_SYMBOLS, rate)) as follower:
            yield follower

    alone = replace(options, connections=1)
    best = search_all({"bus": start}, BUS_SYMBOLS, symbols, alone)["bus"]
    if best is None or best.latency is None:
        result.wrong.append("bus: no rate was slow enough")
        return
    result.add(
        Figure("bus, updates", best.frames, Unit.PER_SECOND),
        Figure("bus, p50", best.latency.p50, Unit.SECONDS),
        Figure("bus, p99", best.latency.p99, Unit.SECONDS),
        Figure("bus, instance that follows", best.core, Unit.CORE),
    )
    with (
        open_redis() as redis,
        _pair(redis, options.schedule(BUS_SYMBOLS, BUS_RATE)) as follower,
        load.open_generator(follower) as generator,
    ):
        load.connect(generator, follower, 1, lambda _: symbols)
        before = Traffic.read(redis)
        window = load.measure(follower, generator, options.duration, Result("", ""))
        used = Traffic.read(redis).since(before)
        updates = window.frames
        result.add(
            Figure("Redis, updates", updates / window.seconds, Unit.PER_SECOND),
            Figure("Redis, in, an update", ratio(used.received, updates), Unit.BYTES),
            Figure("Redis, out, an update", ratio(used.sent, updates), Unit.BYTES),
            Figure("Redis, CPU an update", ratio(used.cpu * 1e6, updates), Unit.MICROSECONDS),
            Figure(
                "Redis, gaps", follower.metric("market_data_bus_gaps_total"), Unit.COUNT, must=0
            ),
        )


@contextmanager
def _pair(redis: Redis, schedule: Schedule) -> Iterator[Instance]:
    """Start a leader that replays `schedule`, and yield its follower."""
    with Instance(redis, schedule) as leader, Instance(redis, FEED="bus") as follower:
        _wait(lambda: leader.leads)
        yield follower


def _measure_takeover(_: load.Options, kills: int, result: Result) -> None:
    """Measure the time from a leader's death to the first price of every other instance."""
    times: list[float] = []
    clients: dict[Instance, Generator] = {}
    with ExitStack() as stack:
        redis = stack.enter_context(open_redis())

        def start() -> None:
            instance = stack.enter_context(Instance(redis, PRICE_UPDATE_INTERVAL=OFTEN))
            clients[instance] = stack.enter_context(load.open_generator(instance))
            symbols = ",".join(symbol_names(EACH))
            load.connect(clients[instance], instance, WATCHERS, lambda _: symbols)

        while len(clients) < INSTANCES:
            start()
        while len(times) < kills:
            _wait(lambda: sum(instance.leads for instance in clients) == 1)
            _wait_for_prices([*clients.values()])
            leader = next(instance for instance in clients if instance.leads)
            del clients[leader]
            leader.kill()
            times.append(_wait_for_prices([*clients.values()]))
            show(f"leader {len(times):3} of {kills}: prices again after {times[-1]:.2f} s")
            for generator in clients.values():
                load.check_failures(generator, result)
            start()
    result.add(
        Figure("takeover p50", median(times), Unit.SECONDS),
        Figure("takeover max", max(times), Unit.SECONDS, must=TAKEOVER_MUST),
    )


def _wait_for_prices(generators: list[Generator]) -> float:
    """Return the seconds until the clients of every instance got a new price."""
    start = monotonic()
    while monotonic() < start + UNDER_WAY:
        for generator in generators:
            generator.run_until(monotonic() + POLL)
    for generator in generators:
        generator.reset()
    while not all(generator.frames for generator in generators):
        for generator in generators:
            generator.run_until(monotonic() + POLL)
        if monotonic() > start + WAIT_TIMEOUT:
            raise TargetError("prices do not come back")
    return monotonic() - start


def _measure_storm(options: load.Options, _: int, result: Result) -> None:
    """Kill one of two workers, and measure until all its clients have a snapshot again."""
    schedule = options.schedule(BUS_SYMBOLS, STORM_RATE)
    choose = load.choose_some(schedule.symbols, EACH)
    with (
        open_redis() as redis,
        Instance(redis, schedule, workers=2) as target,
        load.open_generator(target) as generator,
    ):
        load.connect(generator, target, options.connections, choose, sample=SAMPLE)
        kill(target.workers[0])
        meter = load.Meter(target, generator)
        lost = _count_lost(generator)
        generator.answered.clear()
        seconds = load.connect(generator, target, lost, choose, in_flight=lost, sample=SAMPLE)
        generator.run_until(monotonic() + AFTERWARDS)
        window = meter.read()
        load.note_course(generator, window, result)
        found = load.first_messages(generator).percentiles()
        others = generator.latencies.percentiles()
        result.add(
            Figure("storm, connections lost", lost, Unit.COUNT),
            Figure("storm, all have a snapshot after", seconds, Unit.SECONDS, must=20),
            Figure("storm, snapshot p99", found and found.p99, Unit.SECONDS),
            Figure(
                "storm, the others' p99", others and others.p99, Unit.SECONDS, must=OTHERS_TARGET
            ),
            Figure("storm, failed", generator.failed.total(), Unit.COUNT, must=0),
        )
        if generator.failed:
            result.wrong.append(f"storm: {generator.failed.most_common(1)[0][0]}")


def _count_lost(generator: Generator) -> int:
    """Count the connections that ended, once no more do."""
    while True:
        lost = generator.failed.total()
        generator.run_until(monotonic() + UNDER_WAY)
        if generator.failed.total() == lost:
            generator.failed.clear()
            return lost


def _wait(check: Callable[[], bool]) -> None:
    deadline = monotonic() + WAIT_TIMEOUT
    while not check():
        if monotonic() > deadline:
            raise TargetError("the cluster does not settle on a leader")


PARTS: dict[str, Callable[[load.Options, int, Result], None]] = {
    "workers": _measure_workers,
    "bus": _measure_bus,
    "takeover": _measure_takeover,
    "storm": _measure_storm,
    "fleet": measure_fleet,
}
"""The parts by name, in the order in which they run."""
