"""The benchmark's command line."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from bench import cluster, fleet
from bench.cache import run_cache
from bench.compare import run_compare
from bench.figures import Result
from bench.forms import FORMS, Form
from bench.hotpath import run_hotpath
from bench.load import Options
from bench.peers import PEERS
from bench.report import print_result, summary, write_json, write_page, write_plot
from bench.scenarios import LONG, SCENARIOS
from bench.schedule import ScheduleTooLong
from bench.screen import show
from bench.target import TargetError

USAGE_ERROR = 2

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 (argparse has no public name for it)


def main(arguments: Sequence[str]) -> int:
    """Run a command; 0 if its result is valid and nothing went wrong."""
    options = _parser().parse_args(arguments)
    try:
        return 0 if options.run(options) else 1
    except (TargetError, ScheduleTooLong) as error:
        print(f"bench: {error}", file=sys.stderr)
        return USAGE_ERROR
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        print("bench: too few descriptors for so many connections: ulimit -n", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measure the server.")
    commands = parser.add_subparsers(required=True, metavar="SCENARIO")
    for name, module in (SCENARIOS | LONG).items():
        headline, _, details = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(name, help=headline, description=f"{headline}{details}")
        _add_load(command, module)
        _add_outputs(command)
        command.set_defaults(run=partial(_run_one, module))
    _add_all(commands)
    _add_compare(commands)
    _add_cluster(commands)
    _add_hotpath(commands)
    _add_cache(commands)
    return parser


def _add_all(commands: Commands) -> None:
    command = commands.add_parser("all", help="every scenario, and a page with all figures")
    command.add_argument("--report", type=Path, required=True, metavar="DIR")
    command.add_argument(
        "--scale",
        type=_fraction,
        default=1.0,
        help="factor for connections and durations, for a quick trial; 1 by default",
    )
    command.set_defaults(run=_run_all)


def _add_compare(commands: Commands) -> None:
    command = commands.add_parser("compare", help="the same broadcast by other servers, in turn")
    command.add_argument("--connections", type=_positive, default=1000)
    command.add_argument("--duration", type=_seconds, default=5.0, help="seconds a step")
    _add_form(command)
    command.add_argument(
        "--only", nargs="+", choices=PEERS, default=PEERS, metavar="SERVER", help=", ".join(PEERS)
    )
    _add_outputs(command)
    command.set_defaults(run=_run_compare)


def _add_cluster(commands: Commands) -> None:
    command = commands.add_parser(
        "cluster", help="two workers against one, the bus, a dead leader, a dead worker"
    )
    command.add_argument("--connections", type=_positive, default=cluster.CONNECTIONS)
    command.add_argument(
        "--duration", type=_seconds, default=cluster.DURATION, help="seconds a step"
    )
    command.add_argument(
        "--rate",
        type=_seconds,
        default=fleet.RATE,
        help="moves a second of each symbol of the fleet",
    )
    command.add_argument(
        "--kills", type=_positive, default=cluster.KILLS, help="number of leaders to kill"
    )
    command.add_argument(
        "--only",
        nargs="+",
        choices=cluster.PARTS,
        default=[*cluster.PARTS],
        metavar="PART",
        help=", ".join(cluster.PARTS),
    )
    _add_outputs(command)
    command.set_defaults(run=_run_cluster)


def _add_hotpath(commands: Commands) -> None:
    command = commands.add_parser(
        "hotpath", help="one price to many subscribers in memory: the cost of our own code"
    )
    command.add_argument("--subscribers", type=_positive, default=10_000)
    command.add_argument("--updates", type=_positive, default=320)
    command.set_defaults(run=run_hotpath)


def _add_cache(commands: Commands) -> None:
    command = commands.add_parser(
        "cache", help="snapshots over HTTP: hits, misses, and the queries that the cache saves"
    )
    command.add_argument("--symbols", type=_positive, default=10_000)
    command.add_argument(
        "--requests", type=_positive, default=1000, help="number of hits, and of misses"
    )
    command.add_argument(
        "--duration",
        type=_seconds,
        default=10.0,
        help="seconds of each of the twelve loads, and the TTL",
    )
    command.set_defaults(run=run_cache)


def _add_load(command: argparse.ArgumentParser, module: ModuleType) -> None:
    command.add_argument(
        "--connections",
        type=_positive,
        default=module.CONNECTIONS,
        help=f"{module.CONNECTIONS} by default",
    )
    length = command.add_mutually_exclusive_group()
    length.add_argument(
        "--duration",
        type=_seconds,
        default=float(module.DURATION),
        metavar="SECONDS",
        help=f"{module.DURATION} by default",
    )
    length.add_argument(
        "--hours",
        type=_hours,
        dest="duration",
        default=argparse.SUPPRESS,
        help="the duration in hours",
    )
    if module.RATE:
        command.add_argument(
            "--rate",
            type=_seconds,
            default=float(module.RATE),
            help=f"see above; {module.RATE} by default",
        )
    _add_form(command)
    command.add_argument(
        "--url", default="", help="address of a running server to measure; our own by default"
    )
    command.add_argument(
        "--token",
        default=os.environ.get("TOKEN", ""),
        help="token of all connections to --url; $TOKEN keeps it out of `ps`",
    )
    command.add_argument(
        "--secret",
        default=os.environ.get("JWT_SECRET", ""),
        help="signs a token for each 100 connections to --url; $JWT_SECRET keeps it out of `ps`",
    )
    command.add_argument(
        "--http",
        default="",
        metavar="URL",
        help="HTTP port of the server at --url, to read its CPU and memory",
    )


def _add_form(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--format",
        choices=FORMS,
        default=Form.name,
        help=f"form of the messages; {Form.name} by default",
    )
    command.add_argument(
        "--fields",
        default="",
        metavar="current_price,volume",
        help="the fields of a quote that the clients ask for; all by default",
    )


def _add_outputs(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    command.add_argument(
        "--plot",
        type=_plot_file,
        metavar="FILE",
        help=".png or .html: latency distribution and timeline",
    )


def _run_one(module: ModuleType, arguments: argparse.Namespace) -> bool:
    options = Options(
        connections=arguments.connections,
        duration=arguments.duration,
        rate=arguments.rate if module.RATE else 0.0,
        url=arguments.url,
        token=arguments.token,
        secret=arguments.secret,
        http=arguments.http,
        format=arguments.format,
        fields=arguments.fields,
    )
    result = module.run(options)
    if options.form.query:
        result.setting += f", messages in {options.form}"
    return _report(result, arguments)


def _run_compare(arguments: argparse.Namespace) -> bool:
    options = Options(
        connections=arguments.connections,
        duration=arguments.duration,
        rate=0,
        format=arguments.format,
        fields=arguments.fields,
    )
    return _report(run_compare(options, [*dict.fromkeys(arguments.only)]), arguments)


def _run_cluster(arguments: argparse.Namespace) -> bool:
    options = Options(
        connections=arguments.connections, duration=arguments.duration, rate=arguments.rate
    )
    parts = [*dict.fromkeys(arguments.only)]
    return _report(cluster.run_cluster(options, parts, arguments.kills), arguments)


def _report(result: Result, arguments: argparse.Namespace) -> bool:
    print_result(result)
    if arguments.json:
        write_json([result], arguments.json)
    if arguments.plot:
        write_plot(result, arguments.plot)
    return result.good


def _run_all(arguments: argparse.Namespace) -> bool:
    results = []
    arguments.report.mkdir(parents=True, exist_ok=True)
    for name, module in SCENARIOS.items():
        show(f"{name}: {(module.__doc__ or '').splitlines()[0]}")
        # A symbol that moves every four seconds has to move twice in a quick trial, too.
        shortest = max(2.0, 2 / module.RATE if module.RATE else 0.0)
        options = Options(
            connections=max(10, round(module.CONNECTIONS * arguments.scale)),
            duration=max(shortest, module.DURATION * arguments.scale),
            rate=module.RATE,
        )
        results.append(module.run(options))
        print_result(results[-1])
        # Written after each, so that an interrupted run leaves what it measured.
        write_json(results, arguments.report / "figures.json")
        write_page(results, arguments.report / "index.html")
    print(summary(results))
    show(f"written to {arguments.report / 'index.html'}")
    return all(result.good for result in results)


LARGEST = 1e6
"""The most seconds, moves a second or things of one kind that an option may ask for."""


def _positive(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 1 to {LARGEST:,.0f}")
    return int(text)


def _seconds(text: str) -> float:
    return _number(text, LARGEST)


def _hours(text: str) -> float:
    return 3600 * _number(text, LARGEST / 3600)


def _fraction(text: str) -> float:
    return _number(text, 1)


def _number(text: str, largest: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0
    if not 0 < number <= largest:
        raise argparse.ArgumentTypeError(
            f"{text} is not a number above 0 and at most {largest:,.0f}"
        )
    return number


def _plot_file(text: str) -> Path:
    if not text.endswith((".png", ".html")):
        raise argparse.ArgumentTypeError(f"{text} ends neither with .png nor with .html")
    return Path(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
