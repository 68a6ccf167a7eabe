"""Many processes: what a second worker gives, what the bus carries, how long a dead leader is missed.

The load runs on the same cores as the servers. Each part starts a Redis of its own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from time import monotonic

from bench import load
from bench.figures import Figure, Result, Unit
from bench.fleet import measure_fleet
from bench.generator import Generator
from bench.instances import Instance, Traffic, kill, open_redis
from bench.latency import Latencies
from bench.schedule import Schedule, symbol_names
from bench.screen import show
from bench.services import Redis
from bench.steps import search_all
from bench.target import Target, TargetError

CONNECTIONS, DURATION, KILLS = 1000, 5.0, 20

BUS_SYMBOLS = 100
"""Symbols of which the bus carries the moves, one after the other."""

BUS_RATE = 20.0
"""Moves a second of each, 2,000 in all, for what one costs Redis."""

STORM_RATE = 1.0
"""Moves a second of each of these while a worker dies."""

AFTERWARDS = 4.0
"""Seconds for which is listened then: if it led, prices are back."""

BURST_RATE = 4.0
"""Moves a second of the one symbol that all watch."""

TURNS = 2
"""Times that one worker and two are measured."""

EACH = 5
"""Symbols that a connection watches then."""

SAMPLE = 10
"""One connection in so many of these is asked when it got an update."""

INSTANCES = 3
"""Of which the leader is killed, over and over."""

WATCHERS = 10
"""Connections to each instance whose prices stop and go on."""

OFTEN = "20ms"
"""Between two rounds of prices then: what is measured is not the feed's own rest."""

TAKEOVER_MUST = 6.0
"""Seconds: two leases of the default length."""

UNDER_WAY = 0.1
"""Seconds in which what a leader sent before its death has arrived."""

HOPELESS = 30.0
"""Seconds after which nobody waits for prices, or for a leader, any more."""

POLL = 0.002
"""Seconds for which each instance's clients read in turn."""


def run_cluster(options: load.Options, parts: Sequence[str], kills: int) -> Result:
    """Measure those of PARTS that are named."""
    result = Result(
        "cluster",
        f"{options.connections:,} connections, {options.duration:g} s a step, {kills} kills",
    )
    for part in parts:
        PARTS[part](options, kills, result)
    return result


def _measure_workers(options: load.Options, _: int, result: Result) -> None:
    """One price to all connections, and how fast these are let in, by one worker and by two.

    Not the most they send: who is behind joins updates, and the load has filled its core before.
    """
    lasts: dict[int, list[float]] = {1: [], 2: []}
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
            lasts[count].append(median(generator.last.values()) / 1e6)
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
            result.wrong += [f"{label}: {n} × {reason}" for reason, n in generator.failed.items()]
    result.add(
        Figure("2 workers to 1, last client", sum(lasts[2]) / sum(lasts[1]), Unit.RATIO),
        Figure("2 workers to 1, handshakes", sum(handshakes[2]) / sum(handshakes[1]), Unit.RATIO),
    )


def _measure_bus(options: load.Options, _: int, result: Result) -> None:
    """All moves to one client of an instance that has them from the bus, at the highest rate; then
    what an update costs Redis.
    """
    symbols = ",".join(symbol_names(BUS_SYMBOLS))

    @contextmanager
    def start(rate: float) -> Iterator[Target]:
        with open_redis() as redis, _pair(redis, options.schedule(BUS_SYMBOLS, rate)) as follower:
            yield follower

    best = search_all({"bus": start}, BUS_SYMBOLS, 1, symbols, options.duration)["bus"]
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
        updates = window.frames or 1
        result.add(
            Figure("Redis, updates", updates / window.seconds, Unit.PER_SECOND),
            Figure("Redis, in, an update", used.received / updates, Unit.BYTES),
            Figure("Redis, out, an update", used.sent / updates, Unit.BYTES),
            Figure("Redis, CPU an update", used.cpu / updates * 1e6, Unit.MICROSECONDS),
            Figure(
                "Redis, gaps", follower.metric("market_data_bus_gaps_total"), Unit.COUNT, must=0
            ),
        )


@contextmanager
def _pair(redis: Redis, schedule: Schedule) -> Iterator[Instance]:
    """An instance that follows another one, which replays."""
    with Instance(redis, schedule) as leader, Instance(redis, FEED="bus") as follower:
        _wait(lambda: leader.leads)
        yield follower


def _measure_takeover(_: load.Options, kills: int, result: Result) -> None:
    """Prices of the simulator: from the leader's death to the first price at every other instance."""
    times: list[float] = []
    with ExitStack() as stack:
        redis = stack.enter_context(open_redis())

        def start() -> tuple[Instance, Generator]:
            instance = stack.enter_context(Instance(redis, PRICE_UPDATE_INTERVAL=OFTEN))
            generator = stack.enter_context(load.open_generator(instance))
            load.connect(generator, instance, WATCHERS, lambda _: ",".join(symbol_names(EACH)))
            return instance, generator

        cluster = [start() for _ in range(INSTANCES)]
        while len(times) < kills:
            _wait(lambda: sum(instance.leads for instance, _ in cluster) == 1)
            _wait_for_prices([generator for _, generator in cluster])
            dead = next(member for member in cluster if member[0].leads)
            cluster.remove(dead)
            dead[0].kill()
            times.append(_wait_for_prices([generator for _, generator in cluster]))
            show(f"leader {len(times):3} of {kills}: prices again after {times[-1]:.2f} s")
            result.wrong += [
                f"{count} × {reason}"
                for _, generator in cluster
                for reason, count in generator.failed.items()
            ]
            cluster.append(start())
    result.add(
        Figure("takeover p50", median(times), Unit.SECONDS),
        Figure("takeover max", max(times), Unit.SECONDS, must=TAKEOVER_MUST),
    )


def _wait_for_prices(generators: list[Generator]) -> float:
    """Seconds until every instance's clients got a price that was not under way already."""
    start = monotonic()
    while monotonic() < start + UNDER_WAY:
        for generator in generators:
            generator.run_until(monotonic() + POLL)
    for generator in generators:
        generator.reset()
    while not all(generator.frames for generator in generators):
        for generator in generators:
            generator.run_until(monotonic() + POLL)
        if monotonic() > start + HOPELESS:
            raise TargetError("prices do not come back")
    return monotonic() - start


def _measure_storm(options: load.Options, _: int, result: Result) -> None:
    """One of two workers dies: until all that were connected to it have a snapshot again."""
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
        back = Latencies()
        for client in generator.answered:
            back.add(round((client.answered_at - client.opened_at) * 1e6))
        found, others = back.percentiles(), generator.latencies.percentiles()
        result.add(
            Figure("storm, connections lost", lost, Unit.COUNT),
            Figure("storm, all have a snapshot after", seconds, Unit.SECONDS, must=20),
            Figure("storm, snapshot p99", found and found.p99, Unit.SECONDS),
            Figure("storm, the others' p99", others and others.p99, Unit.SECONDS, must=0.1),
            Figure("storm, failed", generator.failed.total(), Unit.COUNT, must=0),
        )
        if generator.failed:
            result.wrong.append(f"storm: {generator.failed.most_common(1)[0][0]}")


def _count_lost(generator: Generator) -> int:
    """How many connections ended, once no more do."""
    lost = -1
    while lost < generator.failed.total():
        lost = generator.failed.total()
        generator.run_until(monotonic() + UNDER_WAY)
    generator.failed.clear()
    return lost


def _wait(check: Callable[[], bool]) -> None:
    deadline = monotonic() + HOPELESS
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
"""By name, in the order in which they run."""
