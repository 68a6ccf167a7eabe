"""A trading day at full speed: 137,816 trades of three symbols, over and over, to all clients.

First one client watches all symbols, then `--connections` clients do. `--rate` is not used: the feed is
as fast as the server takes it. Without a recorded day beside the project, a generated one is used.
"""

from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import load
from bench.figures import Figure, Result, Unit
from bench.target import OwnServer, Target
from bench.trading_day import describe, load_day, write_day

CONNECTIONS, DURATION, RATE = 100, 20, 0.0
SAMPLE = 20
"""One client in SAMPLE looks for skipped versions, the others count frames."""

UPDATES = "market_data_feed_updates_total"


def run(options: load.Options) -> Result:
    """Measure. A `replace` that skips a version makes the result a failure."""
    result = Result(
        "replay",
        f"the {describe()} day at full speed to 1 and to {options.connections} clients of all "
        f"symbols, {options.duration:g} s each",
    )
    with TemporaryDirectory() as folder:
        day = Path(folder) / "day.csv"
        if not options.url:
            write_day(day, load_day())
        _measure(options, day, 1, (20_000, 60_000), result)
        if options.connections > 1:
            _measure(options, day, options.connections, (4000, 10_000), result)
    return result


def _measure(
    options: load.Options, day: Path, clients: int, targets: tuple[int, int], result: Result
) -> None:
    with _open(options, day) as target, load.open_generator(target, options.form) as generator:
        load.connect(generator, target, clients, lambda _: "*", sample=SAMPLE)
        before = target.metric(UPDATES)
        window = load.measure(target, generator, options.duration, result)
        after = target.metric(UPDATES)
        trades = None if before is None or after is None else (after - before) / window.seconds
        label = f"{clients} client{'s' * (clients > 1)}"
        must, aim = targets
        result.add(
            Figure(f"{label}, trades", trades, Unit.PER_SECOND, must, aim, at_least=True),
            Figure(f"{label}, versions skipped", generator.missed, Unit.COUNT, must=0),
            Figure(f"{label}, versions merged", generator.jumps, Unit.COUNT),
        )
        result.add(
            *[
                figure._replace(name=f"{label}, {figure.name}")
                for figure in load.common_figures(window)
            ]
        )
        if generator.missed:
            result.wrong.append(f"{generator.missed} versions skipped")
        load.check_failures(generator, result)


def _open(options: load.Options, day: Path) -> AbstractContextManager[Target]:
    if options.url:
        return options.open()
    return OwnServer(FEED=f"replay:{day}", REPLAY_SPEED="0", REPLAY_LOOP="1")
