"""The benchmark's command line."""

import argparse
import os
import sys
from collections.abc import Sequence

from bench.fanout import run_fanout
from bench.hotpath import run_hotpath
from bench.target import TargetError

USAGE_ERROR = 2


def main(arguments: Sequence[str]) -> int:
    """Run one scenario; 0 if what it measured is valid and nothing was missed."""
    options = _parser().parse_args(arguments)
    try:
        return 0 if options.run(options) else 1
    except TargetError as error:
        print(f"bench: {error}", file=sys.stderr)
        return USAGE_ERROR
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    scenarios = parser.add_subparsers(required=True, metavar="SCENARIO")

    hotpath = scenarios.add_parser(
        "hotpath", help="one price to many subscribers in memory: the cost of our own code"
    )
    hotpath.add_argument("--subscribers", type=_positive, default=10_000)
    hotpath.add_argument("--updates", type=_positive, default=320)
    hotpath.set_defaults(run=run_hotpath)

    fanout = scenarios.add_parser(
        "fanout", help="one price to many real connections, from a process of its own"
    )
    fanout.add_argument("--connections", type=_positive, default=1000)
    fanout.add_argument("--duration", type=_positive, default=60, metavar="SECONDS")
    fanout.add_argument("--interval", default="100ms", help="between two updates; 100ms by default")
    fanout.add_argument("--url", help="a running server's, instead of one started for this")
    fanout.add_argument(
        "--token", default=os.environ.get("TOKEN", ""), help="for --url; by default $TOKEN"
    )
    fanout.set_defaults(run=run_fanout)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
